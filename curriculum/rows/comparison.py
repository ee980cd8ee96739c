"""Rows compared in one table: what each measured, how far it lies from the best one over the same examples, and what never ran."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from curriculum.errors import UserError
from curriculum.evaluation.statistics import paired_bootstrap
from curriculum.plots import draw
from curriculum.results import Metric, StudyResult

NOT_RUN, MEASURED = "not run", "measured"


def comparison(
    study: str, rows: dict[str, StudyResult | None], *, by: str, score: str | None = None, show: tuple[str, ...] = (), seed: int = 0
) -> StudyResult:
    """The table of ``rows`` (row -> its result, None where it never ran), in their order, ranked by the metric ``by``.

    ``score`` is the per-example column behind ``by`` (``by`` itself unless named), by which rows are compared pairwise. Each
    headline metric of a row becomes a metric ``NAME__ROW`` here, and a column of the table unless ``show`` names those.
    ``rows_not_run`` counts the rows that the table lacks.

    Raises:
        UserError: no row has been measured.
    """
    present = {key: row for key, row in rows.items() if row is not None}
    if not present:
        raise UserError(f"'{study}' has no rows yet: none of {', '.join(rows) or 'its partitions'} was made; run `curriculum backfill`")
    absent = [key for key in rows if key not in present]
    names = list(show or dict.fromkeys(m.name for row in present.values() for m in headline(row)))
    counts = {"rows_measured": len(present), "rows_not_run": len(absent)}
    return StudyResult(
        study=study,
        metrics=[
            *(Metric(name=name, value=count, n=len(rows), higher_is_better=name == "rows_measured") for name, count in counts.items()),
            *(m.model_copy(update={"name": f"{m.name}__{key}"}) for key, row in present.items() for m in headline(row)),
        ],
        settings={"by": by, "rows": list(rows), "not_run": absent},
        identities=_identities(present),
        seeds=[seed],
        remarks=_remarks(present, absent),
        tables={"rows": _table(rows, names), "paired": _paired(present, by, score or by, seed)},
        plots={"rows": _plot(present, by)},
    )


def headline(row: StudyResult) -> list[Metric]:
    """The metrics of a row that the table shows: those without a suffix."""
    return [m for m in row.metrics if "__" not in m.name]


def best_row(rows: dict[str, StudyResult], by: str) -> str | None:
    """The row with the best finite value of the metric ``by``; None where none has one."""
    found = {key: row.metric(by) for key, row in rows.items()}
    finite = {key: m for key, m in found.items() if m is not None and np.isfinite(m.value)}
    return max(finite, key=lambda key: finite[key].value if finite[key].higher_is_better else -finite[key].value, default=None)


def _identities(rows: dict[str, StudyResult]) -> list[Any]:
    return list({(i.role, i.source, i.digest): i for row in rows.values() for i in row.identities}.values())


def _remarks(rows: dict[str, StudyResult], absent: list[str]) -> list[str]:
    remarks = [f"{key}: {remark}" for key, row in rows.items() for remark in row.remarks]
    if absent:
        remarks.insert(0, f"Not run: {', '.join(absent)}.")
    if len({row.run.code_version for row in rows.values() if row.run}) > 1:
        remarks.insert(0, "These rows were made by different versions of the code: make the older ones again before comparing them.")
    return remarks


def _table(rows: dict[str, StudyResult | None], names: list[str]) -> pd.DataFrame:
    """row, state, one column a metric (text with its interval; "" where there is none), seconds."""
    lines = []
    for key, row in rows.items():
        found = {name: row.metric(name) for name in names} if row else {}
        cells = {name: found[name].text() if found.get(name) else "" for name in names}
        seconds = f"{row.run.wall_seconds:.1f}" if row and row.run else ""
        lines.append({"row": key, "state": MEASURED if row else NOT_RUN, **cells, "seconds": seconds})
    return pd.DataFrame(lines)


def _paired(rows: dict[str, StudyResult], by: str, score: str, seed: int) -> pd.DataFrame:
    """track, row, best, difference, low, high, n: each row minus the best one over the examples both have, a track at a time.

    Where the examples name a ``group`` (the phrasings of one question), groups are resampled. ``track`` is "" where there are none.
    """
    columns = ["track", "row", "best", "difference", "low", "high", "n"]
    best = best_row(rows, by)
    lines = []
    for key, row in rows.items():
        for track, both in _aligned(row, rows[best], score).groupby("track") if best and key != best else ():
            means = both.groupby("group")[["new", "old"]].mean()
            found = paired_bootstrap(means["new"].to_numpy(), means["old"].to_numpy(), seed=seed)
            lines.append((track, key, best, found.difference, found.low, found.high, found.n))
    return pd.DataFrame(lines, columns=columns).sort_values("track", kind="stable", ignore_index=True)


def _aligned(row: StudyResult, best: StudyResult, score: str) -> pd.DataFrame:
    """track, group, and the scores ``new`` of the row and ``old`` of the best one, of the examples that both have."""
    sides = []
    for result, name in ((row, "new"), (best, "old")):
        table = result.per_example
        if table is None or score not in table.columns:
            return pd.DataFrame(columns=["track", "group"])
        defaults = {"track": "", "group": table["example_id"]}
        filled = table.assign(**{column: value for column, value in defaults.items() if column not in table.columns})
        sides.append(filled[["example_id", "track", "group", score]].rename(columns={score: name}))
    return sides[0].merge(sides[1], on=["example_id", "track", "group"], validate="one_to_one")


def _plot(rows: dict[str, StudyResult], by: str) -> bytes:
    found = {key: m for key, row in rows.items() if (m := row.metric(by)) is not None and np.isfinite(m.value)}

    def paint(axes: Any) -> None:
        for key, m in found.items():
            ends = None if m.low is None or m.high is None else [[max(0.0, m.value - m.low)], [max(0.0, m.high - m.value)]]
            axes.barh([key], [m.value], xerr=ends, color="#4c78a8", capsize=3)
        axes.invert_yaxis()

    return draw(paint, title=f"{by} by row, 95% intervals where there are any", x=by)
