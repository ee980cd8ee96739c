"""Searching by a setting and scoring it: legs, fusion, reranking, then nDCG@10 of the places that the passages come from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from curriculum.corpora.documents import text_digest
from curriculum.crossencoder.model import Pair
from curriculum.disk import write_atomically
from curriculum.reranking.reranker import blend
from curriculum.reranking.scoring import Ranking, judgements, ndcg_at_10
from curriculum.retrieval.hybrid import fuse, leg_weights, ranked
from curriculum.search_tuning.chunkings import Chunking
from curriculum.search_tuning.settings import SearchSetting

BATCH = 256  # pairs scored between two savings
SHOWN = 10  # passages that a reader is given


class PairScores:
    """Cross-encoder logits by (query, passage text), each computed once and kept in the file ``kept``.

    A short section is the same passage under every chunking, and is scored once for all of them.
    """

    def __init__(self, score: Callable[[list[Pair]], np.ndarray], kept: Path, progress: Callable[[str], None] = lambda line: None) -> None:
        self._score, self._kept, self._progress = score, kept, progress
        self._known: dict[str, float] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, pairs: list[Pair]) -> np.ndarray:
        """Logits [pairs], in their order."""
        keys = [text_digest(json.dumps(pair)) for pair in pairs]
        missing = [(key, pair) for key, pair in dict(zip(keys, pairs, strict=True)).items() if key not in self._known]
        for start in range(0, len(missing), BATCH):
            names, asked = zip(*missing[start : start + BATCH], strict=True)
            self._known |= dict(zip(names, map(float, self._score(list(asked))), strict=True))
            write_atomically(self._kept, json.dumps(self._known).encode())
            self._progress(f"{min(start + BATCH, len(missing))}/{len(missing)} pairs scored by the cross-encoder")
        return np.array([self._known[key] for key in keys])


@dataclass(frozen=True)
class Asked:
    """Questions (rows of a track) and their vectors [questions, dimension]."""

    questions: pd.DataFrame
    vectors: np.ndarray

    @property
    def queries(self) -> list[str]:
        return self.questions["query"].tolist()

    @property
    def weights(self) -> np.ndarray:
        """[questions], of mean 1: with them the mean over questions is the mean of the tracks' means."""
        tracks = self.questions["track"]
        return (len(tracks) / tracks.nunique() / tracks.map(tracks.value_counts())).to_numpy(dtype=float)


@dataclass(frozen=True)
class Scored:
    """nDCG@10 [questions], and the mean words of the first ten passages: what a reader would have to read."""

    ndcg: np.ndarray
    words: float


@dataclass(frozen=True)
class Bench:
    """Every chunking by its words, the encoder of queries, and the cross-encoder with its ``weight`` against the first stage."""

    chunkings: Mapping[int, Chunking]
    encode: Callable[[list[str]], np.ndarray]
    pairs: PairScores
    weight: float

    def ask(self, questions: pd.DataFrame) -> Asked:
        """``questions`` with their vectors."""
        return Asked(questions, self.encode(questions["query"].tolist()))

    def search(self, setting: SearchSetting, asked: Asked) -> list[Ranking]:
        """For each question its passages, best first: fused, the first ``rerank_depth`` of them in the reranker's order."""
        chunking = self.chunkings[setting.passage_words]
        weights = leg_weights(setting.dense_weight)
        legs = zip(*chunking.hits(asked.queries, asked.vectors, setting), strict=True)
        fused = [ranked(fuse([dict(hits) for hits in pair], setting.fusion, weights), 2 * setting.depth) for pair in legs]
        if not setting.rerank_depth:
            return fused
        heads = [ranking[: setting.rerank_depth] for ranking in fused]
        logits = self.pairs.get([(q, chunking.texts[p]) for q, head in zip(asked.queries, heads, strict=True) for p, _ in head])
        parts = np.split(logits, np.cumsum([len(head) for head in heads])[:-1])
        return [blend(h, own, self.weight) + ranking[len(h) :] for h, own, ranking in zip(heads, parts, fused, strict=True)]

    def score(self, setting: SearchSetting, asked: Asked) -> Scored:
        """nDCG@10 over places: of a place, its best passage's rank counts (MaxP: Dai and Callan, 2019, https://arxiv.org/abs/1905.09217).

        What there is to find is then the same whatever the length of the passages.
        """
        chunking, rows = self.chunkings[setting.passage_words], asked.questions
        found = self.search(setting, asked)
        folded = [[(place, 0.0) for place in dict.fromkeys(chunking.place_of[p] for p, _ in ranking)] for ranking in found]
        ids = rows["query_id"].tolist()
        scores = ndcg_at_10(dict(zip(ids, folded, strict=True)), judgements(rows["relevant_ids"], rows["grades"], ids))
        words = [sum(chunking.words[p] for p, _ in ranking[:SHOWN]) for ranking in found]
        return Scored(np.array([scores[name] for name in ids]), float(np.mean(words)))
