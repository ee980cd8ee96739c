"""Similarity of a claim to a passage: the baselines that a verifier has to beat. Similarity is not support."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from curriculum.crossencoder.model import Pair


@torch.inference_mode()
def cosine(pairs: Sequence[Pair], encoder: Path, device: str = "cpu", *, batch_size: int = 32, max_length: int = 256) -> np.ndarray:
    """Cosine [n] of the mean-pooled embeddings of the two texts of each pair, by the sentence encoder in ``encoder``."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder, local_files_only=True)
    model = AutoModel.from_pretrained(encoder, local_files_only=True, use_safetensors=True).to(device).eval()
    texts = sorted({text for pair in pairs for text in pair}, key=len)
    vectors: dict[str, torch.Tensor] = {}
    for start in range(0, len(texts), batch_size):
        chosen = texts[start : start + batch_size]
        batch = tokenizer(chosen, padding=True, truncation=True, max_length=max_length, return_tensors="pt").to(device)
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
        pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        vectors |= dict(zip(chosen, pooled.cpu(), strict=True))
    return np.array([float(vectors[first] @ vectors[second]) for first, second in pairs])


def containment(pairs: Sequence[Pair]) -> np.ndarray:
    """Share [n] of the claim's distinct words that the passage has too; 0 for a claim without words."""
    shares = []
    for passage, claim in pairs:
        known, stated = _words(passage), _words(claim)
        shares.append(len(known & stated) / len(stated) if stated else 0.0)
    return np.array(shares)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
