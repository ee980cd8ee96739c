"""Processes that the storage drills start: a writer that publishes versions, and a reader that verifies what it is given.

A version holds two files with the same words, so one that mixes two writers, or misses a part, cannot pass for whole.
"""

from __future__ import annotations

import argparse
import json
import time

from curriculum import storage
from curriculum.storage import ArtifactStore, Manifest

PADDING = 200_000  # bytes: long enough to be caught in the middle


def publish(store: ArtifactStore, asset: str, version: str, key: str, words: str) -> Manifest:
    """One version whose files both hold ``words``."""
    content = (words + "\n").encode() * (PADDING // (len(words) + 1))
    with store.staging(asset) as staged:
        for name in ("first.txt", "second.txt"):
            (staged / name).write_bytes(content)
        return store.publish(staged, Manifest(asset=asset, version=version, key=key, kind="directory"))


def whole(store: ArtifactStore, manifest: Manifest) -> bool:
    """Whether a version's files match its manifest, read from the disk now, and each other."""
    storage._verified.clear()
    folder = store.path(manifest)
    first, second = ((folder / name).read_bytes() for name in ("first.txt", "second.txt"))
    return first == second and len(set(first.splitlines())) == 1


def write(store: ArtifactStore, asset: str, name: str, seconds: float) -> dict[str, int]:
    """Publish for ``seconds``: in turns a version of one's own, and one that the other writers publish too."""
    end, own, shared = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        publish(store, asset, f"{name}-{own}", f"{name}-{own}", f"{name} {own}")
        own += 1
        publish(store, asset, f"shared-{shared}", f"shared-{shared}", f"written by {name}")
        shared += 1
    return {"own": own, "shared": shared}


def read(store: ArtifactStore, asset: str, seconds: float) -> dict[str, int]:
    """Read the latest version again and again, as fast as possible."""
    end, reads, torn, seen = time.monotonic() + seconds, 0, 0, set()
    while time.monotonic() < end:
        manifest = store.manifest(asset)
        if manifest is not None:
            reads += 1
            torn += not whole(store, manifest)
            seen.add(manifest.version)
    return {"reads": reads, "torn": torn, "versions": len(seen)}


def main() -> None:
    """Prints what it did as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("write", "read", "publish"))
    parser.add_argument("root")
    parser.add_argument("asset")
    parser.add_argument("--name", default="")
    parser.add_argument("--key", default="")
    parser.add_argument("--seconds", type=float, default=0)
    given = parser.parse_args()
    store = ArtifactStore(given.root)
    if given.what == "publish":
        made = publish(store, given.asset, given.name, given.key or given.name, given.name)
        store.refer(f"promoted_{given.asset}", made, {})
        print(json.dumps({"created_at": made.created_at}))
    elif given.what == "write":
        print(json.dumps(write(store, given.asset, given.name, given.seconds)))
    else:
        print(json.dumps(read(store, given.asset, given.seconds)))


if __name__ == "__main__":
    main()
