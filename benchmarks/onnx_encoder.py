"""A peer of the encoder: the same model exported to ONNX, its weights int8 and its activations quantised as they come, in onnxruntime.

Needs ``pip install --no-deps onnx==1.23.2 onnxscript==0.7.2 onnx_ir==1.1.0 ml_dtypes==0.6.0`` beside onnxruntime, which the lock has.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch

BATCH = 8  # texts, by length: what our encoder takes at once on a CPU


def available() -> bool:
    """Whether what the export and the run need is installed."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


class Pooled(torch.nn.Module):
    """Unit vectors [batch, dimension] of padded pieces: the mean of the last hidden states."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden_BTH = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        kept_BT1 = attention_mask[..., None].to(hidden_BTH.dtype)
        return torch.nn.functional.normalize((hidden_BTH * kept_BT1).sum(1) / kept_BT1.sum(1), dim=-1)


class Int8Encoder:
    """The sentence encoder in ``folder`` (mean pooling, no prompt) by onnxruntime on one thread."""

    def __init__(self, folder: Path, max_tokens: int, out: Path) -> None:
        import onnxruntime
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer, self._max_tokens = AutoTokenizer.from_pretrained(folder, local_files_only=True), max_tokens
        model = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation="eager").eval()
        example = self._tokenizer(["two texts", "of unlike lengths"], padding=True, return_tensors="pt")
        batch, seq = torch.export.Dim("batch"), torch.export.Dim("seq", max=max_tokens)
        torch.onnx.export(
            Pooled(model), (example["input_ids"], example["attention_mask"]), out / "float.onnx", input_names=["input_ids", "attention_mask"],
            output_names=["vectors"], dynamic_shapes=({0: batch, 1: seq}, {0: batch, 1: seq}), dynamo=True, external_data=False,
        )  # fmt: skip
        # seven bits: products of eight overflow the 16-bit sums of processors without VNNI
        quantize_dynamic(out / "float.onnx", out / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(out / "int8.onnx", options, providers=["CPUExecutionProvider"])

    def passages(self, texts: list[str]) -> np.ndarray:
        """float32 [texts, dimension], in the order of ``texts``."""
        order, parts = sorted(range(len(texts)), key=lambda i: len(texts[i])), list[np.ndarray]()
        for start in range(0, len(order), BATCH):
            chosen = [texts[i] for i in order[start : start + BATCH]]
            found = self._tokenizer(chosen, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="np")
            inputs = {name: found[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
            parts.append(self._session.run(None, inputs)[0])
        vectors = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
        vectors[order] = np.concatenate(parts)
        return vectors
