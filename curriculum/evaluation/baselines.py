"""The accepted state: per-example scores with the identity of what they were measured on, kept beside the code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curriculum.disk import write_atomically
from curriculum.errors import UserError
from curriculum.evaluation.regression import Change, compare_scores
from curriculum.results import StudyResult
from curriculum.storage import ArtifactStore, Manifest
from curriculum.syllabus import Regression

if TYPE_CHECKING:
    import pandas as pd

_PROJECT = Path(__file__).resolve().parents[2]


def baselines_root() -> Path:
    """Where baselines are kept: ``CURRICULUM_BASELINES``, or ``baselines`` beside the code, under version control."""
    return Path(os.environ.get("CURRICULUM_BASELINES") or _PROJECT / "baselines").absolute()


class Baselines:
    """The accepted scores of one profile: ``root/PROFILE/ASSET.parquet``, and ``ASSET.json`` with their identity."""

    def __init__(self, profile: str, root: Path | None = None) -> None:
        self.folder = (root or baselines_root()) / profile

    def assets(self) -> list[str]:
        """The assets that have a baseline."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def record(self, asset: str) -> dict[str, Any] | None:
        """What was accepted for ``asset``, when, why, and what it was measured with; None without a baseline."""
        path = self.folder / f"{asset}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def scores(self, asset: str) -> pd.DataFrame | None:
        """The accepted per-example scores of ``asset``; None without a baseline."""
        import pandas as pd

        path = self.folder / f"{asset}.parquet"
        return pd.read_parquet(path) if path.exists() else None

    def accept(self, regressions: Iterable[Regression], store: ArtifactStore, asset: str, reason: str) -> dict[str, Any]:
        """Make the latest result of ``asset`` the one that later results are held against. Returns its record.

        Raises:
            UserError: no reason, nothing measured, or the asset has no score under regression.
        """
        if not reason.strip():
            raise UserError("a baseline is accepted for a reason; give it with --reason")
        mine = [r for r in regressions if r.asset == asset]
        if not mine:
            raise UserError(f"'{asset}' has no score under regression; the syllabus lists them under 'regressions'")
        manifest = store.manifest(asset)
        if manifest is None:
            raise UserError(f"'{asset}' was never measured under this profile; materialise it before accepting it")
        result = StudyResult.load(store.path(manifest))
        columns = sorted({r.score for r in mine})
        absent = [c for c in columns if result.per_example is None or c not in result.per_example]
        if absent:
            raise UserError(f"'{asset}' has no per-example score {', '.join(absent)}; correct 'regressions' in the syllabus")
        chosen_by = sorted({column for r in mine for column in r.only if column in result.per_example})
        kept = result.per_example[["example_id", *chosen_by, *columns]].reset_index(drop=True)
        record = {
            "asset": asset, "version": manifest.version, "digest": manifest.digest, "code_version": manifest.code_version,
            "inputs": manifest.inputs, "data": _data(manifest, store),
            "identities": [i.model_dump() for i in result.identities], "examples": len(kept),
            "hardware": result.run.hardware if result.run else "", "reason": reason.strip(),
            "means": {c: float(kept[c].mean()) for c in columns}, "accepted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f".{asset}.{os.getpid()}.parquet"
        kept.to_parquet(unfinished, index=False)
        os.replace(unfinished, self.folder / f"{asset}.parquet")
        write_atomically(self.folder / f"{asset}.json", (json.dumps(record, indent=1) + "\n").encode())
        return record


def _data(manifest: Manifest, store: ArtifactStore) -> dict[str, str]:
    """The digests of the tables that a result was measured on. Models and indexes are left out: they are what may have changed."""
    found = {name: store.manifest(name) for name in manifest.inputs}
    return {name: manifest.inputs[name] for name, made in found.items() if made is not None and made.kind == "table"}


def change_since(regression: Regression, store: ArtifactStore, baselines: Baselines, *, seed: int = 0) -> Change:
    """The latest scores of the regression's asset held against its baseline.

    On other data than the baseline's (another Python has other docstrings) a deterministic score is held to its margin alone.
    """
    manifest, record = store.manifest(regression.asset), baselines.record(regression.asset)
    if manifest and record and record["data"] != _data(manifest, store):
        regression = regression.model_copy(update={"deterministic": False})
    measured = StudyResult.load(store.path(manifest)).per_example if manifest and manifest.kind == "result" else None
    return compare_scores(regression, measured, baselines.scores(regression.asset), seed=seed)
