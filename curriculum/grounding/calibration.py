"""How far the verifier agrees with human labels, beside two similarity baselines. Nothing is gated by it before that is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, roc_auc_score

from curriculum.errors import DataError
from curriculum.grounding.controls import KINDS, with_controls
from curriculum.grounding.settings import VerifierSettings
from curriculum.grounding.similarity import containment, cosine
from curriculum.grounding.verifier import CHECKS, SupportVerifier, best_threshold, failed_checks
from curriculum.plots import draw
from curriculum.results import Metric, StudyResult

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

Statistic = Callable[[np.ndarray, np.ndarray], float]


def calibrate(
    verifier: SupportVerifier,
    labelled_claims: pd.DataFrame,
    settings: VerifierSettings,
    *,
    encoder: Path,
    seed: int = 0,
    device: str = "cpu",
) -> StudyResult:
    """AUC, balanced accuracy and Cohen's kappa on the test split of ``labelled_claims``, with bootstrap intervals.

    ``auc_controlled`` (and so on) adds the control claims of :mod:`curriculum.grounding.controls`, without which the wording of
    the claims gives the labels away. Beside them the same for the cosine of ``encoder``'s embeddings and for the share of the
    claim's words found in the passage, each with a threshold of its own from dev. ``encoder`` is a sentence encoder's directory.

    Raises:
        DataError: a split lacks one of the two labels.
    """
    for split in ("dev", "test"):
        if labelled_claims.loc[labelled_claims["split"] == split, "supported"].nunique() != 2:
            raise DataError(f"labelled_claims needs supported and unsupported rows of split '{split}'; see notes/claims.yaml")
    claims = pd.concat([with_controls(part) for _, part in labelled_claims.groupby("split", sort=True)], ignore_index=True)
    pairs = list(zip(claims["passage"], claims["claim"], strict=True))
    logits, failed = verifier.logits(pairs), failed_checks(pairs)
    scores = {
        "": verifier.calibration.support(logits, failed),
        "__cross_encoder": logits,
        **{f"__{name}": 1.0 - column for name, column in zip(CHECKS, failed.T, strict=True)},
        "__cosine": cosine(pairs, encoder, device),
        "__containment": containment(pairs),
    }
    rows = claims.assign(**{f"score{name}": values for name, values in scores.items()})
    controlled, thresholds = rows[rows["split"] == "test"], _thresholds(rows, scores, verifier)
    test = controlled[~controlled["kind"].isin(KINDS)]
    metrics = _metrics(test, scores, thresholds, settings.bootstrap_resamples, seed)
    metrics += _metrics(controlled, scores, thresholds, settings.bootstrap_resamples, seed, "_controlled")
    labels, support = test["supported"].to_numpy(dtype=bool), test["score"].to_numpy(dtype=float)
    metrics.append(Metric(name="threshold", value=verifier.threshold, n=int((rows["split"] == "dev").sum())))
    metrics.append(Metric(name="brier", value=float(np.mean((support - labels) ** 2)), n=len(test), higher_is_better=False))
    return StudyResult(
        study="verifier_calibration",
        metrics=metrics,
        settings=settings.model_dump(mode="json"),
        seeds=[seed],
        remarks=_remarks(metrics, test),
        per_example=_per_example(controlled, verifier.threshold),
        tables={"per_kind": per_kind(controlled, scores, verifier.threshold), "reliability": reliability(support, labels)},
        plots={"reliability": _reliability_plot(support, labels)},
    )


def _thresholds(rows: pd.DataFrame, scores: dict[str, np.ndarray], verifier: SupportVerifier) -> dict[str, float]:
    dev = rows[rows["split"] == "dev"]
    labels = dev["supported"].to_numpy(dtype=bool)
    fitted = {name: best_threshold(dev[f"score{name}"].to_numpy(dtype=float), labels) for name in scores}
    return fitted | {"": verifier.threshold}


def _metrics(
    test: pd.DataFrame, scores: dict[str, np.ndarray], thresholds: dict[str, float], resamples: int, seed: int, suffix: str = ""
) -> list[Metric]:
    labels = test["supported"].to_numpy(dtype=bool)
    found: list[Metric] = []
    for name in scores:
        values = test[f"score{name}"].to_numpy(dtype=float)
        decided = (values >= thresholds[name]).astype(float)
        statistics: dict[str, tuple[Statistic, np.ndarray]] = {
            "auc": (roc_auc_score, values),
            "balanced_accuracy": (balanced_accuracy_score, decided),
            "kappa": (cohen_kappa_score, decided),
        }
        for metric, (statistic, given) in statistics.items():
            low, high = bootstrap(statistic, labels, given, resamples=resamples, seed=seed)
            value = float(statistic(labels, given))
            found.append(Metric(name=f"{metric}{suffix}{name}", value=value, n=len(test), low=low, high=high))
    return found


def bootstrap(
    statistic: Statistic, labels: np.ndarray, values: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95% percentile interval of ``statistic(labels, values)`` [n], [n], resampled within each label so that both always occur."""
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels), np.flatnonzero(~labels)]
    drawn = np.empty(resamples)
    for i in range(resamples):
        chosen = np.concatenate([rng.choice(members, len(members)) for members in classes])
        drawn[i] = statistic(labels[chosen], values[chosen])
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def per_kind(test: pd.DataFrame, scores: dict[str, np.ndarray], threshold: float) -> pd.DataFrame:
    """For each kind of claim: its number, the share decided rightly, and (unsupported kinds) AUC against all supported claims."""
    supported = test[test["supported"]]
    table = []
    for kind, rows in test.groupby("kind", sort=True):
        right = ((rows["score"] >= threshold) == rows["supported"]).mean()
        line = {"kind": kind, "n": len(rows), "supported": int(rows["supported"].sum()), "accuracy": float(right)}
        unsupported = rows[~rows["supported"].astype(bool)]
        both = pd.concat([supported, unsupported])
        for name in scores:
            comparable = len(unsupported) > 0 and len(supported) > 0
            line[f"auc{name}"] = float(roc_auc_score(both["supported"], both[f"score{name}"])) if comparable else np.nan
        table.append(line)
    return pd.DataFrame(table)


