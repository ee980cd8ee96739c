"""Codes from scratch beside those of bitsandbytes, PyTorch and gguf, on the same weights: a scheme each, integer by integer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from curriculum.adaptation import nf4
from curriculum.quantisation import codes


class Compared(NamedTuple):
    """One scheme on one weight: both libraries' integers, flat, both decoded weights, and the scheme's arithmetic."""

    ours: Tensor
    theirs: Tensor
    decoded: Tensor
    their_decoded: Tensor
    bits: float
    predicted: float


def _absmax(weight_RC: Tensor) -> Compared:
    import bitsandbytes.functional as bnb

    ours = codes.absmax_rows(weight_RC)
    theirs, rows, _ = bnb.int8_vectorwise_quant(weight_RC.clone())
    return _compared(ours, theirs, bnb.int8_vectorwise_dequant(theirs, rows))


def _absmax_torch(weight_RC: Tensor) -> Compared:
    from torch.ao.quantization import per_channel_dynamic_qconfig

    ours = codes.absmax_rows(weight_RC, reach=127.5)
    observer = per_channel_dynamic_qconfig.weight()
    observer(weight_RC)
    scales, zeros = observer.calculate_qparams()
    theirs = torch.quantize_per_channel(weight_RC, scales, zeros, 0, torch.qint8)
    return _compared(ours, theirs.int_repr(), theirs.dequantize())


def _zero_point(weight_RC: Tensor) -> Compared:
    from torch.ao.quantization.observer import MinMaxObserver

    observer = MinMaxObserver(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
    observer(weight_RC)
    scale, zero = observer.calculate_qparams()
    theirs = torch.quantize_per_tensor(weight_RC, float(scale), int(zero), torch.quint8)
    return _compared(codes.zero_point(weight_RC), theirs.int_repr(), theirs.dequantize())


def _nf4(weight_RC: Tensor) -> Compared:
    import bitsandbytes.functional as bnb

    ours, flat = nf4.quantise(weight_RC, double=False), weight_RC.flatten()
    theirs, state = bnb.quantize_4bit(flat, blocksize=64, quant_type="nf4")
    return Compared(
        _halves(ours.codes), _halves(theirs.flatten()), nf4.dequantise(ours), bnb.dequantize_4bit(theirs, state).reshape(weight_RC.shape),
        8 * ours.bytes / weight_RC.numel(), float("nan"),
    )  # fmt: skip


def _q8_0(weight_RC: Tensor) -> Compared:
    packed, decoded = _gguf(weight_RC, "Q8_0", constants=2)
    return _compared(codes.q8_0(weight_RC), torch.from_numpy(packed.view(np.int8)), decoded)


def _q4_1(weight_RC: Tensor) -> Compared:
    packed, decoded = _gguf(weight_RC, "Q4_1", constants=4)
    integers = np.concatenate([packed & 15, packed >> 4], axis=1)  # a byte: a weight of the first half of the block, and the 16th after it
    return _compared(codes.q4_1(weight_RC), torch.from_numpy(integers), decoded)


def _gguf(weight_RC: Tensor, name: str, *, constants: int) -> tuple[np.ndarray, Tensor]:
    """The library's blocks without the first bytes, their constants: uint8 [blocks, bytes]; and what it decodes them to."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    kind = GGMLQuantizationType[name]
    rows = quantize(weight_RC.numpy(), kind)
    return rows.reshape(-1, GGML_QUANT_SIZES[kind][1])[:, constants:].copy(), torch.from_numpy(dequantize(rows, kind))


def _compared(ours: codes.Codes, theirs: Tensor, their_decoded: Tensor) -> Compared:
    return Compared(
        ours.values.flatten(), theirs.flatten(), ours.decode().reshape(their_decoded.shape), their_decoded.float(), ours.bits, codes.step_error(ours)
    )


def _halves(packed: Tensor) -> Tensor:
    return torch.stack([packed >> 4, packed & 15], dim=1).flatten()


# name: the library whose integers are compared, and how
SCHEMES: Mapping[str, tuple[str, Callable[[Tensor], Compared]]] = {
    "absmax": ("bitsandbytes, int8 by rows", _absmax), "absmax_torch": ("PyTorch, int8 by rows", _absmax_torch),
    "zero_point": ("PyTorch, uint8 over the tensor", _zero_point), "q8_0": ("gguf, int8 in blocks of 32", _q8_0),
    "nf4": ("bitsandbytes, NF4 in blocks of 64", _nf4), "q4_1": ("gguf, 4 bits in blocks of 32", _q4_1),
}  # fmt: skip


def drawn_weights(seed: int) -> dict[str, Tensor]:
    """Weights that no file has rounded before: normal ones, the same with an outlier a row, and exact ties of every scheme."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(192, 576, generator=generator) * 0.05
    outliers = normal.clone()
    outliers[torch.arange(192), torch.randint(576, (192,), generator=generator)] = 1.0
    ties = (torch.randint(-254, 255, (64, 256), generator=generator) / 2).float()
    ties[:, ::32] = 127.0  # so that absmax has a scale of 1, and halves are ties
    return {"normal": normal, "outliers": outliers, "ties": ties}


def compare_codes(weights: Mapping[str, Tensor]) -> pd.DataFrame:
    """A row a scheme and weight: how many integers differ, the largest difference of the decoded weights, and the rounding error.

    ``error`` is the root mean square of w' - w over that of w, ``predicted`` the same by s / sqrt(12); NaN for NF4, whose steps differ.
    """
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is on its way out of torch, and says so at every call
        for scheme, (library, compare) in SCHEMES.items():
            for name, weight in weights.items():
                weight_RC, size = weight.float().contiguous(), float(weight.float().square().mean().sqrt())
                found = compare(weight_RC)
                rows.append({
                    "scheme": scheme, "library": library, "weight": name, "integers": found.ours.numel(),
                    "differing": int((found.ours.int() != found.theirs.int()).sum()),
                    "decoded_difference": float((found.decoded - found.their_decoded).abs().max()) / size, "bits_a_weight": found.bits,
                    "error": float((found.decoded.reshape(weight_RC.shape) - weight_RC).square().mean().sqrt()) / size,
                    "predicted": found.predicted / size,
                })  # fmt: skip
    return pd.DataFrame(rows)
