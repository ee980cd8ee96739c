"""The plot of learned sparse retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from curriculum.plots import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_sizes(systems: pd.DataFrame, sizes: pd.DataFrame) -> bytes:
    """nDCG@10 of each leg, and of the sparse one pruned, over its bytes a passage."""
    table = systems.merge(sizes.groupby("system", as_index=False)["bytes_per_passage"].mean(), on="system")

    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    def paint(axes: Axes) -> None:
        for row in table.to_dict("records"):
            error = np.abs(np.array([[row["low"]], [row["high"]]]) - row["ndcg_at_10"])
            axes.errorbar([row["bytes_per_passage"]], [row["ndcg_at_10"]], yerr=error, marker="o", markersize=4, capsize=2, label=row["system"])
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())  # what matplotlib writes at minor ticks runs into one another

    return draw(paint, title="Quality against size, 95% intervals", x="bytes a passage", y="nDCG@10")
