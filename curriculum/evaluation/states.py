"""States of a lineage: which version of every result a run ended with, so that two runs can be laid side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from curriculum.disk import write_atomically
from curriculum.errors import UserError
from curriculum.evaluation.baselines import Baselines
from curriculum.evaluation.regression import Change, compare_scores
from curriculum.results import StudyResult
from curriculum.storage import ArtifactStore
from curriculum.syllabus import Regression

if TYPE_CHECKING:
    import pandas as pd

LATEST, BASELINE = "latest", "baseline"


class States:
    """The states kept under ``folder``, one JSON file a run; ``latest`` and ``baseline`` are always there."""

    def __init__(self, folder: Path, store: ArtifactStore, baselines: Baselines) -> None:
        self.folder, self.store, self.baselines = folder, store, baselines

    def keep(self) -> str:
        """Keep the present state under the present time; returns its name."""
        name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        write_atomically(self.folder / f"{name}.json", json.dumps(self._present(), indent=1).encode())
        return name

    def names(self) -> list[str]:
        """The kept runs, oldest first."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def _present(self) -> dict[str, str]:
        root = self.store.root
        assets = sorted(p.name for p in root.iterdir() if (p / "LATEST.json").exists()) if root.exists() else []
        found = [m for m in map(self.store.manifest, assets) if m is not None and m.kind == "result"]
        return {m.asset: m.version for m in found}

    def _versions(self, state: str) -> dict[str, str]:
        if state == LATEST:
            return self._present()
        path = self.folder / f"{state}.json"
        if not path.exists():
            known = ", ".join([LATEST, BASELINE, *self.names()])
            raise UserError(f"no run is kept under '{state}'; the known ones are {known}")
        return json.loads(path.read_text(encoding="utf-8"))

    def result(self, state: str, asset: str) -> StudyResult | None:
        """The result of ``asset`` in a kept run; None where it had none, or where the version is gone.

        Raises:
            UserError: no such state.
        """
        version = self._versions(state).get(asset)
        manifest = self.store.manifest(asset, version) if version else None
        return StudyResult.load(self.store.path(manifest)) if manifest else None

    def scores(self, state: str, asset: str) -> pd.DataFrame | None:
        """The per-example scores of ``asset`` in ``state``."""
        if state == BASELINE:
            return self.baselines.scores(asset)
        result = self.result(state, asset)
        return result.per_example if result else None

    def metrics(self, first: str, second: str) -> list[tuple[str, str, str, str]]:
        """asset, metric, its text in ``first`` and in ``second``: the headline metrics of assets whose versions differ."""
        if BASELINE in (first, second):
            return []
        before, after = self._versions(first), self._versions(second)
        rows = []
        for asset in sorted(set(before) & set(after)):
            if before[asset] == after[asset]:
                continue
            old, new = self.result(first, asset), self.result(second, asset)
            for metric in new.metrics if old and new else []:
                was = old.metric(metric.name)
                if "__" not in metric.name and was is not None:
                    rows.append((asset, metric.name, was.text(), metric.text()))
        return rows

    def compare(self, first: str, second: str, regressions: Iterable[Regression], *, seed: int = 0) -> list[Change]:
        """What changed from ``first`` to ``second``, for every score under regression.

        Raises:
            UserError: no such state, or the second is the baseline, which keeps scores alone.
        """
        if second == BASELINE:
            raise UserError("the baseline is what others are compared with: name it first, as in `compare baseline latest`")
        return [compare_scores(r, self.scores(second, r.asset), self.scores(first, r.asset), seed=seed) for r in regressions]
