"""How much each word of a text surprises a causal language model, in bits: with and without the question in front of it.

Words that the model could have guessed are what Selective Context drops (Li et al., 2023). LongLLMLingua keeps those that the question
makes more expected (Jiang et al., 2023): the fall of a word's surprise when the question stands before the text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curriculum.compression.pieces import plain

_SPACED = re.compile(r"\s*\S+")


class Surprise:
    """A causal language model and its tokenizer, in ``folder``."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).to(device).eval()
        self._device = device

    def count(self, text: str) -> int:
        """Tokens of ``text``."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.inference_mode()
    def bits(self, text: str, before: str = "") -> tuple[np.ndarray, list[tuple[int, int]]]:
        """The surprise [tokens] of each token of ``text`` given those before it, and its characters (start, end).

        ``before`` stands in front of the text and its surprise is not counted. The first token of all is given the end-of-text token.
        """
        made = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        front = [self.tokenizer.eos_token_id, *self.tokenizer(before, add_special_tokens=False)["input_ids"]]
        ids = torch.tensor([[*front, *made["input_ids"]]], device=self._device)
        logits_TV = self.model(ids).logits[0, len(front) - 1 : -1].float()
        losses = torch.nn.functional.cross_entropy(logits_TV, ids[0, len(front) :], reduction="none")
        return losses.cpu().numpy() / math.log(2), [tuple(span) for span in made["offset_mapping"]]

    def words(self, passages: Sequence[str], before: str = "") -> np.ndarray:
        """The mean surprise [words] of the tokens of each word of ``passages``, which are read one after the other; in bits."""
        lines = [plain(text) for text in passages]
        text, starts, ends, place = "\n".join(lines), list[int](), list[int](), 0
        for word in _SPACED.finditer(text):
            starts.append(word.start())
            ends.append(word.end())
        bits, spans = self.bits(text, before)
        sums, counts = np.zeros(len(starts)), np.zeros(len(starts))
        for value, (begin, end) in zip(bits, spans, strict=True):
            while place + 1 < len(starts) and (begin + end) / 2 > ends[place]:
                place += 1
            sums[place] += value
            counts[place] += 1
        return sums / np.maximum(counts, 1)
