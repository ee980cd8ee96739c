"""What reranks: the cross-encoder, the single vector, and MaxSim over each form of storage; all score the same candidates of a query."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from curriculum.artifacts import DirectoryArtifact
from curriculum.errors import DataError
from curriculum.late_interaction.encoder import TokenEncoder
from curriculum.late_interaction.maxsim import maxsim, maxsim_loop, padded
from curriculum.late_interaction.settings import LateInteractionSettings
from curriculum.late_interaction.storage import TokenStore, expected_bytes, stored
from curriculum.reranking.reranker import Reranker
from curriculum.reranking.scoring import Ranking
from curriculum.retrieval.dense import Encoder

Score = Callable[[str, list[str]], np.ndarray]  # a query and the ids of its candidates: a number each


@dataclass(frozen=True)
class SingleVectors:
    """A vector a passage, float32 [passages, dimension], and what encodes a query."""

    ids: Sequence[str]
    vectors: np.ndarray
    encode: Callable[[list[str]], np.ndarray]

    @cached_property
    def rows(self) -> dict[str, int]:
        """Where each passage stands."""
        return {pid: row for row, pid in enumerate(self.ids)}

    def score(self, query: str, ids: list[str]) -> np.ndarray:
        """Inner products [candidates] of the query with its candidates."""
        return self.vectors[[self.rows[pid] for pid in ids]] @ self.encode([query])[0]


class Bench:
    """Everything that scores passages of one collection. The token vectors of ``ids`` are computed when they are first needed.

    Raises:
        DataError: a passage has no text or no single vector.
    """

    def __init__(
        self, ids: Sequence[str], texts: Mapping[str, str], reranker: Reranker, tokens: TokenEncoder, single: SingleVectors,
        settings: LateInteractionSettings, seed: int,
    ) -> None:  # fmt: skip
        if missing := sorted(set(ids) - texts.keys() | set(ids) - single.rows.keys()):
            raise DataError(f"{len(missing)} passages are in an index but not among the passages or their vectors ({missing[0]}): build them again")
        self.ids, self.texts, self.reranker, self.encoder, self.single = sorted(ids), texts, reranker, tokens, single
        self.settings, self.seed = settings, seed

    @cached_property
    def _encoded(self) -> tuple[torch.Tensor, list[int], float]:
        begun = time.perf_counter()
        vectors = self.encoder.passages([self.texts[pid] for pid in self.ids])
        return torch.cat(vectors), [len(own) for own in vectors], time.perf_counter() - begun

    @cached_property
    def stores(self) -> dict[str, TokenStore]:
        """The token vectors in every form."""
        whole, lengths, _ = self._encoded
        return stored(self.ids, lengths, whole, self.settings, self.seed)

    @cached_property
    def systems(self) -> dict[str, Score]:
        """Each by its name. ``shuffled`` is a control: a passage is scored by the tokens of another one."""
        order = np.random.default_rng(self.seed).permutation(self.ids)
        other = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))  # along one cycle: none keeps its own
        late = {form: self._late(store) for form, store in self.stores.items()}
        return {
            "cross_encoder": lambda query, ids: self.reranker.score([query], [[(pid, 0.0) for pid in ids]], self.texts)[0],
            "single": self.single.score,
            **late,
            "shuffled": lambda query, ids: late["fp32"](query, [other[pid] for pid in ids]),
        }

    def _late(self, store: TokenStore) -> Score:
        def score(query: str, ids: list[str]) -> np.ndarray:
            passages_PSD, mask_PS = store.passages(ids)
            device = self.encoder.device
            asked = padded(self.encoder.queries([query]))
            return maxsim(*asked, passages_PSD.to(device), mask_PS.to(device))[0].cpu().numpy()

        return score

    def described(self) -> dict[str, Any]:
        """Passages, tokens, dimension, seconds of encoding, and the bytes of each form: ``bytes`` as written, ``expected`` by arithmetic."""
        (tokens, dimension), seconds = self._encoded[0].shape, self._encoded[2]
        expected = {form: expected_bytes(form, len(self.ids), tokens, dimension, self.settings) for form in self.stores}
        return {
            "passages": len(self.ids), "tokens": tokens, "dimension": dimension, "encode_seconds": seconds,
            "bytes": {form: store.bytes() for form, store in self.stores.items()}, "expected": expected,
            "single_bytes": 4 * self.single.vectors.shape[1],
        }  # fmt: skip

    def parity(self, queries: list[str]) -> dict[str, float]:
        """Greatest differences of scores, over ``queries`` and some passages.

        ``loop`` and ``library``: the batch's from the double loop's, and from sentence-transformers'. ``padding``: of a passage that was
        encoded and scored alone from the same one in a batch with the longest passage; per token of the query, which makes it a cosine's.
        """
        from sentence_transformers.util.similarity import maxsim as library

        by_length = np.array(self.ids)[np.argsort(self._encoded[1], kind="stable")].tolist()
        places = np.linspace(0, len(by_length) - 1, min(self.settings.parity_passages, len(by_length))).round().astype(int)
        asked, chosen = self.encoder.queries(queries), [self.texts[by_length[place]] for place in places]
        together = self.encoder.passages(chosen)
        batch = [v.to(asked[0].device) for v in together]
        own_QP = maxsim(*padded(asked), *padded(batch)).cpu().numpy()
        loop_QP = np.array([[maxsim_loop(q.cpu().numpy(), p.numpy()) for p in together] for q in asked])
        alone_QP = np.stack([self._alone(asked, text) for text in chosen], axis=1)
        tokens_Q1 = np.array([[len(q)] for q in asked])
        return {
            "loop": float(np.abs(own_QP - loop_QP).max()),
            "library": float(np.abs(own_QP - library(asked, batch).cpu().numpy()).max()),
            "padding": float((np.abs(own_QP - alone_QP) / tokens_Q1).max()),
        }

    def _alone(self, asked: list[torch.Tensor], text: str) -> np.ndarray:
        (passage,) = self.encoder.passages([text])
        found = [maxsim(*padded([query]), *padded([passage.to(query.device)])) for query in asked]
        return torch.cat(found)[:, 0].cpu().numpy()


def scored(bench: Bench, queries: list[str], candidates: Sequence[Ranking], progress: Callable[[str], None]) -> dict[str, Any]:
    """``scores`` [queries][candidates] and ``seconds`` [queries] by each system, a query at a time and the systems in turns. JSON."""
    scores: dict[str, list[list[float]]] = {name: [] for name in bench.systems}
    seconds: dict[str, list[float]] = {name: [] for name in bench.systems}
    for score in bench.systems.values():
        score(queries[0], bench.ids[:1])  # warms up
    for number, (query, ranking) in enumerate(zip(queries, candidates, strict=True), start=1):
        ids = [pid for pid, _ in ranking]
        for name, score in bench.systems.items():
            begun = time.perf_counter()
            found = score(query, ids) if ids else []
            seconds[name].append(time.perf_counter() - begun)
            scores[name].append(np.asarray(found, dtype=float).tolist())
        if number % 10 == 0:
            progress(f"{number}/{len(queries)} queries scored")
    return {"scores": scores, "seconds": seconds}


def single_vectors(embeddings: DirectoryArtifact, encoder: Encoder) -> Callable[[str], SingleVectors]:
    """The vectors of a collection, by its name, as ``passage_embeddings`` holds them in one file or in shards; ``encoder`` must be theirs."""

    def read(collection: str) -> SingleVectors:
        folder = embeddings.path / collection
        vectors = [load_file(shard)["vectors"].numpy() for shard in sorted(folder.glob("vectors*.safetensors"))]
        return SingleVectors(json.loads((folder / "ids.json").read_text(encoding="utf-8")), np.concatenate(vectors), encoder.queries)

    return read
