"""The plots of late interaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from curriculum.plots import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _points(axes: Axes, table: pd.DataFrame, x: str, label: str) -> None:
    for row in table.to_dict("records"):
        error = np.abs(np.array([[row["low"]], [row["high"]]]) - row["ndcg_at_10"])
        axes.errorbar([row[x]], [row["ndcg_at_10"]], yerr=error, marker="o", markersize=4, capsize=2, linestyle="none", label=row[label])
    axes.set_xscale("log")


def draw_times(table: pd.DataFrame) -> bytes:
    """nDCG@10 of each reranker over its seconds a query; a line at no reranking."""
    tuned = table[table["ranking"].isin(["cross_encoder", "single", "late"])]

    def paint(axes: Axes) -> None:
        axes.axhline(table.set_index("ranking").loc["none", "ndcg_at_10"], color="grey", linewidth=1, label="none")
        _points(axes, tuned, "seconds", "ranking")

    return draw(paint, title="Rerankers of the same candidates, 95% intervals", x="median seconds a query", y="nDCG@10")


def draw_sizes(table: pd.DataFrame, sizes: pd.DataFrame) -> bytes:
    """nDCG@10 of each form of storage alone over its bytes a passage."""
    summed = sizes.groupby("form", sort=False)[["bytes", "passages"]].sum()
    each = (summed["bytes"] / summed["passages"]).rename_axis("form").reset_index(name="bytes")
    names = {"single_alone": "single", "late_alone": "fp32"}
    alone = table[table["weight"] == 1].drop_duplicates("system", keep="last").assign(form=lambda t: t["ranking"].replace(names))
    alone = alone.merge(each, on="form")

    return draw(lambda axes: _points(axes, alone, "bytes", "form"), title="Scored alone, by form of storage", x="bytes a passage", y="nDCG@10")
