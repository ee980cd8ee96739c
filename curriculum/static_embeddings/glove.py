"""GloVe: weighted least squares on the logarithms of co-occurrence counts (Pennington, Socher and Manning, 2014)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from curriculum.static_embeddings.settings import GloveSettings
from curriculum.static_embeddings.skipgram import Vectors
from curriculum.static_embeddings.words import Corpus


def cooccurrence(corpus: Corpus, window: int) -> Any:
    """Symmetric counts X [V, V], a sparse CSR matrix: each meeting of two words of one text counts 1 / distance, up to ``window``."""
    from scipy import sparse

    size, total = len(corpus.words), None
    for distance in range(1, min(window, len(corpus.ids) - 1) + 1):
        together = corpus.text_of[:-distance] == corpus.text_of[distance:]
        left, right = corpus.ids[:-distance][together], corpus.ids[distance:][together]
        met = sparse.csr_matrix((np.full(len(left), 1 / distance), (left, right)), shape=(size, size))
        total = met if total is None else total + met
    return (total + total.T).tocsr()


@dataclass(frozen=True)
class Part:
    """A part of the observed cells: their pattern by row, the same by column, log count and weight of each [cells]."""

    pattern: torch.Tensor
    columns: torch.Tensor
    turned: torch.Tensor
    logs: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class Tables:
    """W and C [V, D], and the biases a and b [V]."""

    w_VD: torch.Tensor
    c_VD: torch.Tensor
    a_V: torch.Tensor
    b_V: torch.Tensor

    def all(self) -> tuple[torch.Tensor, ...]:
        return self.w_VD, self.c_VD, self.a_V, self.b_V


def _csr(matrix: Any, values: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():  # torch calls its CSR layout beta once a process
        warnings.simplefilter("ignore", UserWarning)
        pointers, columns = (torch.from_numpy(array.astype(np.int64)) for array in (matrix.indptr, matrix.indices))
        return torch.sparse_csr_tensor(pointers, columns, values, size=matrix.shape, check_invariants=False)


def make_part(cells: Any, x_max: float, power: float) -> Part:
    """Prepare observed ``cells`` (scipy COO or CSR, [V, V]). The weight is min(1, (X / x_max)^power)."""
    from scipy import sparse

    by_row = sparse.csr_matrix(cells)
    by_row.sort_indices()
    numbered = sparse.csr_matrix((np.arange(by_row.nnz), by_row.indices, by_row.indptr), shape=by_row.shape).tocoo()
    order = np.lexsort((numbered.row, numbered.col))
    by_column = sparse.csr_matrix((numbered.data[order], (numbered.col[order], numbered.row[order])), shape=by_row.shape)
    counts = torch.from_numpy(by_row.data)
    return Part(
        pattern=_csr(by_row, torch.zeros(by_row.nnz)), columns=_csr(by_column, torch.zeros(by_row.nnz)),
        turned=torch.from_numpy(order), logs=counts.log().float(), weights=(counts / x_max).pow(power).clamp(max=1).float(),
    )


def _with(pattern: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return torch.sparse_csr_tensor(pattern.crow_indices(), pattern.col_indices(), values, size=pattern.shape, check_invariants=False)


def glove_loss_and_gradients(tables: Tables, part: Part) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """J = sum of f(X) (W.C + a + b - ln X)^2 over the cells of ``part``, and its gradients by W, C, a, b.

    The products are computed at the observed cells alone, 2 D FLOPs each, and the gradients are two sparse products of 2 D more.
    """
    rows = torch.repeat_interleave(torch.arange(part.pattern.shape[0]), part.pattern.crow_indices().diff())
    columns = part.pattern.col_indices()
    fitted = torch.sparse.sampled_addmm(part.pattern, tables.w_VD, tables.c_VD.T).values()
    error = fitted + tables.a_V[rows] + tables.b_V[columns] - part.logs
    slope = 2 * part.weights * error
    by_row, by_column = _with(part.pattern, slope), _with(part.columns, slope[part.turned])
    size = len(tables.a_V)
    gradients = (
        by_row @ tables.c_VD, by_column @ tables.w_VD,
        torch.zeros(size, dtype=slope.dtype).index_add_(0, rows, slope), torch.zeros(size, dtype=slope.dtype).index_add_(0, columns, slope),
    )
    return (part.weights * error**2).sum(), gradients


def adagrad_step(tables: Tables, squares: Tables, gradients: tuple[torch.Tensor, ...], rate: float) -> None:
    """AdaGrad (Duchi et al., 2011) in place; ``squares`` start at one, as in the authors' program. Its gradient has no factor 2."""
    for value, square, gradient in zip(tables.all(), squares.all(), gradients, strict=True):
        halved = gradient / 2
        square.addcmul_(halved, halved)
        value.addcdiv_(halved, square.sqrt(), value=-rate)


def train_glove(
    corpus: Corpus, settings: GloveSettings, dimensions: int, *, seed: int, progress: Callable[[str], None] = lambda line: None
) -> tuple[Vectors, torch.Tensor]:
    """(W + C, the paper's vectors; W alone [V, D]). A step sums the gradients of one random part of the cells.

    ``losses`` are J / cells before the steps of each epoch.
    """
    counts, rng = cooccurrence(corpus, settings.window).tocoo(), np.random.default_rng(seed)
    chosen, parts = rng.integers(0, settings.batches, counts.nnz), []
    for number in range(settings.batches):
        here = chosen == number
        cells = type(counts)((counts.data[here], (counts.row[here], counts.col[here])), shape=counts.shape)
        parts.append(make_part(cells, settings.x_max, settings.power))
    generator, size = torch.Generator().manual_seed(seed), len(corpus.words)
    made = [(torch.rand(size, width, generator=generator) - 0.5) / dimensions for width in (dimensions, dimensions, 1, 1)]
    tables = Tables(made[0], made[1], made[2][:, 0].contiguous(), made[3][:, 0].contiguous())
    squares, losses = Tables(*(torch.ones_like(value) for value in tables.all())), []
    for epoch in range(settings.epochs):
        total = 0.0
        for number in rng.permutation(len(parts)):
            loss, gradients = glove_loss_and_gradients(tables, parts[number])
            adagrad_step(tables, squares, gradients, settings.learning_rate)
            total += float(loss)
        losses.append(total / counts.nnz)
        progress(f"GloVe, epoch {epoch + 1} of {settings.epochs}: {losses[-1]:.4f} a cell")
    return Vectors(tables.w_VD + tables.c_VD, losses), tables.w_VD
