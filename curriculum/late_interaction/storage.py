"""Token vectors as they are stored: whole, halved, or as residuals of centroids (ColBERTv2; Santhanam et al., 2022, https://arxiv.org/abs/2112.01488)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from curriculum.errors import DataError
from curriculum.late_interaction.maxsim import padded
from curriculum.late_interaction.settings import Bits, LateInteractionSettings

TRAINING_POINTS = 39  # a centroid: with fewer, faiss says that its k-means has too few points
_SAMPLE = 1 << 20  # numbers of residuals that their quantiles are taken from
_ROWS = 1 << 14  # tokens coded at once


def residual_form(bits: int) -> str:
    """The name of the form that keeps ``bits`` a number of the residual."""
    return f"residual_{bits}bit"


@dataclass(frozen=True)
class Codebook:
    """Centroids [centroids, dim], and the 2^bits levels that a number of a residual is rounded to: ``cutoffs`` between, ``levels`` of them."""

    centroids_KD: np.ndarray
    cutoffs: np.ndarray
    levels: np.ndarray
    bits: int

    def compress(self, vectors_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest centroid of each vector, int32 [n], and its residual, uint8 [n, dim * bits / 8]."""
        nearest, packed = [], []
        index = faiss.IndexFlatIP(self.centroids_KD.shape[1])
        index.add(self.centroids_KD)
        for start in range(0, len(vectors_ND), _ROWS):
            rows = vectors_ND[start : start + _ROWS]
            codes = index.search(rows, 1)[1][:, 0]
            level_ND = np.searchsorted(self.cutoffs, rows - self.centroids_KD[codes]).astype(np.uint8)
            parts = level_ND.reshape(len(rows), -1, 8 // self.bits)
            packed.append(np.bitwise_or.reduce(parts << (self.bits * np.arange(8 // self.bits, dtype=np.uint8)), axis=-1))
            nearest.append(codes.astype(np.int32))
        return np.concatenate(nearest), np.concatenate(packed)

    def decompress(self, nearest_N: np.ndarray, packed: np.ndarray) -> np.ndarray:
        """The vectors [n, dim], scaled to unit length as they were. A byte is looked up whole: it holds 8 / bits levels."""
        shifts = self.bits * np.arange(8 // self.bits)
        table = self.levels[(np.arange(256)[:, None] >> shifts) & (2**self.bits - 1)]
        vectors = self.centroids_KD[nearest_N] + table[packed].reshape(len(packed), -1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fit_codebooks(vectors_ND: np.ndarray, bits: Sequence[Bits], centroids: int, seed: int) -> list[Codebook]:
    """A codebook for each number of bits, over the same centroids: k-means of the cosine, and quantiles of the residuals.

    Raises:
        DataError: there are too few tokens for two centroids, or the dimension does not fill whole bytes.
    """
    count, dimension = min(centroids, len(vectors_ND) // TRAINING_POINTS), vectors_ND.shape[1]
    if count < 2:
        raise DataError(f"{len(vectors_ND)} token vectors are too few to compress; {2 * TRAINING_POINTS} are needed")
    if dimension * min(bits) % 8:
        raise DataError(f"{dimension} numbers of {min(bits)} bits fill no whole bytes; set more late_interaction.residual_bits")
    means = faiss.Kmeans(dimension, count, niter=10, seed=seed + 1, spherical=True)
    means.train(vectors_ND)
    rows = np.random.default_rng(seed).permutation(len(vectors_ND))[: max(1, _SAMPLE // dimension)]
    nearest = means.index.search(vectors_ND[rows], 1)[1][:, 0]
    residuals = (vectors_ND[rows] - means.centroids[nearest]).ravel()
    return [
        Codebook(
            means.centroids.copy(),
            np.quantile(residuals, np.arange(1, 2**b) / 2**b).astype(np.float32),
            np.quantile(residuals, (np.arange(2**b) + 0.5) / 2**b).astype(np.float32),
            b,
        )
        for b in bits
    ]


class TokenStore:
    """The token vectors of some passages in one form, and their way back."""

    def __init__(self, form: str, ids: Sequence[str], lengths: Sequence[int], tensors: Mapping[str, Tensor], book: Codebook | None = None) -> None:
        self.form, self._tensors, self._book = form, dict(tensors), book
        self._row = {pid: row for row, pid in enumerate(ids)}
        self._ends = np.concatenate([[0], np.cumsum(lengths)])

    def passages(self, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The vectors of passages as one batch, float32 [passages, tokens, dim], and its mask [passages, tokens]."""
        spans = [(self._ends[row], self._ends[row + 1]) for row in (self._row[pid] for pid in ids)]
        tokens = torch.from_numpy(np.concatenate([np.arange(start, end) for start, end in spans]))
        if self._book is None:
            vectors = self._tensors["vectors"][tokens].float()
        else:
            vectors = torch.from_numpy(self._book.decompress(self._tensors["nearest"][tokens].numpy(), self._tensors["residuals"][tokens].numpy()))
        return padded(vectors.split([int(end - start) for start, end in spans]))

    def bytes(self) -> int:
        """Bytes of the store as it is written: the tokens, where each passage begins, and the codebook."""
        book = self._book
        shared = {} if book is None else {"centroids": torch.from_numpy(book.centroids_KD), "levels": torch.from_numpy(book.levels)}
        return len(save({**self._tensors, "ends": torch.from_numpy(self._ends), **shared}))


def stored(
    ids: Sequence[str], lengths: Sequence[int], whole_ND: Tensor, settings: LateInteractionSettings, seed: int
) -> dict[str, TokenStore]:
    """The token vectors of passages in every form: ``fp32``, ``fp16``, and a residual form for each number of bits.

    ``whole_ND`` holds them one passage after another, ``lengths`` of them each.
    """
    plain = (("fp32", torch.float32), ("fp16", torch.float16))
    found = {form: TokenStore(form, ids, lengths, {"vectors": whole_ND.to(dtype)}) for form, dtype in plain}
    for book in fit_codebooks(whole_ND.numpy(), settings.residual_bits, settings.centroids, seed):
        nearest, packed = book.compress(whole_ND.numpy())
        form = residual_form(book.bits)
        coded = {"nearest": torch.from_numpy(nearest), "residuals": torch.from_numpy(packed)}
        found[form] = TokenStore(form, ids, lengths, coded, book)
    return found


def token_bytes(form: str, dimension: int) -> float:
    """Bytes of one token: 4 or 2 a number, or the 4 of its centroid's number and the bits of the residual."""
    plain = {"fp32": 4.0 * dimension, "fp16": 2.0 * dimension}
    return plain[form] if form in plain else 4 + dimension * _bits(form) / 8


def expected_bytes(form: str, passages: int, tokens: int, dimension: int, settings: LateInteractionSettings) -> float:
    """Bytes of a store by arithmetic: its tokens, 8 a passage for where it begins, and the codebook."""
    shared = 0.0
    if form not in {"fp32", "fp16"}:
        shared = 4.0 * (dimension * min(settings.centroids, tokens // TRAINING_POINTS) + 2 ** _bits(form))
    return tokens * token_bytes(form, dimension) + 8 * (passages + 1) + shared


def _bits(form: str) -> int:
    return int(form.removeprefix("residual_").removesuffix("bit"))
