"""MaxSim: every token of the query finds its most similar token of the passage (Khattab and Zaharia, 2020, https://arxiv.org/abs/2004.12832)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def padded(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Token vectors of some texts, [tokens_i, dim] each, as one batch [texts, tokens, dim] and the mask of its real tokens [texts, tokens].

    Raises:
        ValueError: a text has no token; it would have no score.
    """
    lengths = torch.tensor([len(text) for text in texts])
    if len(texts) == 0 or not lengths.all():
        raise ValueError("MaxSim needs at least one text, and at least one token in each of them")
    batch_NTD = pad_sequence(list(texts), batch_first=True)
    mask_NT = torch.arange(batch_NTD.shape[1])[None, :] < lengths[:, None]
    return batch_NTD, mask_NT.to(batch_NTD.device)


def maxsim(queries_QTD: Tensor, query_mask_QT: Tensor, passages_PSD: Tensor, passage_mask_PS: Tensor) -> Tensor:
    """Scores [queries, passages]: the sum over a query's tokens of the greatest inner product with a token of the passage.

    Vectors of unit length make the inner product a cosine. What stands at masked places has no influence: a padding token wins no
    maximum, also where every real similarity is negative, and adds nothing to a sum. The sum is in float64, whose error does not count.
    Memory is queries * passages * tokens_q * tokens_p numbers.
    """
    similarity_QPTS = torch.einsum("qtd,psd->qpts", queries_QTD, passages_PSD)
    similarity_QPTS = similarity_QPTS.masked_fill(~passage_mask_PS[None, :, None, :], -torch.inf)
    best_QPT = similarity_QPTS.amax(dim=-1)
    return best_QPT.masked_fill(~query_mask_QT[:, None, :], 0.0).double().sum(dim=-1)


def maxsim_loop(query_TD: np.ndarray, passage_SD: np.ndarray) -> float:
    """The same of one query and one passage by the definition: two loops over tokens, in float64."""
    query, passage = query_TD.astype(np.float64), passage_SD.astype(np.float64)
    total = 0.0
    for asked in query:
        total += max(float(asked @ told) for told in passage)
    return total
