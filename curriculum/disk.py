"""Writing so that a kill leaves whole files, and a full disk reported by its folder, what is free there and what could be freed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, fsync, and replace: a reader sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def fsync(path: Path) -> None:
    """Have the kernel write out a file, or a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(directory: Path) -> None:
    """The same for a folder and everything under it."""
    for path in [directory, *directory.rglob("*")]:
        fsync(path)


def disk_full(error: BaseException) -> bool:
    """Whether ``error`` comes from a disk, quota or file size limit that was reached.

    Libraries with a core of their own (safetensors, faiss, Arrow) report it by the system's text alone, without its number.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        if any(os.strerror(number) in str(seen) for number in (errno.ENOSPC, errno.EDQUOT)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def full_disk_message(folder: Path, asset: str) -> str:
    """One sentence: which disk is full, what is free there, the largest things of ours on it, and what to do."""
    free = shutil.disk_usage(folder).free
    sizes = sorted(((_bytes(child), child) for child in folder.iterdir() if child.name != ".staging"), reverse=True)
    largest = ", ".join(f"{child.name} {_size(count)}" for count, child in sizes[:3] if count)
    return (
        f"the disk holding {folder} is full while writing '{asset}' ({_size(free)} free"
        + (f"; the largest there: {largest}" if largest else "")
        + "); free space on it or set CURRICULUM_HOME to a larger disk, then run the same command again: finished artifacts are untouched"
    )


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.lstat().st_size
    return sum(p.lstat().st_size for p in path.rglob("*") if p.is_file())


def _size(count: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
