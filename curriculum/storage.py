"""Artifacts on disk or on any fsspec URL: written aside, checksummed, renamed into place, verified when read.

Layout under the root: ``ASSET/VERSION/{files, manifest.json}`` and ``ASSET/LATEST.json``; a partition of an asset is an
asset of its own under the name ``ASSET/PARTITION``, with versions and a latest one of its own. A version becomes visible by one
rename (local) or by its manifest, written last (object stores, which have no rename); a killed writer leaves only a
temporary folder that the next write sweeps away. ``work/ASSET/KEY`` holds checkpoints and survives kills.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from curriculum.disk import disk_full, fsync, fsync_tree, full_disk_message, write_atomically
from curriculum.errors import IntegrityError, UserError

MANIFEST = "manifest.json"
_verified: set[tuple[str, str]] = set()  # (path, digest) already hashed by this process


class FileRecord(BaseModel):
    """Size in bytes and SHA-256 of one file."""

    model_config = ConfigDict(extra="forbid")

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a version is: its files, what made it, and from what. ``target`` names the version a promotion points at.

    ``inputs`` are the digests of what it was made from, ``made_from`` the versions: of a promoted input, the version that was promoted.
    ``sequence`` counts the versions of an asset in the order they were published: a clock that was set back cannot reorder them.
    ``seal`` is the SHA-256 of everything else here: a damaged manifest is not believed.
    """

    model_config = ConfigDict(extra="forbid")

    asset: str
    version: str
    key: str
    kind: str
    code_version: str = ""
    profile: str = ""
    inputs: dict[str, str] = Field(default_factory=dict)
    made_from: dict[str, str] = Field(default_factory=dict)
    files: dict[str, FileRecord] = Field(default_factory=dict)
    facts: dict[str, Any] = Field(default_factory=dict)
    target: dict[str, str] | None = None
    seconds: float = 0.0
    created_at: str = ""
    sequence: int = 0
    seal: str = ""

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        """A file lies below its version's folder: a manifest fetched from elsewhere may name no other place to write to."""
        outside = [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]
        if outside:
            raise ValueError(f"{outside[0]!r} is outside the artifact")
        return files

    @property
    def digest(self) -> str:
        """SHA-256 over file names and contents: equal bytes give equal digests, whoever made them."""
        if self.target is not None:
            return self.target["digest"]
        return digest_of({name: record.sha256 for name, record in self.files.items()})


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a JSON-able value with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def again(asset: str) -> str:
    """The command that repairs an asset: what is damaged counts as absent and is made again, the rest is reused."""
    name, _, partition = asset.partition("/")
    return f"run `dagster asset materialize -m pipelines.definitions --select {name}{f' --partition {partition}' if partition else ''}`"


def partition_name(asset: str, partition: str) -> str:
    """What one partition of an asset is called in the store; the asset itself where ``partition`` is empty.

    Raises:
        UserError: the partition's name would lead out of the asset's folder.
    """
    if not partition:
        return asset
    if Path(partition).name != partition or partition.startswith("."):
        raise UserError(f"'{partition}' cannot name a partition of '{asset}': it is no plain folder name")
    return f"{asset}/{partition}"


