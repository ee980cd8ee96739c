"""A cross-encoder: both texts in one sequence, one logit out (Nogueira and Cho, 2019, https://arxiv.org/abs/1901.04085)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from curriculum.errors import SourceError

Pair = tuple[str, str]
_CONFIG = "cross_encoder.json"


class CrossEncoder:
    """A one-logit sequence-pair classifier with its tokenizer.

    ``max_length`` bounds the tokens of a pair; when it is exceeded the longer of the two texts is cut first. ``precision`` is
    that of the products in :meth:`score`: "float32", or "bfloat16" by autocast, whose 8 bits of mantissa move a logit by some 0.4%.
    """

    def __init__(self, model: Any, tokenizer: Any, *, max_length: int, device: str = "cpu", precision: str = "float32") -> None:
        self.model = model.to(device)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.device = device
        self.precision = precision

    @classmethod
    def start(cls, directory: Path, *, max_length: int, seed: int, device: str = "cpu") -> CrossEncoder:
        """An encoder from ``directory`` under a new head, whose random weights come from ``seed``.

        Raises:
            SourceError: the directory holds no model that can classify sequences.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls._read(directory, max_length=max_length, device=device, num_labels=1)

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> CrossEncoder:
        """Read what :meth:`save` wrote.

        Raises:
            SourceError: the directory was not written by :meth:`save`.
        """
        described = directory / _CONFIG
        if not described.exists():
            raise SourceError(f"{directory} holds no cross-encoder ({_CONFIG} is missing); give the directory of a trained one")
        return cls._read(directory, max_length=json.loads(described.read_text(encoding="utf-8"))["max_length"], device=device)

    @classmethod
    def _read(cls, directory: Path, *, max_length: int, device: str, **config: Any) -> CrossEncoder:
        try:
            model = AutoModelForSequenceClassification.from_pretrained(
                directory, local_files_only=True, use_safetensors=True, dtype=torch.float32, **config
            )
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        except (OSError, ValueError) as error:
            raise SourceError(f"no sequence classifier can be made of {directory}: {error}") from error
        return cls(model.eval(), tokenizer, max_length=max_length, device=device)

    def save(self, directory: Path) -> None:
        """Write weights (safetensors), configuration and tokenizer into ``directory``."""
        directory.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        (directory / _CONFIG).write_text(json.dumps({"max_length": self.max_length}) + "\n", encoding="utf-8")

    def encode(self, pairs: Sequence[Pair]) -> list[dict[str, list[int]]]:
        """Token ids of each pair, unpadded: one dict of ``input_ids``, ``attention_mask`` (and ``token_type_ids``) a pair."""
        if not pairs:
            return []
        firsts, seconds = zip(*pairs, strict=True)
        encoded = self.tokenizer(list(firsts), list(seconds), truncation="longest_first", max_length=self.max_length)
        return [{name: column[i] for name, column in encoded.items()} for i in range(len(pairs))]

    def logits(self, encoded: Sequence[dict[str, list[int]]]) -> torch.Tensor:
        """Logits [n] of encoded pairs, padded to the longest of them. Keeps the graph in training mode."""
        batch = self.tokenizer.pad(list(encoded), padding=True, return_tensors="pt").to(self.device)
        return self.model(**batch).logits.squeeze(-1).float()

    @torch.inference_mode()
    def score(self, pairs: Sequence[Pair], batch_size: int | None = None) -> np.ndarray:
        """Logits [n] (float32) of ``pairs``, in their order. Batches are cut by length, so that padding costs little.

        ``batch_size`` None: 4 on a CPU, where small batches are the faster ones (their activations stay in the cache), else 64.
        """
        self.model.eval()
        batch_size = batch_size or (4 if self.device == "cpu" else 64)
        encoded = self.encode(pairs)
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"]))
        scores = np.zeros(len(encoded), dtype=np.float32)
        # one context over all batches: the weights are rounded once
        rounded = torch.autocast(self.device.partition(":")[0], torch.bfloat16) if self.precision == "bfloat16" else nullcontext()
        with rounded:
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                scores[chosen] = self.logits([encoded[i] for i in chosen]).cpu().numpy()
        return scores


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits [n], without overflow."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64)))
