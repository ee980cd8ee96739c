"""The extractive reader: long contexts as overlapping windows, n-best spans, and the best span over all windows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Pair = tuple[str, str]


@dataclass(frozen=True)
class Window:
    """Part of one example's context. ``offsets`` are characters of the context, None outside it; the labels are token places."""

    example: int
    input_ids: list[int]
    token_type_ids: list[int]
    offsets: list[tuple[int, int] | None]
    start: int = 0
    end: int = 0


@dataclass(frozen=True)
class Span:
    """An answer: its text, where it stands in the context, and its score (start logit + end logit - those of no answer)."""

    text: str
    start: int
    score: float


def windows(tokenizer: Any, pairs: Sequence[Pair], *, max_length: int, stride: int) -> list[Window]:
    """Windows of ``max_length`` tokens over each (question, context), overlapping by ``stride`` context tokens.

    A question is read up to half of a window: the other half is left to the context.
    """
    made = tokenizer(
        [_cut(tokenizer, q.strip(), max_length // 2) for q, _ in pairs], [c for _, c in pairs], truncation="only_second", max_length=max_length,
        stride=min(stride, max_length // 4), return_overflowing_tokens=True, return_offsets_mapping=True,
    )
    found = []
    for row, example in enumerate(made["overflow_to_sample_mapping"]):
        places = made.sequence_ids(row)
        offsets = [tuple(o) if s == 1 else None for o, s in zip(made["offset_mapping"][row], places, strict=True)]
        types = [int(s == 1) for s in places]
        found.append(Window(example, made["input_ids"][row], types, offsets))
    return found


def _cut(tokenizer: Any, question: str, limit: int) -> str:
    """The question, or as much of its beginning as ``limit`` tokens hold."""
    if len(question) <= limit:  # a token is a character at least
        return question
    ends = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return question if len(ends) <= limit else question[: ends[limit - 1][1]]


def labelled(window: Window, start: int, end: int) -> Window:
    """``window`` with the token places of the answer at characters [start, end); (0, 0), the [CLS] token, where it is not whole."""
    inside = [i for i, o in enumerate(window.offsets) if o is not None and o[1] > start and o[0] < end]
    whole = inside and window.offsets[inside[0]][0] <= start and window.offsets[inside[-1]][1] >= end
    places = (inside[0], inside[-1]) if whole else (0, 0)
    return Window(window.example, window.input_ids, window.token_type_ids, window.offsets, *places)


def collate(batch: Sequence[Window], pad: int, device: str) -> dict[str, Tensor]:
    """input_ids, attention_mask, token_type_ids [windows, longest], and the answer places [windows]."""
    longest = max(len(w.input_ids) for w in batch)

    def padded(name: str, value: int) -> Tensor:
        return torch.tensor([[*getattr(w, name), *[value] * (longest - len(w.input_ids))] for w in batch], device=device)

    mask = torch.tensor([[1] * len(w.input_ids) + [0] * (longest - len(w.input_ids)) for w in batch], device=device)
    places = {"start_positions": [w.start for w in batch], "end_positions": [w.end for w in batch]}
    return {
        "input_ids": padded("input_ids", pad), "attention_mask": mask, "token_type_ids": padded("token_type_ids", 0),
        **{name: torch.tensor(value, device=device) for name, value in places.items()},
    }


def best_span(window: Window, start: np.ndarray, end: np.ndarray, context: str, *, n_best: int, max_tokens: int) -> Span:
    """The best of the window's valid spans: inside the context, start before end, at most ``max_tokens`` long."""
    null = float(start[0] + end[0])
    inside = np.array([i for i, o in enumerate(window.offsets) if o is not None and o[1] > o[0]], dtype=int)
    best = Span("", 0, -np.inf)
    starts = inside[np.argsort(-start[inside])[:n_best]]
    ends = inside[np.argsort(-end[inside])[:n_best]]
    for s in starts:
        for e in ends:
            score = float(start[s] + end[e]) - null
            if s <= e < s + max_tokens and score > best.score:
                first, last = window.offsets[s][0], window.offsets[e][1]
                best = Span(context[first:last], first, score)
    return best


class Reader:
    """A fine-tuned reader. ``answer`` gives each (question, context) its best span."""

    def __init__(self, model: nn.Module, tokenizer: Any, *, max_length: int, stride: int, n_best: int, max_tokens: int, device: str) -> None:
        self.model, self.tokenizer, self.device = model.to(device).eval(), tokenizer, device
        self.max_length, self.stride, self.n_best, self.max_tokens = max_length, stride, n_best, max_tokens

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Reader:
        """Read what training wrote: safetensors, tokenizer files and ``reader.json``."""
        import json

        from transformers import AutoModelForQuestionAnswering, AutoTokenizer

        options = json.loads((folder / "reader.json").read_text())
        model = AutoModelForQuestionAnswering.from_pretrained(folder, local_files_only=True)
        return cls(model, AutoTokenizer.from_pretrained(folder, local_files_only=True), **options, device=device)

    @torch.no_grad()
    def answer(self, pairs: Sequence[Pair], batch_size: int = 32) -> list[Span]:
        """The best span of each pair over all its windows; an empty one where the context has no token."""
        best = [Span("", 0, -np.inf)] * len(pairs)
        made = sorted(windows(self.tokenizer, pairs, max_length=self.max_length, stride=self.stride), key=lambda w: len(w.input_ids))
        for begin in range(0, len(made), batch_size):
            batch = made[begin : begin + batch_size]
            inputs = collate(batch, self.tokenizer.pad_token_id, self.device)
            out = self.model(**{k: v for k, v in inputs.items() if not k.endswith("positions")})
            for row, window in enumerate(batch):
                start, end = out.start_logits[row].cpu().numpy(), out.end_logits[row].cpu().numpy()
                span = best_span(window, start, end, pairs[window.example][1], n_best=self.n_best, max_tokens=self.max_tokens)
                best[window.example] = max(best[window.example], span, key=lambda s: s.score)
        return [Span(re.sub(r"\s+", " ", s.text), s.start, s.score) for s in best]