def reliability(support: np.ndarray, labels: np.ndarray, bins: int = 5) -> pd.DataFrame:
    """Claims in equally filled bins of support: mean support, share supported, number."""
    parts = np.array_split(np.argsort(support, kind="stable"), min(bins, len(support)))
    return pd.DataFrame([{"support": support[p].mean(), "supported": labels[p].mean(), "n": len(p)} for p in parts])


def _reliability_plot(support: np.ndarray, labels: np.ndarray) -> bytes:
    table = reliability(support, labels)

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], "--", color="grey", label="calibrated")
        axes.plot(table["support"], table["supported"], marker="o", label="verifier")
        axes.set(xlim=(0, 1), ylim=(0, 1))

    return draw(paint, title="Reliability on labelled claims (test)", x="support", y="share supported by label")


def _per_example(test: pd.DataFrame, threshold: float) -> pd.DataFrame:
    labels = test["supported"].astype(bool)
    kept = test[["claim_id", "kind", "supported"]].rename(columns={"claim_id": "example_id"})
    scores = {f"support{c.removeprefix('score')}": test[c].astype(float) for c in test.columns if c.startswith("score")}
    return kept.assign(**scores, correct=((test["score"] >= threshold) == labels).astype(float)).reset_index(drop=True)


def _remarks(metrics: Sequence[Metric], test: pd.DataFrame) -> list[str]:
    named = {m.name: m for m in metrics}
    low, containment = named["auc"].low, named["auc__containment"].value
    verdict = (
        "above chance: the interval of its AUC lies above 0.5"
        if low is not None and low > 0.5
        else "not shown to be above chance: the interval of its AUC reaches 0.5, so what it judges is to be read as a warning only"
    )
    remarks = [
        f"On {len(test)} held-out labelled claims the verifier is {verdict}.",
        f"Beside it cosine similarity has AUC {named['auc__cosine'].value:.2f}, token containment {containment:.2f}.",
    ]
    if abs(containment - 0.5) > 0.15:
        remarks.append(
            f"The wording gives these labels away (containment {containment:.2f}, 0.5 would be no cue): read auc_controlled, "
            f"{named['auc_controlled'].text()}, where containment alone has {named['auc_controlled__containment'].value:.2f}."
        )
    return remarks
