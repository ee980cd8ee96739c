"""Texts as sparse vectors over a vocabulary, by sentence-transformers' sparse encoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from curriculum.learned_sparse.settings import LearnedSparseSettings


def is_sparse_encoder(folder: Path) -> bool:
    """Whether the files in ``folder`` are of a finished sparse encoder: SPLADE by sentence-transformers, with or without a model for queries."""

    def read(file: str) -> Any:
        path = folder / file
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    named = read("config_sentence_transformers.json").get("model_type") == "SparseEncoder"
    return named or any("sparse_encoder" in str(module.get("type")) for module in read("modules.json") or [])


def has_head(folder: Path) -> bool:
    """Whether the model in ``folder`` was saved with its masked-language-model head."""
    named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    return any(name.endswith("ForMaskedLM") for name in named)


def start_encoder(folder: Path, texts: Sequence[str], settings: LearnedSparseSettings, seed: int, device: str = "cpu") -> Any:
    """A ``SparseEncoder`` to train: the finished one in ``folder``, or SPLADE over its masked language model.

    A head that the files do not have is new: tied to the word embeddings, its transform drawn by ``seed``. Under ``query_weights`` "idf"
    a query is encoded without a model (Geng et al., 2024, https://arxiv.org/abs/2411.04403); the idf is that of ``texts``.
    """
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    if is_sparse_encoder(folder):
        return SparseEncoder(str(folder), device=device, local_files_only=True)
    torch.manual_seed(seed)
    local: dict[str, Any] = {name: {"local_files_only": True} for name in ("model_kwargs", "processor_kwargs", "config_kwargs")}
    passage = [Transformer(str(folder), transformer_task="fill-mask", max_seq_length=settings.max_tokens, **local), SpladePooling("max")]
    modules: list[Any] = passage
    if settings.query_weights == "idf":
        tokenizer = passage[0].tokenizer
        weights = SparseStaticEmbedding(tokenizer, weight=idf(texts, tokenizer), frozen=True)
        modules = [Router.for_query_document([weights], passage)]
    return SparseEncoder(modules=modules, device=device, similarity_fn_name="dot")


def idf(texts: Sequence[str], tokenizer: Any) -> Tensor:
    """Inverse document frequency of each piece of the vocabulary over ``texts``, as BM25 in Lucene has it: float32 [vocabulary]."""
    counts = np.zeros(len(tokenizer.get_vocab()))
    for ids in tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]:
        counts[np.unique(np.array(ids, dtype=int))] += 1
    return torch.tensor(np.log1p((len(texts) - counts + 0.5) / (counts + 0.5)), dtype=torch.float32)


def language_model(encoder: Any) -> Any:
    """The masked language model that weighs the terms of passages."""
    return encoder.transformers_model


class SparseTexts:
    """Texts as rows of float32 CSR matrices [texts, vocabulary], by the sparse encoder in ``folder``."""

    def __init__(self, folder: Path, settings: LearnedSparseSettings, device: str = "cpu") -> None:
        from sentence_transformers import SparseEncoder

        self.model = SparseEncoder(str(folder), device=device, local_files_only=True)
        self.model.max_seq_length = min(settings.max_tokens, self.model.max_seq_length or settings.max_tokens)
        self._how: dict[str, Any] = {"batch_size": settings.encode_batch, "show_progress_bar": False, "convert_to_sparse_tensor": True}

    @property
    def vocabulary(self) -> int:
        """How many terms there are."""
        return int(language_model(self.model).config.vocab_size)

    @property
    def activation(self) -> str:
        """What stands before the pooling: ``relu`` (SPLADE), or ``log1p_relu``, whose logarithm is taken twice."""
        from sentence_transformers.sparse_encoder.modules import SpladePooling

        return next(str(m.activation_function) for m in self.model.modules() if isinstance(m, SpladePooling))

    def queries(self, texts: list[str]) -> csr_matrix:
        """The weights of each query's terms."""
        return _csr(self.model.encode_query(texts, **self._how))

    def passages(self, texts: list[str]) -> csr_matrix:
        """The weights of each passage's terms and of what it is expanded by."""
        return _csr(self.model.encode_document(texts, **self._how))

    def own_terms(self, texts: list[str]) -> csr_matrix:
        """1 at each piece that stands in the text, as far as the encoder reads it."""
        tokenizer = self.model.tokenizer
        found = tokenizer(texts, truncation=True, max_length=self.model.max_seq_length, add_special_tokens=True)["input_ids"]
        special = set(tokenizer.all_special_ids)
        rows = [sorted({i for i in ids if i not in special}) for ids in found]
        indptr = np.cumsum([0, *(len(row) for row in rows)])
        indices = np.concatenate([np.array(row, dtype=np.int32) for row in rows])
        return csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(len(texts), self.vocabulary))


def _csr(vectors: Tensor) -> csr_matrix:
    coo = vectors.cpu().coalesce()
    rows, columns = coo.indices().numpy()
    made = csr_matrix((coo.values().float().numpy(), (rows, columns)), shape=tuple(coo.shape))
    made.eliminate_zeros()  # a static embedding's sparse form holds explicit zeros for terms of weight 0
    return made
