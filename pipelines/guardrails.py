"""Checks and promotion: every bar becomes one asset check, and a candidate is promoted only past its gate."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from assets.lineage import DEEP, OWNERS, RESOURCES
from curriculum.errors import IntegrityError, UserError
from curriculum.evaluation.baselines import Baselines, change_since
from curriculum.evaluation.gate import Judgement, Verdict, active_bars, judge_stored
from curriculum.evaluation.regression import Change, Outcome
from curriculum.syllabus import Bar, Regression, Syllabus
from resources.artifact_store import Stored

# Where automation belongs: promotion is the one step that people wait for, cheap and safe to do at once; training waits for its schedule.
# ``eager`` alone would ask for it after a failed check too. The sensor that asks is off until it is switched on in the UI.
PROMOTE = dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed()


def bar_check(name: str, bar: Bar) -> dg.AssetChecksDefinition:
    """One check that holds the latest version of ``bar.asset`` against ``bar``."""
    @dg.asset_check(
        asset=dg.AssetKey(bar.asset),
        name=name,
        description=f"{bar.metric} {bar.text()}" + ("" if bar.blocking else " (warns, does not block)"),
        blocking=bar.blocking,
        required_resource_keys={"artifacts"},
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        found = judge_stored(bar, context.resources.artifacts.store())
        fails = found.bar.blocking and found.verdict is not Verdict.NOT_RUN
        severity = dg.AssetCheckSeverity.ERROR if fails else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(
            passed=found.verdict is Verdict.PASSED, severity=severity, description=found.reason, metadata=_metadata(found)
        )

    return check


def _metadata(found: Judgement) -> dict[str, Any]:
    numbers = {"value": found.value, "low": found.low, "high": found.high, "min": found.bar.min, "max": found.bar.max}
    return {name: float(number) for name, number in numbers.items() if number is not None}


def regression_check(regression: Regression) -> dg.AssetChecksDefinition:
    """One check that holds the latest scores of an asset against its accepted baseline: a regression fails, doubt warns."""

    @dg.asset_check(
        asset=dg.AssetKey(regression.asset),
        name=f"regression_{regression.name}",
        description=f"{regression.score} is not worse than the accepted baseline by more than {regression.margin:g}",
        blocking=regression.blocking,
        required_resource_keys={"artifacts", "settings"},
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        profile = context.resources.settings.value
        found = change_since(regression, context.resources.artifacts.store(), Baselines(profile.name), seed=profile.seed)
        severity = dg.AssetCheckSeverity.ERROR if found.failed and regression.blocking else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(
            passed=found.outcome is Outcome.HELD, severity=severity, description=found.reason, metadata=_change_metadata(found)
        )

    return check


def _change_metadata(found: Change) -> dict[str, Any]:
    numbers = {name: getattr(found, name) for name in ("old", "new", "gain", "low", "high", "detectable")}
    known = {name: float(number) for name, number in numbers.items() if number is not None}
    return {"outcome": found.outcome.value, "units": found.units, "margin": found.regression.margin, **known}


def table_check(asset: str, id_column: str) -> dg.AssetChecksDefinition:
    """A data check: the table has rows, and no two share an id."""

    @dg.asset_check(
        asset=dg.AssetKey(asset),
        name="rows_and_unique_ids",
        description=f"has rows, and {id_column} is unique",
        blocking=True,
        required_resource_keys={"artifacts"},
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        import pandas as pd

        store = context.resources.artifacts.store()
        manifest = store.manifest(asset)
        if manifest is None:
            return dg.AssetCheckResult(passed=False, description=f"'{asset}' has never been materialised")
        ids = pd.read_parquet(store.path(manifest) / "table.parquet", columns=[id_column])[id_column]
        twice = sorted(map(str, ids[ids.duplicated()].unique()))
        text = f"{len(ids)} rows, {len(twice)} ids twice" + (f" ({', '.join(twice[:5])})" if twice else "")
        return dg.AssetCheckResult(
            passed=len(ids) > 0 and not twice, description=text, metadata={"rows": len(ids), "ids_twice": len(twice)}
        )

    return check


def bar_checks(syllabus: Syllabus, profile: Any) -> list[dg.AssetChecksDefinition]:
    """The checks of every bar in force under ``profile``."""
    return [bar_check(name, bar) for name, bar in active_bars(syllabus, profile).items()]


def promotion(
    name: str,
    *,
    candidate: str,
    evidence: str,
    checks: Iterable[str],
    group: str,
    description: str,
    measured: tuple[str, ...] = (),
    deep: bool = False,
    bars: Mapping[str, Bar] | None = None,
) -> dg.AssetsDefinition:
    """An asset that points at ``candidate``'s version once the latest ``checks`` on ``evidence`` passed for that version.

    ``measured`` names what the evidence measured, where that is the candidate's parts rather than the candidate itself.
    A candidate that is a ``deep`` asset is promoted outside the lineage's job too.

    ``bars`` are a gate besides, whose checks only warn: not to be promoted is then an outcome like another. They are judged here, for
    nothing waits for such a check. Where one is missed the log says so, what is promoted stays, and the run goes on.

    A failed check does not un-make an asset, and a later run of a downstream asset alone goes ahead; so the gate is read
    again here, from the instance, and refuses unless it passed on this very candidate.
    """
    names, warning = sorted(checks), dict(bars or {})

    @dg.asset(
        name=name, group_name=group, description=description, kinds={"gate"}, owners=OWNERS,
        deps=[dg.AssetKey(candidate), dg.AssetKey(evidence)], required_resource_keys=RESOURCES, automation_condition=PROMOTE,
        tags=DEEP if deep else {}, output_required=not warning,
    )
    def promote(context: dg.AssetExecutionContext) -> Iterator[dg.Output]:
        store = context.resources.artifacts.store()
        made, report = store.manifest(candidate), store.manifest(evidence)
        if made is None or report is None:
            raise UserError(f"'{name}' needs '{candidate}' and '{evidence}'; materialise both first")
        parts = {part: made.inputs.get(part) for part in measured} or {candidate: made.digest}
        derived = made.inputs.get(evidence)  # a candidate may be what the evidence came to, and is then made from it
        other = derived != report.digest if derived else any(report.inputs.get(part) != digest for part, digest in parts.items())
        if other:
            raise UserError(f"'{name}' refused: the latest '{evidence}' measured another version of '{candidate}'; run it again")
        missed = [found.reason for found in (judge_stored(bar, store) for bar in warning.values()) if found.verdict is not Verdict.PASSED]
        if missed:
            context.log.warning("'%s' refused, and stays as it is: %s", name, "; ".join(missed))
            return
        if names or not warning:
            _require_passed(context, name, evidence, names)
        current = _served(store, name)
        if current is not None and current.target and current.target["digest"] == made.digest:
            yield dg.Output(Stored(current, reused=True))
            return
        facts = {**made.facts, "promoted_by": f"{evidence}@{report.version}", "gate": [*names, *warning]}
        yield dg.Output(Stored(store.refer(name, made, facts)))

    return promote


def _served(store: Any, name: str) -> Any:
    """The manifest of the promoted version in force, or None where it cannot be served: it is then promoted anew."""
    try:
        current = store.manifest(name)
        if current is not None:
            store.path(current)
    except IntegrityError:
        return None
    return current


def _require_passed(context: dg.AssetExecutionContext, name: str, evidence: str, checks: list[str]) -> None:
    keys = [dg.AssetCheckKey(dg.AssetKey(evidence), check) for check in checks]
    if not keys:
        raise UserError(f"'{name}' refused: no gate is defined on '{evidence}'; add a floor for it to the profile")
    records = context.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    for key in keys:
        record = records.get(key)
        evaluation = record.event.dagster_event.asset_check_evaluation_data if record and record.event else None
        warned = evaluation is not None and key.name.startswith("regression_") and evaluation.severity is dg.AssetCheckSeverity.WARN
        if evaluation is None or not (evaluation.passed or warned):
            said = (evaluation.description if evaluation else None) or "it has not been evaluated"
            raise UserError(f"'{name}' refused: the check '{key.name}' on '{evidence}' did not pass ({said})")


def blocking_names(syllabus: Syllabus, profile: Any, asset: str) -> list[str]:
    """The blocking checks in force on ``asset``: a candidate's gate. None without a bar: no regression is not yet good."""
    bars = [name for name, bar in active_bars(syllabus, profile).items() if bar.asset == asset and bar.blocking]
    return bars and bars + [f"regression_{r.name}" for r in syllabus.regressions if r.asset == asset and r.blocking]
