"""What a backfill says: a line a partition, the table at the end, and the exit code. The orchestrator's part is ``pipelines/backfill.py``."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from curriculum.evaluation.gate import Judgement, Verdict, active_bars, judge_stored
from curriculum.profile import load_profile
from curriculum.results import StudyResult
from curriculum.rows.comparison import NOT_RUN, headline
from curriculum.rows.registry import row_study
from curriculum.storage import ArtifactStore
from curriculum.syllabus import load_syllabus

_SHOWN_METRICS = 2  # of a row, in its line


@dataclass(frozen=True)
class Outcome:
    """How one partition ended: its row where it was made, else what was wrong. ``seconds`` is the run's wall time."""

    partition: str
    made: bool
    seconds: float
    row: StudyResult | None = None
    error: str = ""


def outcome_line(outcome: Outcome, number: int, total: int) -> str:
    """One line: number of total, partition, seconds, and the row's first metrics or the error."""
    begin = f"{number:3d}/{total}  {outcome.partition:<20} {outcome.seconds:6.1f} s  "
    if not outcome.made:
        return f"{begin}FAILED: {outcome.error}"
    return begin + "; ".join(f"{m.name} {m.text()}" for m in (headline(outcome.row)[:_SHOWN_METRICS] if outcome.row else []))


def resume_line(asset: str, profile: str, made: int, total: int) -> str:
    """What is done, and the command that does the rest and no more."""
    return f"{made} of {total} partitions are made and kept; the rest: curriculum backfill {asset} --resume --profile {profile}"


def close(asset: str, profile_name: str, store: ArtifactStore, outcomes: list[Outcome], *, table_made: bool) -> int:
    """Print the table and what did not go well; returns 0 where all did, 1 where a blocking bar on the table fails, 2 where something broke."""
    table = row_study(asset).table
    failed = [o for o in outcomes if not o.made]
    if table_made:
        manifest = store.manifest(table)
        assert manifest is not None, table
        print_rows(StudyResult.load(store.path(manifest)))
    if failed:
        print(resume_line(asset, profile_name, len(outcomes) - len(failed), len(outcomes)))
    bars = [judge_stored(bar, store) for bar in active_bars(load_syllabus(), load_profile(profile_name)).values() if bar.asset == table]
    wrong = [found for found in bars if found.verdict is not Verdict.PASSED]
    for found in wrong:
        print(f"{found.verdict.value}{'' if found.bar.blocking else ' (warns)'}: {found.reason}")
    return exit_code(failed, wrong, table_made)


def exit_code(failed: list[Outcome], wrong: list[Judgement], table_made: bool) -> int:
    """2 before 1: a study that broke says nothing of its bars. A table whose bar fails is made all the same."""
    if failed:
        return 2
    if any(found.bar.blocking and found.verdict is Verdict.FAILED for found in wrong):
        return 1
    return 0 if table_made else 2


def print_rows(study: StudyResult) -> None:
    """The comparison for a terminal: the rows, then how far each lies from the best one where they share examples."""
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(soft_wrap=False, width=120)  # a log has room
    rows, paired = study.tables["rows"], study.tables["paired"]
    shown = rows.drop(columns=["state", "seconds"])
    table = Table(title=study.study, title_justify="left")
    for column in shown.columns:
        table.add_column(column, overflow="fold")
    for state, (name, *cells) in zip(rows["state"], shown.itertuples(index=False), strict=True):
        if state == NOT_RUN:
            table.add_row(name, state, style="dim")
        else:
            table.add_row(name, *(cell.replace(" [", "\n[") for cell in cells))
    console.print(table)
    for pair in paired.itertuples():
        track = f"{pair.track}: " if pair.track else ""
        said = f"  {track}{pair.row} minus {pair.best} {pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}], n {pair.n}"
        console.print(said, markup=False, highlight=False)
