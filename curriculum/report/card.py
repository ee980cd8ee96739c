"""Render results as a self-contained HTML page, and the closing table as text. Nothing is measured here."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from curriculum.evaluation.baselines import Baselines, change_since
from curriculum.evaluation.gate import Judgement, MilestoneRow, active_bars, judge_stored, milestone_rows
from curriculum.evaluation.regression import Change
from curriculum.report.topics import by_part, tally, topic_rows
from curriculum.results import StudyResult, frame_of
from curriculum.storage import ArtifactStore
from curriculum.syllabus import Syllabus

_TEMPLATE = Path(__file__).with_name("card.html.j2")


def stored_results(store: ArtifactStore) -> dict[str, StudyResult]:
    """The latest result of every asset that has one, by asset name."""
    found: dict[str, StudyResult] = {}
    for folder in sorted(p for p in store.root.iterdir() if (p / "LATEST.json").exists()) if store.root.exists() else []:
        manifest = store.manifest(folder.name)
        if manifest is not None and manifest.kind == "result":
            found[folder.name] = StudyResult.load(store.path(manifest))
    return found


def judgements(syllabus: Syllabus, profile: Any, store: ArtifactStore) -> dict[str, Judgement]:
    """Every bar in force held against the store, by check name."""
    return {name: judge_stored(bar, store) for name, bar in active_bars(syllabus, profile).items()}


def changes_since(syllabus: Syllabus, profile: Any, store: ArtifactStore) -> list[Change]:
    """Every score under regression held against the profile's baseline."""
    return [change_since(r, store, Baselines(profile.name), seed=profile.seed) for r in syllabus.regressions]


def change_cells(change: Change) -> tuple[str, str, str, str, str, str, str]:
    """Score, what it was, what it is, gain with its interval, margin, smallest detectable change, outcome."""

    def cell(value: float | None, form: str = ".4g") -> str:
        return "-" if value is None else format(value, form)

    gain = "-" if change.gain is None else f"{change.gain:+.3g} [{change.low:+.3g}, {change.high:+.3g}], n {change.units}"
    name = f"{change.regression.asset}.{change.regression.name}"
    return name, cell(change.old), cell(change.new), gain, f"{change.regression.margin:g}", cell(change.detectable, ".2g"), change.outcome.value


def row_cells(row: MilestoneRow) -> tuple[str, str, str, str, str]:
    """Weeks and title, reference status, measured values, bars, verdict."""
    values = "; ".join(f"{j.bar.metric} {'-' if j.value is None else format(j.value, '.4g')}" for j in row.values)
    bars = "; ".join(j.bar.text() for j in row.values)
    verdict = "no floor" if not row.values else "passed" if row.passed else "FAILED"
    return f"{row.weeks} {row.title}", row.reference, values or "-", bars or "-", verdict


def write_card(syllabus: Syllabus, profile: Any, store: ArtifactStore, out: Path) -> Path:
    """Write ``out`` from what ``store`` holds: milestones, bars, changes since the baseline, and each study with its tables and plots."""
    from jinja2 import Environment

    results = stored_results(store)
    held = judgements(syllabus, profile, store)
    rows = topic_rows(syllabus, profile, held)
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_TEMPLATE.read_text("utf-8"))
    page = template.render(
        profile=profile,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        milestones=[(row, row_cells(row)) for row in milestone_rows(syllabus, profile, store)],
        bars=held,
        changes=[(change, change_cells(change)) for change in changes_since(syllabus, profile, store)],
        topics=by_part(rows),
        tally=tally(rows),
        studies=[_study(name, result) for name, result in results.items()],
        runs=[r.run for r in results.values() if r.run],
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


def _study(name: str, result: StudyResult) -> dict[str, Any]:
    return {
        "name": name,
        "result": result,
        "metrics": [(m.name, m.text(), m.n) for m in result.metrics],
        "tables": {title: _rows(table) for title, table in result.tables.items()},
        "plots": {title: base64.b64encode(png).decode() for title, png in result.plots.items()},
        "metric_count": len(frame_of(result)),
    }


def _rows(table: Any, limit: int = 60) -> dict[str, Any]:
    def cell(value: Any) -> str:
        if value is None or str(value) == "<NA>":  # a cell that a study left empty; a NaN was computed and shows
            return "-"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    rows = [[cell(v) for v in row] for row in table.head(limit).itertuples(index=False)]
    return {"columns": [str(c) for c in table.columns], "rows": rows, "left_out": max(0, len(table) - limit)}
