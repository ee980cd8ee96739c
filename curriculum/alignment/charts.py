"""The plots of the alignment study."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from curriculum.alignment.experiment import MODELS
from curriculum.plots import draw
from curriculum.results import StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POLICIES = {"policy": "with the KL penalty", "probe": "without"}


def plots(curves: pd.DataFrame, result: StudyResult, bound: float) -> dict[str, bytes]:
    """Reward and KL along the policies' training, the accuracies on held-out pairs, and reward beside true quality."""

    def along(column: str, axes: Axes) -> None:
        for stage, label in _POLICIES.items():
            rows = curves[curves["stage"] == stage]
            axes.plot(rows["step"], rows[column], marker="o", markersize=3, label=label)

    def kl(axes: Axes) -> None:
        along("kl", axes)
        axes.axhline(bound, color="black", linestyle="--", linewidth=1, label="bound")

    def accuracy(axes: Axes) -> None:
        named = {"reward": "reward_accuracy", **{m: f"preference_accuracy__{m}" for m in MODELS}}
        named |= {name: f"pair_accuracy__{name}" for name in ("length", "blind", "verifier")}
        _bars(axes, {label: result.metric(name) for label, name in named.items()})
        axes.axvline(0.5, color="black", linestyle="--", linewidth=1)

    def quality(axes: Axes) -> None:
        _bars(axes, {name: result.metric(f"answer_f1__{name}") for name in MODELS})

    return {
        "reward": draw(lambda axes: along("reward", axes), title="Reward of sampled answers", x="step", y="reward"),
        "kl": draw(kl, title="KL from the SFT model", x="step", y="nats an answer"),
        "accuracy": draw(accuracy, title="Held-out pairs ranked rightly", x="share, with 95% interval"),
        "quality": draw(quality, title="F1 of greedy answers, held-out questions", x="F1, with 95% interval"),
    }


def _bars(axes: Axes, metrics: dict) -> None:
    for label, metric in metrics.items():
        low, high = (metric.value if end is None else end for end in (metric.low, metric.high))
        axes.barh(label, metric.value, xerr=[[max(0.0, metric.value - low)], [max(0.0, high - metric.value)]], color="tab:blue", alpha=0.7)
    axes.invert_yaxis()
