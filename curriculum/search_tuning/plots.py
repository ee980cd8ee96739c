"""The plots of the search: the dev score of each trial, and both settings on every track of the test split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from curriculum.plots import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_trials(trials: pd.DataFrame) -> bytes:
    """The dev score by trial, the best so far, and the default setting's, which is the first trial."""
    scores = trials["dev_ndcg_at_10"].to_numpy()

    def paint(axes: Axes) -> None:
        axes.scatter(trials["trial"], scores, s=12, label="trial")
        axes.step(trials["trial"], np.maximum.accumulate(scores), where="post", label="best so far")
        axes.axhline(scores[0], linestyle=":", color="grey", label="default")

    return draw(paint, title="What was tried, on dev questions", x="trial", y="nDCG@10")


def draw_tracks(tracks: pd.DataFrame) -> bytes:
    """The gain of the chosen setting on each track with its paired 95% interval, dev beside test."""

    def paint(axes: Axes) -> None:
        names = sorted(set(tracks["track"]))
        for shift, (split, rows) in zip((-0.1, 0.1), tracks.groupby("split"), strict=True):
            rows = rows.set_index("track").loc[lambda own: own.index.isin(names)]
            ends = np.abs(rows[["low", "high"]].sub(rows["gain"], axis=0).to_numpy().T)
            axes.errorbar([names.index(t) + shift for t in rows.index], rows["gain"], yerr=ends, fmt="o", capsize=3, label=split)
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set_xticks(range(len(names)), names)

    return draw(paint, title="Chosen minus default, 95% intervals", y="nDCG@10")
