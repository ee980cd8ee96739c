"""Tokenizers compared on held-out text: fertility, bytes per token, unknown rate, exactness of the round trip."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from tokenizers import Tokenizer

from curriculum.evaluation.statistics import bootstrap_mean
from curriculum.plots import draw
from curriculum.results import Metric, StudyResult
from curriculum.tokenization.settings import TokenizationSettings
from curriculum.tokenization.training import KINDS, UNKNOWN, train_tokenizer


@dataclass(frozen=True)
class Measured:
    """One document under one tokenizer. ``words`` are split at white space."""

    tokens: int
    words: int
    bytes: int
    unknown: int
    exact: bool


def measure(tokenizer: Tokenizer, text: str) -> Measured:
    """Count what a tokenizer makes of one document."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    unknown = tokenizer.token_to_id(UNKNOWN)
    return Measured(
        tokens=len(encoding.ids), words=len(text.split()), bytes=len(text.encode("utf-8")),
        unknown=sum(i == unknown for i in encoding.ids) if unknown is not None else 0,
        exact=tokenizer.decode(encoding.ids, skip_special_tokens=False) == text,
    )


def compare_tokenizers(
    corpora: dict[str, list[str]], settings: TokenizationSettings, *, seed: int, progress: Callable[[str], None]
) -> StudyResult:
    """Train each kind at each size on each corpus (80% of it), and measure it on documents it did not see."""
    rows, scores = [], []
    for name, texts in corpora.items():
        order = np.random.default_rng(seed).permutation(len(texts))
        cut = max(1, int(0.8 * len(order)))
        train = _bounded([texts[i] for i in order[:cut]], settings.study_characters)
        held_out = [(int(i), texts[i]) for i in order[cut:][: settings.study_documents]]
        for size in settings.study_vocab_sizes:
            for kind in KINDS:
                begun = time.perf_counter()
                tokenizer = train_tokenizer(kind, train, size)
                seconds = time.perf_counter() - begun
                found = [measure(tokenizer, text) for _, text in held_out]
                rows.append({"corpus": name, "tokenizer": kind, "vocabulary": size, **_summary(found), "train_seconds": seconds})
                progress(f"{name} {kind} {size}: {rows[-1]['bytes_per_token']:.2f} bytes a token, trained in {seconds:.1f} s")
                key = [{"example_id": f"{name}/{kind}/{size}/{i}"} for i, _ in held_out]
                scores += [k | asdict(m) | {"kind": kind, "size": size} for k, m in zip(key, found, strict=True)]
    table, per_example = pd.DataFrame(rows), pd.DataFrame(scores)
    return StudyResult(
        study="tokenizers_study", metrics=_metrics(per_example, settings), settings=settings.model_dump(mode="json"), seeds=[seed],
        per_example=per_example, tables={"tokenizers": table}, plots={"bytes_per_token": _plot(table)},
    )


def _bounded(texts: list[str], characters: int) -> list[str]:
    ends = np.cumsum([len(t) for t in texts])
    return texts[: int(np.searchsorted(ends, characters)) + 1]


def _summary(found: list[Measured]) -> dict[str, float]:
    tokens, words = sum(m.tokens for m in found), sum(m.words for m in found)
    return {
        "bytes_per_token": sum(m.bytes for m in found) / max(tokens, 1),
        "fertility": tokens / max(words, 1),
        "unknown_rate": sum(m.unknown for m in found) / max(tokens, 1),
        "round_trip": float(np.mean([m.exact for m in found])),
    }


def _metrics(scores: pd.DataFrame, settings: TokenizationSettings) -> list[Metric]:
    metrics = []
    for kind in KINDS:
        mine = scores[(scores["kind"] == kind) & (scores["size"] == max(settings.study_vocab_sizes))]
        ratio = (mine["bytes"] / mine["tokens"].clip(lower=1)).to_numpy()
        low, high = bootstrap_mean(ratio)
        n = len(mine)
        metrics += [
            Metric(name=f"bytes_per_token__{kind}", value=float(ratio.mean()), low=low, high=high, n=n),
            Metric(name=f"fertility__{kind}", value=mine["tokens"].sum() / max(mine["words"].sum(), 1), n=n, higher_is_better=False),
            Metric(name=f"unknown_rate__{kind}", value=mine["unknown"].sum() / max(mine["tokens"].sum(), 1), n=n, higher_is_better=False),
            Metric(name=f"round_trip__{kind}", value=float(scores.loc[scores["kind"] == kind, "exact"].mean()), n=n),
        ]
    return metrics


def _plot(table: pd.DataFrame) -> bytes:
    def paint(axes: object) -> None:
        for (corpus, kind), rows in table.groupby(["corpus", "tokenizer"]):
            axes.plot(rows["vocabulary"], rows["bytes_per_token"], marker="o", label=f"{kind}, {corpus}")  # type: ignore[attr-defined]

    return draw(paint, title="Compression on held-out documents", x="vocabulary", y="bytes per token")
