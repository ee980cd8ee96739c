"""The plots of the vector indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from curriculum.plots import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_growth(table: pd.DataFrame) -> bytes:
    """Median milliseconds a query over the number of vectors, both on logarithmic axes."""

    def paint(axes: Axes) -> None:
        for kind, own in table.groupby("kind", sort=False):
            axes.loglog(own["vectors"], own["p50_ms"], marker="o", markersize=3, label=kind)

    return draw(paint, title="Time of a query on one thread", x="vectors", y="median ms")


def draw_sweep(table: pd.DataFrame, size: int) -> bytes:
    """Recall over the median milliseconds, a point an effort."""

    def paint(axes: Axes) -> None:
        for kind, own in table.groupby("kind", sort=False):
            axes.semilogx(own["p50_ms"], own["recall"], marker="o", markersize=3, label=kind)

    return draw(paint, title=f"Recall against time, {size} vectors", x="median ms", y="recall")
