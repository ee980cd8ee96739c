"""The reader's plots: training loss, learning curve, and the hyper-parameter study trial by trial and parameter by parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from curriculum.plots import draw
from curriculum.reading.settings import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def loss_plot(losses: list[float]) -> bytes:
    """The loss of each step, and its running mean."""

    def paint(axes: Axes) -> None:
        width = max(1, len(losses) // 20)
        axes.plot(losses, alpha=0.3)
        axes.plot(np.arange(len(losses) - width + 1) + width - 1, np.convolve(losses, np.ones(width) / width, "valid"), label="running mean")

    return draw(paint, title="Training loss of the reader", x="step", y="cross-entropy")


def curve_plot(curve: pd.DataFrame, best: dict[str, float]) -> bytes:
    """Dev scores against the questions trained on; the point that was kept is marked."""

    def paint(axes: Axes) -> None:
        axes.plot(curve["questions"], curve["dev_f1"], marker="o", label="F1")
        axes.plot(curve["questions"], curve["dev_exact_match"], marker="o", label="exact match")
        axes.plot([best["questions"]], [best["dev_f1"]], "k*", markersize=12, label="kept")

    return draw(paint, title="Learning curve of the reader", x="questions trained on", y="dev score")


def search_plots(trials: pd.DataFrame) -> dict[str, bytes]:
    """The study's history, and a slice for each hyper-parameter of which more than one value was tried."""

    def history(axes: Axes) -> None:
        axes.plot(trials["trial"], trials["dev_f1"], "o", label="trial")
        axes.step(trials["trial"], trials["dev_f1"].cummax(), where="post", label="best so far")

    plots = {"search_history": draw(history, title="Hyper-parameter study", x="trial", y="dev F1")}
    for name in Trial.model_fields:
        if trials[name].nunique() > 1:
            plots[f"search_{name}"] = draw(_slice(trials, name), title=f"Hyper-parameter study by {name}", x=name, y="dev F1")
    return plots


def _slice(trials: pd.DataFrame, name: str) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        shown = axes.scatter(trials[name], trials["dev_f1"], c=trials["trial"], cmap="viridis")
        axes.figure.colorbar(shown, ax=axes, label="trial")
        if name == "learning_rate":
            axes.set_xscale("log")

    return paint
