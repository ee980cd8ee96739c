"""When to answer: risk against coverage as support grows, and the threshold that keeps the risk below a target (Geifman and El-Yaniv, 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from curriculum.errors import DataError
from curriculum.evaluation.statistics import bootstrap_mean, clopper_pearson, clopper_pearson_upper
from curriculum.plots import draw
from curriculum.rag.report import ANSWERABLE, UNANSWERABLE
from curriculum.rag.settings import AbstentionSettings, RagSettings
from curriculum.rag.sources import is_right
from curriculum.reading.metrics import f1
from curriculum.results import Metric, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEVER = float("inf")  # the threshold that nothing reaches


def calibration_questions(
    questions: pd.DataFrame, asked: Iterable[str], rag: RagSettings, wanted: int
) -> tuple[pd.DataFrame, RagSettings]:
    """The questions on which the threshold is chosen, and the settings that sample ``wanted`` of them.

    They are those of split dev; where the collection has none, those of ``rag.split`` that were not ``asked`` (ids).

    Raises:
        DataError: none is left.
    """
    split = "dev" if (questions["split"] == "dev").any() else rag.split
    rest = questions[(questions["split"] == split) & ~questions["question_id"].isin(list(asked))]
    if rest.empty:
        raise DataError(f"'{rag.collection}' has no questions but those that rag_answers asked: add dev ones, or lower rag.max_questions")
    return rest, rag.model_copy(update={"split": split, "max_questions": wanted})


def losses(answers: pd.DataFrame) -> pd.DataFrame:
    """``support``, ``wrong`` (1.0 or 0.0) and ``f1`` of every question of ``answers``; without a draft support is NaN and wrong 0.

    A draft to a question that has no answer is wrong, whatever it says; ``f1`` is the draft's, NaN but for answerable questions.
    """
    wrong = [
        float(bool(row.draft) and (row.kind in UNANSWERABLE or not is_right(row.draft, row.gold))) for row in answers.itertuples()
    ]
    scored = [f1(row.draft, list(row.gold)) if row.kind in ANSWERABLE else float("nan") for row in answers.itertuples()]
    support = answers["support"].where(answers["draft"] != "").astype(float).to_numpy()
    return pd.DataFrame({"support": support, "wrong": wrong, "f1": scored})


def risk_coverage(rows: pd.DataFrame) -> pd.DataFrame:
    """The curve of ``rows`` (:func:`losses`): one point a distinct support, ``coverage`` over all questions and ``risk`` among the answered."""
    drafted = rows.dropna(subset="support").sort_values("support", ascending=False, kind="stable")
    table = pd.DataFrame(
        {
            "threshold": drafted["support"], "answered": np.arange(1, len(drafted) + 1), "errors": drafted["wrong"].cumsum(),
        }
    ).drop_duplicates("threshold", keep="last")  # fmt: skip
    return table.assign(coverage=table["answered"] / len(rows), risk=table["errors"] / table["answered"]).reset_index(drop=True)


def aurc(rows: pd.DataFrame) -> float:
    """Area under the curve: the mean over the drafts, most supported first, of the risk down to each; ties share theirs.

    A support that tells nothing has, on average, the share of wrong drafts.
    """
    drafted = rows.dropna(subset="support")
    expected = drafted["wrong"].groupby(drafted["support"]).transform("mean")  # within a tie any order is as good
    order = np.argsort(-drafted["support"].to_numpy(), kind="stable")
    return float((np.cumsum(expected.to_numpy()[order]) / np.arange(1, len(drafted) + 1)).mean())


def choose_threshold(rows: pd.DataFrame, settings: AbstentionSettings) -> float:
    """The lowest support that keeps the risk at or below the target at the given confidence; ``NEVER`` where none does.

    Thresholds are tried from the highest down, and the first whose upper bound (Clopper and Pearson) passes the target after one
    that held ends the search: a fixed sequence of tests needs no correction for their number (Angelopoulos et al., 2021,
    https://arxiv.org/abs/2110.01052). The sequence begins at the first threshold that could hold at all: with fewer answers even
    no error proves nothing.
    """
    chosen = NEVER
    for point in risk_coverage(rows).itertuples():
        if clopper_pearson_upper(0, int(point.answered), settings.level) > settings.target_risk:
            continue
        if clopper_pearson_upper(int(point.errors), int(point.answered), settings.level) > settings.target_risk:
            break
        chosen = float(point.threshold)
    return chosen


def abstention_study(
    dev: pd.DataFrame, test: pd.DataFrame, settings: AbstentionSettings, *, verifier_threshold: float, seed: int = 0,
    chosen_on: str = "dev", calibrated_for: Mapping[str, str] | None = None,
) -> StudyResult:  # fmt: skip
    """Choose the threshold on the answers of ``dev``, and measure risk and coverage on those of ``test``.

    ``aurc_gain`` is how far the area under the risk-coverage curve lies below the share of wrong drafts, with its bootstrap interval
    over questions: above zero, support knows right from wrong. ``risk``, ``coverage`` (the answer rate) and ``answer_f1`` (over
    answerable questions, an abstention counting 0) are at the chosen threshold, ``__verifier`` at the verifier's own, ``__always``
    with every draft given out. Risk is NaN where nothing is answered. ``chosen_on`` is the split of ``dev``,
    ``calibrated_for`` what answered (:func:`curriculum.rag.calibrated.answered_by`).

    Raises:
        DataError: a side has no draft.
    """
    sides = {"dev": losses(dev), "test": losses(test)}
    for name, rows in sides.items():
        if rows["support"].notna().sum() == 0:
            raise DataError(f"no {name} question got a draft; there is nothing to withhold")
    chosen, measured = choose_threshold(sides["dev"], settings), sides["test"]
    thresholds = {"": chosen, "__verifier": verifier_threshold, "__always": -NEVER}
    metrics = [metric for suffix, threshold in thresholds.items() for metric in _at(measured, threshold, suffix, seed)]
    risk = next(metric for metric in metrics if metric.name == "risk")
    metrics += [Metric(name="aurc", value=aurc(measured), n=len(measured), higher_is_better=False), _gain(measured, settings, seed)]
    metrics.append(Metric(name="threshold", value=chosen, n=len(sides["dev"])))
    metrics.append(Metric(name="risk_over_target", value=risk.value - settings.target_risk, n=risk.n, higher_is_better=False))
    curves = {name: risk_coverage(rows) for name, rows in sides.items()}
    return StudyResult(
        study="abstention_study", metrics=metrics, seeds=[seed],
        settings={**settings.model_dump(mode="json"), "calibrated_for": dict(calibrated_for or {})},
        remarks=_remarks(chosen, settings, metrics, f"{len(dev)} questions of split {chosen_on}"),
        per_example=measured.assign(example_id=test["question_id"].to_numpy(), kind=test["kind"].to_numpy()),
        tables={f"curve_{name}": curve for name, curve in curves.items()}, plots={"risk_coverage": _plot(curves, settings, chosen)},
    )  # fmt: skip


def _at(rows: pd.DataFrame, threshold: float, suffix: str, seed: int) -> list[Metric]:
    given = rows["support"] >= threshold
    answered, scored = rows[given], rows["f1"].where(given, 0.0)[rows["f1"].notna()].to_numpy()
    n, errors = len(answered), int(answered["wrong"].sum())
    low, high = clopper_pearson(errors, n) if n else (None, None)
    covered = clopper_pearson(n, len(rows))
    risk = errors / n if n else float("nan")
    f1_low, f1_high = bootstrap_mean(scored, seed=seed) if scored.size else (None, None)
    return [
        Metric(name=f"risk{suffix}", value=risk, n=n, low=low, high=high, higher_is_better=False),
        Metric(name=f"coverage{suffix}", value=n / len(rows), n=len(rows), low=covered[0], high=covered[1]),
        Metric(name=f"answer_f1{suffix}", value=float(scored.mean()) if scored.size else float("nan"), n=scored.size, low=f1_low, high=f1_high),
    ]


def _gain(rows: pd.DataFrame, settings: AbstentionSettings, seed: int) -> Metric:
    def gain(drawn: pd.DataFrame) -> float:
        return float(drawn["wrong"].mean()) - aurc(drawn)

    drafted, rng = rows.dropna(subset="support").reset_index(drop=True), np.random.default_rng(seed)
    found = [gain(drafted.iloc[rng.integers(len(drafted), size=len(drafted))]) for _ in range(settings.resamples)]
    low, high = np.percentile(found, [2.5, 97.5])
    return Metric(name="aurc_gain", value=gain(drafted), n=len(drafted), low=float(low), high=float(high))


def _plot(curves: dict[str, pd.DataFrame], settings: AbstentionSettings, chosen: float) -> bytes:
    def paint(axes: Axes) -> None:
        for name, curve in curves.items():
            axes.plot(curve["coverage"], curve["risk"], marker=".", label=name)
            at = curve[curve["threshold"] >= chosen].tail(1)
            axes.plot(at["coverage"], at["risk"], "o", color="black", fillstyle="none", markersize=9)
        axes.axhline(settings.target_risk, color="grey", linestyle="--", label="target")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.legend()

    return draw(paint, title="Risk against coverage", x="share of questions answered", y="wrong among the answered")


def _remarks(chosen: float, settings: AbstentionSettings, metrics: list[Metric], dev: str) -> list[str]:
    named = {m.name: m for m in metrics}
    always = f"Giving out every draft, {named['risk__always'].text()} of the answers are wrong."
    if chosen == NEVER:
        return [always, f"No threshold keeps the risk at or below {settings.target_risk} on {dev}: by this target, nothing may be answered."]
    at = f"risk {named['risk'].text()}, coverage {named['coverage'].text()}, F1 {named['answer_f1'].text()} of {named['answer_f1__always'].text()}"
    return [always, f"Chosen on {dev}: support_threshold {chosen:.4f}. On test: {at}."]
