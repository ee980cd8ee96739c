"""Vectors scored: cosines of graded pairs and their Spearman with a bootstrap over pairs, analogies by 3CosAdd, neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from curriculum.errors import DataError

FEWEST = 20  # pairs below which a set's Spearman says nothing and stays out of the mean


def pair_cosines(vectors_of: Callable[[list[str]], torch.Tensor], known: Callable[[str], bool], pairs: pd.DataFrame) -> np.ndarray:
    """Cosine of each pair [n], NaN where a word has no vector. ``vectors_of`` maps known words to [m, D]."""
    both = np.array([known(a) and known(b) for a, b in zip(pairs["word1"], pairs["word2"], strict=True)])
    found = np.full(len(pairs), np.nan)
    if both.any():
        left, right = (vectors_of(list(pairs.loc[both, column])) for column in ("word1", "word2"))
        found[both] = F.cosine_similarity(left, right).double().numpy()
    return found


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's correlation over the last axis, ties by mean rank: [..., n] and [..., n] give [...]. NaN for a constant side."""
    from scipy.stats import rankdata

    x, y = (rankdata(values, axis=-1) for values in (x, y))
    x, y = (values - values.mean(-1, keepdims=True) for values in (x, y))
    with np.errstate(invalid="ignore"):
        return (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))


def similarity_bootstrap(
    pairs: pd.DataFrame, cosines: dict[str, np.ndarray], resamples: int, seed: int
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """(model -> [1 + resamples], one row a set and model). First the Spearman as measured, then each resample's.

    ``cosines`` are [seeds, pairs] a model; the Spearman is the mean over the seeds. A set is resampled by itself, with the same pairs
    for every model, so that differences between models are paired; sets are averaged by their covered pairs. Pairs count that every
    model covers.

    Raises:
        DataError: no set has ``FEWEST`` covered pairs.
    """
    covered = np.all([np.isfinite(rows).all(axis=0) for rows in cosines.values()], axis=0)
    rng, rows, total, weight = np.random.default_rng(seed), [], dict.fromkeys(cosines, 0.0), 0
    for name, members in pairs.groupby("set", sort=False).indices.items():
        inside = members[covered[members]]
        counted = len(inside) >= FEWEST
        draws = np.vstack([inside, inside[rng.integers(0, len(inside), (resamples, len(inside)))]]) if counted else inside[None]
        grades = pairs["grade"].to_numpy()[draws]
        for model, values in cosines.items():
            found = np.array([spearman(grades, of_seed[draws]) for of_seed in values]) if counted else np.full((1, 1), np.nan)
            row = {"set": name, "model": model, "pairs": len(members), "covered": len(inside), "spearman": found[:, 0].mean()}
            rows.append({**row, "lowest_seed": found[:, 0].min(), "highest_seed": found[:, 0].max()})
            if counted:
                total[model] = total[model] + len(inside) * found.mean(axis=0)
        weight += len(inside) * counted
    if not weight:
        raise DataError(f"no word-similarity set has {FEWEST} pairs of known words; train on more text, or set another similarity source")
    return {model: values / weight for model, values in total.items()}, pd.DataFrame(rows)


def analogy_hits(words_VD: torch.Tensor, questions_Q4: np.ndarray, chunk: int = 512) -> np.ndarray:
    """Whether 3CosAdd finds d [Q]: the word nearest to b - a + c, all of length one, other than a, b and c.

    ``questions_Q4`` are word ids, -1 for a word without a vector: such a question counts as not solved. Restricting the answer to other
    words than the three given is part of the measure (Mikolov, Yih and Zweig, 2013); without it b or c itself is often the nearest.
    """
    unit_VD, known = F.normalize(words_VD, dim=1), (questions_Q4 >= 0).all(axis=1)
    hits = np.zeros(len(questions_Q4), dtype=bool)
    for places in np.array_split(np.flatnonzero(known), max(1, -(-int(known.sum()) // chunk))):
        a, b, c, d = torch.from_numpy(questions_Q4[places]).T
        scores = (unit_VD[b] - unit_VD[a] + unit_VD[c]) @ unit_VD.T
        scores.scatter_(1, torch.stack([a, b, c], dim=1), -torch.inf)
        hits[places] = (scores.argmax(dim=1) == d).numpy()
    return hits


def neighbours(queries_QD: torch.Tensor, words_VD: torch.Tensor, count: int, banned: list[list[int]] | None = None) -> torch.Tensor:
    """Ids [Q, count] of the nearest words by cosine, the nearest first, without the ids ``banned`` for each query."""
    scores = F.normalize(queries_QD, dim=1) @ F.normalize(words_VD, dim=1).T
    for row, ids in enumerate(banned or []):
        scores[row, ids] = -torch.inf
    return scores.topk(min(count, scores.shape[1]), dim=1).indices


def agreement(first_QK: list[list[int]], second_QK: list[list[int]]) -> np.ndarray:
    """Share of neighbours in common, a query each [Q]."""
    return np.array([len(set(a) & set(b)) / len(a) for a, b in zip(first_QK, second_QK, strict=True)])