class ArtifactStore:
    """The versions of every asset under ``root``: a local folder, or any fsspec URL (``s3://``, ``gs://``, ``memory://``).

    ``local`` is where temporary folders, checkpoints and downloads live when ``root`` is remote.
    """

    def __init__(self, root: str, local: Path | None = None) -> None:
        from upath import UPath

        self.remote = "://" in root and not root.startswith("file://")
        self.root = UPath(root) if self.remote else Path(root.removeprefix("file://")).absolute()
        self.local = (local or (Path(self.root) if not self.remote else Path(tempfile.gettempdir()))).absolute()

    def checkpoints(self, asset: str, key: str) -> Path:
        """The folder for one computation's checkpoints: the same key finds it again after a kill."""
        folder = self.local / "work" / asset / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextlib.contextmanager
    def staging(self, asset: str) -> Iterator[Path]:
        """A fresh folder to write a version into; gone afterwards unless :meth:`publish` renamed it away.

        Raises:
            UserError: the disk is full; what was finished before is untouched.
        """
        parent, folder = self.local / ".staging", None
        try:
            parent.mkdir(parents=True, exist_ok=True)
            self._sweep(parent)
            folder = Path(tempfile.mkdtemp(dir=parent, prefix=f"{asset.replace('/', '.')}-{os.getpid()}-"))
            yield folder
        except Exception as error:
            if disk_full(error) and self.local.is_dir():
                raise UserError(full_disk_message(self.local, asset)) from error
            raise
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def _sweep(parent: Path) -> None:
        """Remove staging folders whose writer (its process id is in the name) is gone."""
        for leftover in parent.iterdir():
            writer = leftover.name.rsplit("-", 2)[-2]
            if writer.isdigit() and not Path(f"/proc/{writer}").exists() and Path("/proc").exists():
                shutil.rmtree(leftover, ignore_errors=True)

    def publish(self, staged: Path, manifest: Manifest) -> Manifest:
        """Checksum ``staged``, write its manifest, move it into place and make it the latest version of its asset."""
        files = {
            str(p.relative_to(staged)): FileRecord(bytes=p.stat().st_size, sha256=file_sha256(p))
            for p in sorted(staged.rglob("*"))
            if p.is_file() and p.name != MANIFEST
        }
        sequence = 1 + max((m.sequence for m in self.versions(manifest.asset)), default=0)
        made = {"files": files, "created_at": datetime.now(UTC).isoformat(), "sequence": sequence}
        written = json.loads(manifest.model_copy(update=made).model_dump_json(exclude={"seal"}))
        written["seal"] = digest_of(written)
        (staged / MANIFEST).write_text(json.dumps(written, indent=1), encoding="utf-8")
        manifest = Manifest.model_validate(written)  # as a reader will see it
        if self.remote:
            self._upload(staged, manifest)
        else:
            manifest = self._move(staged, manifest)
        self.point(manifest)
        shutil.rmtree(self.local / "work" / manifest.asset / manifest.key, ignore_errors=True)
        return manifest

    def _move(self, staged: Path, manifest: Manifest) -> Manifest:
        """Rename into place. Where another writer of the same version came first, its copy stays, unless it is damaged."""
        fsync_tree(staged)
        target = self.root / manifest.asset / manifest.version
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.chmod(0o755)
        try:
            os.rename(staged, target)
        except OSError:
            if not target.is_dir():
                raise
            _verified.discard((str(target), manifest.digest))
            with contextlib.suppress(IntegrityError):
                first = self.manifest(manifest.asset, manifest.version)
                if first is not None:
                    self.path(first)
                    return first
            shutil.rmtree(target)
            os.rename(staged, target)
        fsync(target.parent)
        return manifest

    def _upload(self, staged: Path, manifest: Manifest) -> None:
        for name in [*manifest.files, MANIFEST]:  # the manifest last: it is what makes the version exist
            target = self.root / manifest.asset / manifest.version / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((staged / name).read_bytes())

    def point(self, manifest: Manifest) -> None:
        """Make ``manifest`` the latest version of its asset."""
        pointer = self.root / manifest.asset / "LATEST.json"
        content = json.dumps({"version": manifest.version}).encode()
        if self.remote:
            pointer.parent.mkdir(parents=True, exist_ok=True)
            pointer.write_bytes(content)
        else:
            write_atomically(pointer, content)

    def refer(self, asset: str, to: Manifest, facts: dict[str, Any]) -> Manifest:
        """Publish ``asset`` as a pointer at another asset's version (a promotion): no bytes are copied."""
        version = f"{to.asset}-{to.version}"
        target = {"asset": to.asset, "version": to.version, "digest": to.digest}
        manifest = Manifest(
            asset=asset, version=version, key=version, kind=to.kind, profile=to.profile, facts=facts, target=target,
            inputs={to.asset: to.digest}, made_from={to.asset: to.version},
        )
        with self.staging(asset) as staged:
            return self.publish(staged, manifest)

    def manifest(self, asset: str, version: str | None = None) -> Manifest | None:
        """The manifest of a version (the latest by default), or None where there is none.

        Raises:
            IntegrityError: the pointer or the manifest cannot be read.
        """
        if version is None:
            pointer = self.root / asset / "LATEST.json"
            if not pointer.exists():
                return None
            version = self._pointed(asset, pointer)
        path = self.root / asset / version / MANIFEST
        return self._read(path, asset) if path.exists() else None

    @staticmethod
    def _pointed(asset: str, pointer: Path) -> str:
        try:
            return str(json.loads(pointer.read_text(encoding="utf-8"))["version"])
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{pointer} is corrupted ({error!r}); {again(asset)}, which writes it anew: no version is lost") from error

    @staticmethod
    def _read(path: Path, asset: str) -> Manifest:
        try:
            written = json.loads(path.read_bytes())
            manifest = Manifest.model_validate(written)
        except ValueError as error:
            raise IntegrityError(f"{path} is corrupted ({str(error).splitlines()[0]}); {again(asset)}") from error
        if manifest.seal and manifest.seal != digest_of({k: v for k, v in written.items() if k != "seal"}):
            raise IntegrityError(f"{path} is corrupted (it differs from its checksum); {again(asset)}")
        return manifest

    def versions(self, asset: str) -> list[Manifest]:
        """Every version of an asset whose manifest can be read, oldest first."""
        folder, found = self.root / asset, []
        for name in [p.name for p in folder.iterdir() if (p / MANIFEST).exists()] if folder.exists() else []:
            with contextlib.suppress(IntegrityError):
                found.append(self.manifest(asset, name))
        return sorted((m for m in found if m is not None), key=lambda m: (m.sequence, m.created_at))

    def find(self, asset: str, key: str) -> Manifest | None:
        """The newest version made by computation ``key``, or None. A corrupted one counts as absent: it is made again."""
        for manifest in reversed(self.versions(asset)):
            if manifest.key == key:
                try:
                    self.path(manifest)
                except IntegrityError:
                    shutil.rmtree(self.root / asset / manifest.version, ignore_errors=True)
                    continue
                return manifest
        return None

    def path(self, manifest: Manifest) -> Path:
        """A local folder with the files of a version, verified against its manifest.

        Raises:
            IntegrityError: a file is missing or its size or SHA-256 differs.
        """
        if manifest.target is not None:
            target = self.manifest(manifest.target["asset"], manifest.target["version"])
            named = f"'{manifest.asset}' points at version {manifest.target['version']} of '{manifest.target['asset']}'"
            if target is None:
                raise IntegrityError(f"{named}, which is gone; {again(manifest.target['asset'])}")
            if target.digest != manifest.target["digest"]:
                raise IntegrityError(f"{named}, which was made again with other contents; {again(manifest.asset)}")
            return self.path(target)
        folder = self.root / manifest.asset / manifest.version
        if self.remote:
            folder = self._download(manifest)
        self._verify(Path(folder), manifest)
        return Path(folder)

    def _download(self, manifest: Manifest) -> Path:
        folder = self.local / "downloads" / manifest.asset / manifest.version
        for name in manifest.files:
            if not (folder / name).exists():
                write_atomically(folder / name, (self.root / manifest.asset / manifest.version / name).read_bytes())
        return folder

    @staticmethod
    def _verify(folder: Path, manifest: Manifest) -> None:
        if (str(folder), manifest.digest) in _verified:
            return
        for name, record in manifest.files.items():
            path = folder / name
            if not path.exists():
                problem = "is missing"
            elif path.stat().st_size != record.bytes or file_sha256(path) != record.sha256:
                problem = "differs from its checksum"
            else:
                continue
            raise IntegrityError(
                f"artifact '{manifest.asset}' is corrupted: {path} {problem}; {again(manifest.asset)} "
                "(other versions beside it are untouched)"
            )
        _verified.add((str(folder), manifest.digest))
