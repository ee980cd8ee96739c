"""The curves of the ablation study: loss on the way, gradients by depth, and loss by place in the window."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from curriculum.plots import draw
from curriculum.transformer.settings import AblationSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from curriculum.transformer.ablation_study import Runs

TITLES = {
    "norm": "Norms", "activation": "Feed-forward blocks of equal size", "position": "Positions", "embedding": "Input and output table",
    "experts": "Experts at equal active parameters", "dropout": "Dropout on a small corpus",
}  # fmt: skip


def draw_all(runs: Runs, settings: AblationSettings) -> dict[str, bytes]:
    """PNGs by name: a group's validation loss over the steps, gradient norms over the blocks, and loss over the window."""
    plots = {
        f"loss__{group}": draw(_loss(runs, group), title=title, x="step", y="validation loss, nats a token") for group, title in TITLES.items()
    }
    plots["gradients"] = draw(_gradients(runs), title="Before training (dashed) and after", x="block", y="gradient norm of its weights")
    plots["past_length"] = draw(_past(runs, settings), title="Inside and past the training length", x="place in the window", y="nats a token")
    return plots


def _loss(runs: Runs, group: str) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        for row in (row for row in runs.rows if row.group == group):
            curves = np.array([runs.cells[row.label, seed]["curve"] for seed in runs.seeds])  # [seeds, points, (step, nats)]
            steps, nats = curves[0, :, 0], curves[:, :, 1]
            (line,) = axes.plot(steps, nats.mean(0), label=row.label, linewidth=1.2)
            axes.fill_between(steps, nats.min(0), nats.max(0), color=line.get_color(), alpha=0.15, linewidth=0)

    return paint


def _gradients(runs: Runs) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        for row in (row for row in runs.rows if row.group == "norm"):
            before, after = (runs.values(row.label, name).mean(0) for name in ("gradients_before", "gradients_after"))
            (line,) = axes.plot(1 + np.arange(len(after)), after, marker="o", markersize=3, label=row.label)
            axes.plot(1 + np.arange(len(before)), before, linestyle="--", color=line.get_color())
            axes.set_xticks(1 + np.arange(len(after)))
        axes.set_yscale("log")

    return paint


def _past(runs: Runs, settings: AblationSettings) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        for row in (row for row in runs.having("by_position") if row.group == "position"):
            nats = runs.values(row.label, "by_position").mean(0)
            width = max(1, settings.length // 4)
            shown = nats[: len(nats) // width * width].reshape(-1, width).mean(1)  # single places are too noisy to read
            axes.plot(width * (np.arange(len(shown)) + 0.5), shown, marker="o", markersize=3, label=row.label)
        axes.axvline(settings.length, color="grey", linewidth=0.8, linestyle=":")

    return paint
