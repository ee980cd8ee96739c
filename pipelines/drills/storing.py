"""Faults of the store: damaged files, clocks that jump, two writers at once."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from curriculum import storage
from curriculum.errors import UserError
from curriculum.evaluation.rollback import roll_back
from curriculum.storage import MANIFEST, ArtifactStore, Manifest
from pipelines.drills import writer
from pipelines.drills.box import MODULE, Box, Failed, NotRun, require


def _flip(folder: Path) -> None:
    path = folder / "tick.json"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _flip_in_manifest(folder: Path) -> None:
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"profile": "drill"', '"profile": "dri1l"'))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


DAMAGES: dict[str, Callable[[Path], None]] = {  # each is given the version's folder
    "a bit flipped": _flip,
    "a file truncated": lambda folder: _truncate(folder / "tick.json"),
    "a file gone": lambda folder: (folder / "tick.json").unlink(),
    "a letter of the manifest changed": _flip_in_manifest,
    "the manifest truncated": lambda folder: _truncate(folder / MANIFEST),
    "the manifest gone": lambda folder: (folder / MANIFEST).unlink(),
    "the pointer truncated": lambda folder: _truncate(folder.parent / "LATEST.json"),
    "the folder gone": shutil.rmtree,
}


def corrupt() -> tuple[str, str]:
    """Damage an artifact in every way there is, read it, and run the command that the refusal names."""
    with Box() as box:
        code, printed = box.materialise("tick")
        require(code == 0, f"the artifact was not made: {printed[-500:]}")
        made = box.store().manifest("tick")
        assert made is not None
        for damage, do in DAMAGES.items():
            do(box.store().root / "tick" / made.version)
            command = _refusal(box, damage)
            code, printed = box.run(*shlex.split(command.replace("pipelines.definitions", MODULE)))
            require(code == 0, f"{damage}: `{command}` did not repair it: {printed[-800:]}")
            again = _read(box.store())
            require(again.digest == made.digest and again.version == made.version, f"{damage}: repaired to something else")
    return f"{len(DAMAGES)} damages: {', '.join(DAMAGES)}", "each refused; the command named in the refusal repaired it, to the same bytes"


def _read(store: ArtifactStore) -> Manifest:
    """Read as a downstream asset does."""
    import dagster as dg

    from resources.artifact_store import ArtifactIOManager, Artifacts

    storage._verified.clear()
    manager = ArtifactIOManager(artifacts=Artifacts(root=str(store.root), local=str(store.local)))
    manager.load_input(dg.build_input_context(asset_key=dg.AssetKey("tick")))
    manifest = store.manifest("tick")
    assert manifest is not None
    return manifest


def _refusal(box: Box, damage: str) -> str:
    """The command in the error with which the damaged artifact is refused."""
    try:
        _read(box.store())
    except UserError as error:
        named = re.search(r"`(dagster asset materialize [^`]+)`", str(error))
        require(named is not None, f"{damage}: the refusal names no command: {error}")
        assert named is not None
        return named.group(1)
    raise Failed(f"{damage}: the damaged artifact was read")


def jump_clock() -> tuple[str, str]:
    """Publish, reuse and roll back while the clock jumps by 400 days, back and forth."""
    faketime = shutil.which("faketime")
    if faketime is None:
        raise NotRun("needs Debian's package faketime")
    with Box(FAKETIME_DONT_FAKE_MONOTONIC="1") as box:
        store, dates = box.store(), []
        for name, jump in (("v1", "+0d"), ("v2", "-400d"), ("v3", "+400d"), ("v4", "+0d")):
            key = name if name == "v1" else "again"  # v2 to v4: one computation, made afresh each time
            command = [sys.executable, "-m", "pipelines.drills.writer", "publish", str(store.root), "clock", "--name", name, "--key", key]
            code, printed = box.run(faketime, "-f", jump, *command)
            require(code == 0, f"publishing under a clock at {jump}: {printed[-500:]}")
            dates.append(json.loads(printed.splitlines()[-1])["created_at"])
        require(sorted(dates) == [dates[1], dates[0], dates[3], dates[2]], f"the clock did not jump: {dates}")
        require([m.version for m in store.versions("clock")] == ["v1", "v2", "v3", "v4"], "the versions are out of order")
        latest, found = store.manifest("clock"), store.find("clock", "again")
        require(latest is not None and latest.version == "v4", "the latest version is not the one published last")
        require(found is not None and found.version == "v4", "the reused version is not the newest one")
        back = [roll_back(store, "promoted_clock")[1] for _ in range(3)]
        require(back == ["clock-v3", "clock-v2", "clock-v1"], f"rolled back through {back}")
    return "four versions under clocks 400 days apart", "order, latest, reuse and rollback followed the order of publishing"


def two_writers(seconds: float = 10) -> tuple[str, str]:
    """Two processes publish the same asset, versions of their own and the same versions, while a third reads and verifies."""
    with Box() as box:
        root = str(box.store().root)

        def begin(*arguments: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "pipelines.drills.writer", *arguments, "--seconds", str(seconds)]
            return subprocess.Popen(
                command, cwd=box.folder, env=box.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )

        processes = [begin("write", root, "shared", "--name", name) for name in ("anna", "boris")] + [begin("read", root, "shared")]
        said = []
        for process in processes:
            out, error = process.communicate(timeout=seconds + 120)
            require(process.returncode == 0, f"a process failed: {error[-800:]}")
            said.append(json.loads(out))
        anna, boris, reader = said
        store = box.store()
        versions = store.versions("shared")
        expected = anna["own"] + boris["own"] + max(anna["shared"], boris["shared"])
        require(len(versions) == expected, f"{len(versions)} versions instead of {expected}")
        require(all(writer.whole(store, manifest) for manifest in versions), "a version mixes two writers")
        require(reader["torn"] == 0 and reader["reads"] > 0, f"the reader saw {reader}")
        latest = store.manifest("shared")
        require(latest in versions, "the pointer names no version")
        require(not list((store.local / ".staging").iterdir()), "temporary folders were left")
    done = f"two writers and a reader for {seconds:.0f} s: {expected} versions, {min(anna['shared'], boris['shared'])} of them written by both"
    return done, f"{reader['reads']} reads, none torn; every version whole, one pointer"
