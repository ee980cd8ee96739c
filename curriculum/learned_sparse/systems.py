"""What is searched of one collection: the sparse vectors as they are, in Lucene, without expansion, pruned, and in a wrong order."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from curriculum.errors import DataError
from curriculum.learned_sparse.encoder import SparseTexts, language_model
from curriculum.learned_sparse.index import ImpactIndex, SparseIndex, rounded
from curriculum.learned_sparse.settings import LearnedSparseSettings
from curriculum.retrieval.bm25 import Hits


def strongest(rows: csr_matrix, k: int) -> csr_matrix:
    """Of each row [vocabulary] its ``k`` greatest weights; of equal ones the first terms."""
    kept = []
    for row in range(rows.shape[0]):
        start, end = rows.indptr[row], rows.indptr[row + 1]
        kept.append(start + np.sort(np.argsort(-rows.data[start:end], kind="stable")[:k]))
    places = np.concatenate(kept).astype(int)
    return csr_matrix((rows.data[places], rows.indices[places], np.cumsum([0, *(len(own) for own in kept)])), shape=rows.shape)


def flops(queries: csr_matrix, passages: csr_matrix) -> float:
    """Products that scoring one passage for one query takes on average: over terms, the sum of P(in a query) * P(in a passage)."""
    return float(queries.getnnz(axis=0) / queries.shape[0] @ (passages.getnnz(axis=0) / passages.shape[0]))


def rounding_bound(queries: csr_matrix, passages: csr_matrix, scale: int) -> np.ndarray:
    """The furthest that rounding weights to ``scale``-ths may move an inner product: [queries, passages], in the unit of scores."""
    ones_q, ones_p = (csr_matrix((np.ones_like(m.data), m.indices, m.indptr), shape=m.shape) for m in (queries, passages))
    step = 0.5 / scale
    near = (queries @ ones_p.T + ones_q @ passages.T) * step + (ones_q @ ones_p.T) * step**2
    return np.asarray(near.todense(), dtype=np.float64)


class Bench:
    """Every system over the passages of one collection, whose index is in ``folder``.

    Raises:
        DataError: a passage of the index has no text.
    """

    def __init__(
        self, folder: Path, collection: str, texts: Mapping[str, str], encoder: SparseTexts, settings: LearnedSparseSettings, seed: int
    ) -> None:
        self.index = SparseIndex(folder, collection)
        if missing := [pid for pid in self.index.ids if pid not in texts]:
            raise DataError(f"{len(missing)} passages are in the sparse index but not among the passages ({missing[0]}): materialise it again")
        self.texts, self.encoder, self.settings, self.seed = [texts[pid] for pid in self.index.ids], encoder, settings, seed
        self.impact = ImpactIndex(folder, collection, settings.impact_scale)
        self._folder, self._collection = folder, collection

    @cached_property
    def own(self) -> csr_matrix:
        """1 at each piece that stands in a passage's text."""
        return self.encoder.own_terms(self.texts)

    @cached_property
    def systems(self) -> dict[str, SparseIndex | ImpactIndex]:
        """Each by its name. ``own_terms`` is the ablation of expansion; ``shuffled`` a control: a passage found by another one's terms."""
        rows, order = self.index.rows, np.random.default_rng(self.seed).permutation(len(self.index.ids))
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)  # along one cycle: none keeps its own
        made = {"own_terms": csr_matrix(rows.multiply(self.own)), "shuffled": rows[other]}
        made |= {f"top_{k}": strongest(rows, k) for k in self.settings.kept_terms}
        variants = {name: SparseIndex(self._folder, self._collection, own) for name, own in made.items()}
        return {"sparse": self.index, "impact": self.impact, **variants}

    def search(self, queries: list[str], k: int) -> dict[str, Hits]:
        """The hits of every system."""
        asked = self.encoder.queries(queries)
        return {name: system.search(asked, k) for name, system in self.systems.items()}

    def described(self, queries: list[str]) -> dict[str, Any]:
        """Sparsity over all passages and ``queries``, FLOPS beside those of the texts' own pieces, bytes as written. JSON."""
        rows, asked = self.index.rows, self.encoder.queries(queries)
        expanded = rows.nnz - csr_matrix(rows.multiply(self.own)).nnz
        inside = float(csr_matrix(rows.multiply(self.own)).sum())
        return {
            "passages": rows.shape[0], "queries": len(queries), "numbers": rows.shape[0] * rows.shape[1], "postings": rows.nnz,
            "query_terms": asked.nnz, "expansion": expanded,
            "weight": float(rows.sum()), "own_weight": inside, "own_pieces": self.own.nnz, "flops": flops(asked, rows),
            "flops_of_pieces": flops(self.encoder.own_terms(queries), self.own),
            "kept": {name: system.rows.nnz for name, system in self.systems.items() if isinstance(system, SparseIndex)},
            "impact_bytes": sum(file.stat().st_size for file in (self.index.folder / "impact").iterdir()),
        }  # fmt: skip

    def parity(self, queries: list[str]) -> dict[str, float]:
        """Greatest differences, over ``queries`` and some passages.

        ``pooling``: of the encoder's weights from log(1 + max(0, logit)), the greatest over a passage's tokens, read alone. ``index``: of the
        index's scores from the library's similarity of texts encoded again, relative to the score where it is above 1. ``lucene``: of Lucene's
        scores from the products of rounded weights. ``bound``: of Lucene's scores from exact ones, as a share of what rounding may do.
        """
        places = np.linspace(0, len(self.texts) - 1, min(self.settings.parity_passages, len(self.texts))).round().astype(int)
        chosen, model = [self.texts[place] for place in places], self.encoder.model
        by_hand = np.stack([self._by_definition(text) for text in chosen])
        weights = self.encoder.passages(chosen)
        library = model.similarity(model.encode_query(queries), model.encode_document(chosen)).cpu().numpy()
        asked = self.encoder.queries(queries)
        stored = self.index.scores(asked)[:, places]
        return {
            "pooling": float(np.abs(by_hand - weights.toarray()).max()),
            "index": float((np.abs(stored - library) / np.maximum(1.0, np.abs(library))).max()),
            **self._of_lucene(asked),
        }

    def _by_definition(self, text: str) -> np.ndarray:
        model, lm = self.encoder.model, language_model(self.encoder.model)
        inputs = model.tokenizer(text, truncation=True, max_length=model.max_seq_length, return_tensors="pt").to(lm.device)
        with torch.inference_mode():
            weights_TV = torch.log1p(lm.eval()(**inputs).logits[0].float().clamp(min=0))
        if self.encoder.activation == "log1p_relu":
            weights_TV = torch.log1p(weights_TV)
        return weights_TV.amax(dim=0).cpu().numpy()

    def _of_lucene(self, asked: csr_matrix) -> dict[str, float]:
        rows, scale, at = self.index.rows, self.settings.impact_scale, {pid: row for row, pid in enumerate(self.index.ids)}
        whole = (rounded(asked, scale) @ rounded(rows, scale).T).toarray()
        exact, bound = self.index.scores(asked), rounding_bound(asked, rows, scale)
        found = np.zeros_like(exact, dtype=np.float64)
        for query, hits in enumerate(self.impact.search(asked, len(at))):
            for pid, score in hits:
                found[query, at[pid]] = score
        moved = np.abs(found / scale**2 - exact)
        return {"lucene": float(np.abs(found - whole).max()), "bound": float((moved / np.maximum(bound, 1e-6)).max())}
