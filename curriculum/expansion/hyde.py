"""HyDE (Gao et al., 2022): a generator answers the query from its head, and the embedding of what it wrote searches for the real thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from curriculum.cells import Cells
from curriculum.errors import DataError
from curriculum.expansion.settings import ExpansionSettings
from curriculum.generation.base import Generator

CHUNK = 8  # queries a cell: what a kill loses


def write_passages(
    queries: pd.DataFrame, settings: ExpansionSettings, *, generator: Callable[[], Generator], seed: int, cells: Cells,
    progress: Callable[[str], None],
) -> pd.DataFrame:  # fmt: skip
    """query_id, sample, passage, tokens, prompt_tokens, seconds: ``settings.samples`` passages for each of ``queries`` (query_id, query).

    ``generator`` is called only when a cell is not there yet.
    """
    rows: list[dict[str, Any]] = []
    for start in range(0, len(queries), CHUNK):
        chunk = queries.iloc[start : start + CHUNK]
        asked = [settings.prompt.replace("{query}", query) for query in chunk["query"]]
        known = [asked, settings.samples, settings.temperature, settings.max_new_tokens, seed]
        written = cells.get(f"passages for {len(asked)} queries from {start}", known, lambda asked=asked: _write(asked, settings, generator(), seed))
        for sample, texts in enumerate(written["samples"]):
            rows += [{"query_id": query, "sample": sample, **text} for query, text in zip(chunk["query_id"], texts, strict=True)]
        progress(f"passages for {start + len(chunk)} of {len(queries)} queries")
    return pd.DataFrame(rows, columns=["query_id", "sample", "passage", "tokens", "prompt_tokens", "seconds"])


def _write(asked: list[str], settings: ExpansionSettings, generator: Generator, seed: int) -> dict[str, Any]:
    samples = []
    for sample in range(settings.samples):
        made = generator.generate(
            [[{"role": "user", "content": text}] for text in asked], max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature, seed=seed + sample,
        )  # fmt: skip
        samples.append(
            [{"passage": g.text, "tokens": g.completion_tokens, "prompt_tokens": g.prompt_tokens, "seconds": g.seconds} for g in made]
        )
    return {"samples": samples}


def mean_vectors(query_QD: np.ndarray, passages_SQD: np.ndarray, written_SQ: np.ndarray) -> np.ndarray:
    """The mean of a query's vector and those of its passages, [queries, dimension]; the paper's equation 8.

    ``written_SQ`` says which passages hold text: an empty one says nothing, and is left out.
    """
    assert passages_SQD.shape[1:] == query_QD.shape and written_SQ.shape == passages_SQD.shape[:2]
    counted_SQ1 = written_SQ[:, :, None].astype(np.float32)
    return (query_QD + (counted_SQ1 * passages_SQD).sum(0)) / (1 + counted_SQ1.sum(0))


def strangers(groups: Sequence[str], seed: int) -> list[int]:
    """For each query the place of a query of another question: ``groups`` names each one's question.

    Raises:
        DataError: all queries are of one question.
    """
    places: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    if len(places) < 2:
        raise DataError("query expansion is compared with the passage of another question, and there is only one; raise expansion.queries")
    names = sorted(places)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    after = dict(zip(order, order[1:] + order[:1], strict=True))
    return [places[after[group]][places[group].index(place) % len(places[after[group]])] for place, group in enumerate(groups)]
