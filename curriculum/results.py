"""A measured result as a record: what the metadata, the journal, the plots, the report card and the README are rendered from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import pandas as pd


class Metric(BaseModel):
    """One measured number.

    ``value`` keeps NaN and infinities as measured (a check reads them as failed). ``low`` and ``high`` are the ends of the
    95% interval where one was computed. ``n`` counts the examples (queries, tokens, cases) behind the number.
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    name: str
    value: float
    n: int | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    higher_is_better: bool = True
    deterministic: bool = True

    def text(self) -> str:
        """The value as people read it, with its interval when there is one."""
        shown = f"{self.value:.4g}{' ' + self.unit if self.unit else ''}"
        if self.low is not None and self.high is not None:
            shown += f" [{self.low:.4g}, {self.high:.4g}]"
        return shown

    def sign(self) -> int:
        """1 where the whole interval lies above zero, -1 where it lies below, 0 where it holds zero or there is none."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


class Identity(BaseModel):
    """Which model or dataset a number belongs to: a source URI, and the revision or SHA-256 that pins it."""

    model_config = ConfigDict(extra="forbid")

    role: str
    source: str
    digest: str = ""
    stand_in_for: str = ""


class RunRecord(BaseModel):
    """Where and at what cost a result was computed. Seconds; bytes for memory."""

    model_config = ConfigDict(extra="forbid")

    profile: str
    code_version: str
    hardware: str
    threads: int
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    started_at: str


class StudyResult(BaseModel):
    """What a study found: metrics with intervals, per-example scores, tables, plots, and the identity of what was measured.

    ``per_example`` has an ``example_id`` column and one column a score, so that two runs can be compared pairwise.
    ``tables`` maps a name to a DataFrame people read; ``plots`` maps a name to PNG bytes.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", ser_json_inf_nan="constants")

    study: str
    metrics: list[Metric] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)
    identities: list[Identity] = Field(default_factory=list)
    seeds: list[int] = Field(default_factory=list)
    remarks: list[str] = Field(default_factory=list)
    run: RunRecord | None = None
    per_example: Any = Field(default=None, exclude=True)
    tables: dict[str, Any] = Field(default_factory=dict, exclude=True)
    plots: dict[str, bytes] = Field(default_factory=dict, exclude=True)

    def metric(self, name: str) -> Metric | None:
        """The metric called ``name``, or None: a missing metric is a failed check, never a KeyError in one."""
        return next((m for m in self.metrics if m.name == name), None)

    def value(self, name: str) -> float:
        """The value of metric ``name``; NaN when it is missing."""
        found = self.metric(name)
        return math.nan if found is None else found.value

    def save(self, directory: Path) -> None:
        """Write ``result.json``, ``per_example.parquet``, ``tables/*.parquet`` and ``plots/*.png`` under ``directory``."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "result.json").write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        if self.per_example is not None:
            self.per_example.to_parquet(directory / "per_example.parquet", index=False)
        for name, table in self.tables.items():
            (directory / "tables").mkdir(exist_ok=True)
            table.to_parquet(directory / "tables" / f"{name}.parquet", index=False)
        for name, png in self.plots.items():
            (directory / "plots").mkdir(exist_ok=True)
            (directory / "plots" / f"{name}.png").write_bytes(png)

    @classmethod
    def load(cls, directory: Path) -> StudyResult:
        """Read what :meth:`save` wrote."""
        import pandas as pd

        record = json.loads((directory / "result.json").read_text(encoding="utf-8"))
        scores = directory / "per_example.parquet"
        return cls(
            **record,
            per_example=pd.read_parquet(scores) if scores.exists() else None,
            tables={p.stem: pd.read_parquet(p) for p in sorted((directory / "tables").glob("*.parquet"))},
            plots={p.stem: p.read_bytes() for p in sorted((directory / "plots").glob("*.png"))},
        )


def frame_of(result: StudyResult) -> pd.DataFrame:
    """The metrics of a result as a table: name, value, low, high, n, unit."""
    import pandas as pd

    columns = ["name", "value", "low", "high", "n", "unit"]
    return pd.DataFrame([{c: getattr(m, c) for c in columns} for m in result.metrics], columns=columns)
