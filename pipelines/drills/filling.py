"""A full disk: a small file system of one's own, filled up while a model is written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from curriculum.cli import PROJECT
from pipelines.drills.box import Box, Failed, require
from pipelines.drills.services import RUN_SECONDS
from pipelines.drills.training import latest

DISK, LEFT = 256 * 2**20, 6 * 2**20  # bytes: of the file system, and what is left free on it. Model 14 MiB, checkpoint 42, twice while written
MODEL = {"layers": 2, "width": 384, "heads": 4, "kv_heads": 2, "hidden": 1024, "steps": 2, "batch_size": 2}
MOUNT = ("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs")


def namespace() -> tuple[str, ...] | None:
    """The command that gives a process mounts of its own, or None where this user may not have them."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    # a process tree of its own too: when the command is killed, everything that it started goes with it
    rights = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    command = (unshare, *rights, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    tried = subprocess.run([*command, *MOUNT, "/mnt"], capture_output=True, check=False)
    return command if tried.returncode == 0 else None


def fill_disk() -> tuple[str, str]:
    """The disk fills up while a model is written. Where no file system may be mounted, a limit on the size of a file stands in for it."""
    own = namespace()
    if own is None:
        with Box() as box:
            return _fill(box, mounted=False)
    # the file system exists in this process alone, and goes with it
    folder = Path(tempfile.mkdtemp(prefix="drill-"))
    try:
        command = [*own, sys.executable, "-m", "pipelines.drills.filling", str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=RUN_SECONDS * 4)
        require(done.returncode == 0, done.stderr.strip()[-1500:])
        did, back = json.loads(done.stdout.splitlines()[-1])
        return did, back
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(box: Box, *, mounted: bool) -> tuple[str, str]:
    box.profile(**MODEL)
    code, printed = box.materialise("trained")
    require(code == 0, f"the first model was not written: {printed[-800:]}")
    good, ballast = latest(box, "trained"), box.folder / "ballast"
    box.profile(**{**MODEL, "steps": 3, "checkpoint_every": 1 if mounted else 100})
    if mounted:
        ballast.write_bytes(b"\0" * (shutil.disk_usage(box.folder).free - LEFT))
        code, printed = box.materialise("trained")
        ballast.unlink()
    else:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LEFT, limit[1]))  # the processes started from here have it too
        try:
            code, printed = box.materialise("trained")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    store = box.store()
    require(code == 1, f"exit code {code} on a full disk")
    require(f"the disk holding {store.root} is full while writing 'trained'" in printed, f"no clear error: {printed[-1500:]}")
    require(latest(box, "trained") == good, "the last good version is not the latest any more")
    require(not list((store.local / ".staging").iterdir()), "the failed write left its temporary folder")
    require(not list(store.root.glob("work/**/.checkpoint*")), "the failed write left half a checkpoint")
    code, printed = box.materialise("trained")
    require(code == 0 and latest(box, "trained").sequence == good.sequence + 1, f"with space again: {printed[-800:]}")
    how = f"a file system of {DISK // 2**20} MiB filled up to {LEFT // 2**20} MiB" if mounted else f"files limited to {LEFT // 2**20} MiB"
    return f"{how} while a model was written", "one error named the folder and what is on it; latest stayed; with space again the same command worked"


def main() -> None:
    """Inside the namespace: mount, fill, and print what was done as JSON."""
    folder = Path(sys.argv[1])
    subprocess.run([*MOUNT, str(folder)], check=True)
    try:
        with Box(folder) as box:
            print(json.dumps(_fill(box, mounted=True)))
    except Failed as error:
        raise SystemExit(f"{error}") from None


if __name__ == "__main__":
    main()
