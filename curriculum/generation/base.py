"""What every generator gives: chat messages in, text and its token counts out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Generation:
    """One generated text. ``seconds`` is its share of the batch it was made in."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    finish_reason: str


class Generator(Protocol):
    """Writes one text a prompt. With temperature 0 the same prompts give the same texts."""

    name: str

    def generate(
        self, prompts: list[Messages], *, max_new_tokens: int, stop: tuple[str, ...] = (), temperature: float = 0.0, seed: int = 0
    ) -> list[Generation]:
        """One :class:`Generation` a prompt, in order. A text ends before the first of ``stop`` it would hold."""
        ...

    def stream(self, prompt: Messages, *, max_new_tokens: int) -> Iterator[str]:
        """The text of one prompt piece by piece, at temperature 0. Closing the iterator stops the generator early."""
        ...


def cut_at(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """``text`` up to the first stop string, and whether there was one."""
    ends = [place for place in (text.find(s) for s in stop) if place >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
