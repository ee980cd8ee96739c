"""New per-example scores against the accepted ones: pairwise, with a margin of non-inferiority."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from curriculum.syllabus import Regression

if TYPE_CHECKING:
    import pandas as pd

SAME = 1e-3  # what a deterministic score of one example may differ by
_SHARED = 0.5  # the share of the baseline's examples that must be there again for a comparison to mean anything
_Z = 1.960 + 0.842  # two-sided 95%, power 80%


class Outcome(StrEnum):
    """What the comparison with the baseline says."""

    HELD = "held"  # not worse by more than the margin
    INCONCLUSIVE = "inconclusive"  # too few or too noisy examples to tell
    REGRESSED = "regressed"
    CHANGED = "changed"  # a deterministic score is another one
    NO_BASELINE = "no baseline"
    INCOMPARABLE = "incomparable"  # other examples than the baseline's
    MISSING = "missing"  # not measured now


@dataclass(frozen=True)
class Change:
    """The gain over the baseline (positive is better) with its 95% interval, in the score's unit.

    ``units`` are what was resampled: examples, or the groups that belong together. ``detectable`` is the smallest true change that
    this comparison tells from none four times of five.
    """

    regression: Regression
    outcome: Outcome
    reason: str
    old: float | None = None
    new: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    units: int = 0
    detectable: float | None = None

    @property
    def failed(self) -> bool:
        """Whether something got worse or changed; everything else that is not ``held`` only warns."""
        return self.outcome in (Outcome.REGRESSED, Outcome.CHANGED)


def compare_scores(regression: Regression, new: pd.DataFrame | None, old: pd.DataFrame | None, *, seed: int = 0) -> Change:
    """Compare two per-example tables with an ``example_id``, the score, and perhaps a ``group``: pairwise, by group.

    Held: the lower end of the gain's interval lies above ``-margin``. Regressed: the upper end lies below it. Between the two
    the examples do not tell. A score that is not finite now, where the baseline's was, is a regression.
    """
    name = f"{regression.asset}.{regression.name}"
    if new is None or regression.score not in new:
        return Change(regression, Outcome.MISSING, f"{name} was not measured; materialise {regression.asset}")
    if old is None or regression.score not in old:
        return Change(regression, Outcome.NO_BASELINE, f"{name} has no baseline; `curriculum accept` makes the present state one")
    new, old = (_in_scope(regression, table) for table in (new, old))
    old = old[old[regression.score].map(math.isfinite).astype(bool)]
    both = _pairs(regression, new, old)
    if len(both) == 0 or len(both) < _SHARED * len(old):
        text = f"{name}: {len(both)} of the baseline's {len(old)} examples were measured again; accept a new baseline"
        return Change(regression, Outcome.INCOMPARABLE, text)
    lost = int((~both["new"].map(math.isfinite)).sum())
    if lost:
        return Change(regression, Outcome.REGRESSED, f"{name} is no finite number for {lost} examples that had one")
    return _judged(regression, both, name, seed)


def _in_scope(regression: Regression, table: pd.DataFrame) -> pd.DataFrame:
    """The rows that the regression is about; none where a column that it chooses by is not there."""
    for column, value in regression.only.items():
        table = table[table[column] == value] if column in table else table.iloc[:0]
    return table


def _pairs(regression: Regression, new: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    """example_id, unit, old, new of the examples that both tables have."""
    unit = new["group"] if "group" in new else new["example_id"]
    left = new[["example_id"]].assign(unit=unit.astype(str), new=new[regression.score].astype(float))
    right = old[["example_id"]].assign(old=old[regression.score].astype(float))
    return left.merge(right, on="example_id", validate="one_to_one")


def _judged(regression: Regression, both: pd.DataFrame, name: str, seed: int) -> Change:
    from curriculum.evaluation.statistics import paired_bootstrap

    means = both.groupby("unit")[["old", "new"]].mean()
    sign = 1.0 if regression.higher_is_better else -1.0
    found = paired_bootstrap(sign * means["new"].to_numpy(), sign * means["old"].to_numpy(), seed=seed)
    spread = float((means["new"] - means["old"]).std(ddof=1))
    numbers = {
        "old": float(means["old"].mean()), "new": float(means["new"].mean()), "gain": found.difference, "low": found.low,
        "high": found.high, "units": found.n, "detectable": _Z * spread / found.n**0.5 if found.n > 1 else None,  # one unit shows no spread
    }  # fmt: skip
    apart = int(((both["new"] - both["old"]).abs() > SAME).sum())
    text = f"{name}: {numbers['old']:.4g} -> {numbers['new']:.4g}, gain {found.difference:+.3g} [{found.low:+.3g}, {found.high:+.3g}]"
    if found.high < -regression.margin:
        outcome, why = Outcome.REGRESSED, f"worse by more than the margin of {regression.margin:g}"
    elif regression.deterministic and apart:
        outcome, why = Outcome.CHANGED, f"deterministic, and {apart} of {len(both)} examples differ by more than {SAME:g}"
    elif found.low < -regression.margin:
        outcome, why = Outcome.INCONCLUSIVE, f"the interval reaches past the margin of {regression.margin:g}"
    else:
        outcome, why = Outcome.HELD, f"within the margin of {regression.margin:g}"
    return Change(regression, outcome, f"{text}: {why}", **numbers)
