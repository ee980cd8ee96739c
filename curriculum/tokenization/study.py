"""Tokenizers compared on held-out text: fertility, bytes per token, unknown rate, exactness of the round trip."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tokenizers import Tokenizer

from curriculum.errors import DataError
from curriculum.evaluation.statistics import bootstrap_mean, clopper_pearson
from curriculum.plots import draw
from curriculum.results import Identity, Metric, StudyResult
from curriculum.tokenization.parity import bounded, encoding_parity, merge_agreement
from curriculum.tokenization.settings import TokenizationSettings
from curriculum.tokenization.training import DETERMINISTIC, KINDS, UNKNOWN, train_tokenizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MEASURES = ("bytes_per_token", "fertility", "unknown_rate", "round_trip")
REMARKS = [
    "Fertility is tokens a word, words parted at white space. Metrics are means over held-out documents of every corpus, at the "
    "largest vocabulary; the table has each corpus and size by itself.",
    "Bytes per token compare tokenizers on one text, not texts: a Cyrillic letter is two bytes, a Latin one is one.",
    "Case is kept in all three. WordPiece's pre-tokenizer drops white space, so a text comes back only where its gaps are single "
    "spaces. An unknown token swallows its whole word, so where the unknown rate is high, bytes per token flatter.",
    "The library trains WordPiece by pair frequency, as BPE; what is WordPiece's own is the longest-match encoding.",
    "The library breaks ties of WordPiece and Unigram by the order of a hash map: their vocabularies, and so their figures, differ "
    "a little from run to run. Byte-level BPE comes out the same.",
    "Parity is the share of a sample of the held-out documents that the encodings written from scratch cut exactly as the library, "
    "given its vocabulary.",
]


@dataclass(frozen=True)
class Measured:
    """One document under one tokenizer. ``words`` are parted at white space."""

    tokens: int
    words: int
    bytes: int
    unknown: int
    exact: bool

    def scores(self) -> dict[str, float]:
        """The four measures of this document."""
        tokens, words = max(self.tokens, 1), max(self.words, 1)
        values = (self.bytes / tokens, self.tokens / words, self.unknown / tokens, float(self.exact))
        return dict(zip(_MEASURES, values, strict=True))


def measure(tokenizer: Tokenizer, text: str) -> Measured:
    """Count what a tokenizer makes of one document."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    unknown = tokenizer.token_to_id(UNKNOWN)
    return Measured(
        tokens=len(ids), words=len(text.split()), bytes=len(text.encode("utf-8")),
        unknown=0 if unknown is None else ids.count(unknown),
        exact=tokenizer.decode(ids, skip_special_tokens=False) == text,
    )


def compare_tokenizers(
    corpora: dict[str, list[str]],
    settings: TokenizationSettings,
    *,
    seed: int,
    foreign: dict[str, list[str]] | None = None,
    identities: list[Identity] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> StudyResult:
    """Train each kind at each size on 80% of each corpus, and measure it on documents it did not see.

    ``foreign`` texts are not trained on: every tokenizer of the largest size is measured on them, and on the other corpora.

    Raises:
        DataError: a corpus with too few different documents to hold some out.
    """
    splits = {name: _split(texts, settings, seed) for name, texts in corpora.items()}
    unseen = {name: held_out for name, (_, held_out) in splits.items()} | (foreign or {})
    rows, transfers, scores, largest = [], [], [], []
    for name, (train, held_out) in splits.items():
        for size in settings.study_vocab_sizes:
            for kind in KINDS:
                begun = time.perf_counter()
                tokenizer = train_tokenizer(kind, train, size)
                made = {"corpus": name, "tokenizer": kind, "vocabulary": size, "train_seconds": time.perf_counter() - begun}
                found = [measure(tokenizer, text) for text in held_out]
                rows.append({**made, **_summary(found)})
                progress(f"{name}, {kind} of {size}: {rows[-1]['bytes_per_token']:.2f} bytes a token")
                if size == max(settings.study_vocab_sizes):
                    largest.append((kind, tokenizer, held_out))
                    scores += [_scored(name, text, kind, m) for text, m in zip(held_out, found, strict=True)]
                    for other, texts in unseen.items():
                        there = _summary([measure(tokenizer, text) for text in texts])
                        transfers.append({"trained_on": name, "measured_on": other, "tokenizer": kind, **there})
    table, per_example, transfer = pd.DataFrame(rows), _wide(scores), pd.DataFrame(transfers)
    own = own_training(transfer)
    parities = [merge_agreement(next(iter(splits.values()))[0], settings.study_merges), *encoding_parity(largest)]
    return StudyResult(
        study="tokenizers_study", metrics=[*_metrics(per_example, table), *_least(own), *parities], settings=settings.model_dump(mode="json"),
        seeds=[seed], remarks=REMARKS, identities=identities or [], per_example=per_example,
        tables={"tokenizers": table, "transfer": transfer, "own_training": own},
        plots={"bytes_per_token": _compression_plot(table), "transfer": _transfer_plot(transfer)},
    )


def own_training(transfer: pd.DataFrame) -> pd.DataFrame:
    """One row a corpus and kind: fertility of the tokenizer trained on that corpus, of the best one trained elsewhere, and their ratio.

    Unknown tokens hide length, so the ratio means most for byte-level BPE, which has none. Empty where there is one corpus.
    """
    rows = []
    for (corpus, kind), found in transfer.groupby(["measured_on", "tokenizer"], sort=False):
        fertility = found.set_index("trained_on")["fertility"]
        others = fertility.drop(index=corpus, errors="ignore")
        if corpus in fertility and len(others):
            best = {"trained_here": fertility[corpus], "best_trained_elsewhere": others.min(), "trained_on": others.idxmin()}
            rows.append({"corpus": corpus, "tokenizer": kind, **best, "gain": others.min() / fertility[corpus]})
    return pd.DataFrame(rows, columns=["corpus", "tokenizer", "trained_here", "best_trained_elsewhere", "trained_on", "gain"])


def _least(own: pd.DataFrame) -> list[Metric]:
    """The smallest gain of BPE over the corpora: at 1 some corpus would be as well served by a tokenizer of another."""
    gains = own.loc[own["tokenizer"] == "bpe", "gain"]
    return [Metric(name="own_training_gain__bpe", value=float(gains.min()), n=len(gains))] if len(gains) else []


def _split(texts: list[str], settings: TokenizationSettings, seed: int) -> tuple[list[str], list[str]]:
    order = np.random.default_rng(seed).permutation(len(texts))
    cut = max(1, int(0.8 * len(order)))
    train = [texts[i] for i in order[:cut]]
    seen = set(train)
    held_out = [texts[i] for i in order[cut:] if texts[i] not in seen][: settings.study_documents]
    if not held_out:
        raise DataError(f"a corpus of {len(texts)} documents leaves none to measure tokenizers on; give it more of them")
    return bounded(train, settings.study_characters), held_out


def _scored(corpus: str, text: str, kind: str, found: Measured) -> dict[str, object]:
    example = f"{corpus}/{sha256(text.encode('utf-8')).hexdigest()[:12]}"
    return {"example_id": example, "kind": kind, **found.scores()}


def _wide(scores: list[dict[str, object]]) -> pd.DataFrame:
    """One row a document, one column a metric: ``fertility__bpe`` and so on."""
    table = pd.DataFrame(scores).drop_duplicates(["example_id", "kind"]).pivot(index="example_id", columns="kind")
    table.columns = [f"{measure}__{kind}" for measure, kind in table.columns]
    return table.reset_index()


def _summary(found: list[Measured]) -> dict[str, float]:
    """The measures over all of ``found`` together: totals divided by totals."""
    columns = zip(*((m.tokens, m.words, m.bytes, m.unknown) for m in found), strict=True)
    tokens, words, size, unknown = (sum(column) for column in columns)
    exact = sum(m.exact for m in found) / len(found)
    values = (size / max(tokens, 1), tokens / max(words, 1), unknown / max(tokens, 1), exact)
    return dict(zip(_MEASURES, values, strict=True)) | {"documents": len(found)}


def _metrics(scores: pd.DataFrame, table: pd.DataFrame) -> list[Metric]:
    metrics, n = [], len(scores)
    for kind in KINDS:
        for name in _MEASURES:
            column = scores[f"{name}__{kind}"].to_numpy()
            low, high = clopper_pearson(int(column.sum()), n) if name == "round_trip" else bootstrap_mean(column)
            metrics.append(
                Metric(
                    name=f"{name}__{kind}", value=float(column.mean()), low=low, high=high, n=n,
                    higher_is_better=name in {"bytes_per_token", "round_trip"}, deterministic=kind in DETERMINISTIC,
                )
            )
        seconds = float(table.loc[table["tokenizer"] == kind, "train_seconds"].sum())
        metrics.append(Metric(name=f"train_seconds__{kind}", value=seconds, unit="s", higher_is_better=False, deterministic=False))
    return metrics


def _compression_plot(table: pd.DataFrame) -> bytes:
    marks = dict(zip(dict.fromkeys(table["corpus"]), ("o", "s", "^", "v", "D", "x"), strict=False))
    lines = dict(zip(KINDS, ("C0", "C1", "C2"), strict=True))

    def paint(axes: Axes) -> None:
        for (corpus, kind), rows in table.groupby(["corpus", "tokenizer"], sort=False):
            style = {"marker": marks.get(corpus, "."), "color": lines[kind], "label": f"{kind}, {corpus}"}
            axes.plot(rows["vocabulary"], rows["bytes_per_token"], **style)
        axes.set_xscale("log", base=2)

    return draw(paint, title="Compression of held-out documents", x="vocabulary", y="bytes per token", size=(5.6, 3.8))


def _transfer_plot(table: pd.DataFrame) -> bytes:
    mean = table.groupby(["measured_on", "tokenizer"], sort=False)["fertility"].mean().unstack()[list(KINDS)]

    def paint(axes: Axes) -> None:
        places = np.arange(len(mean))
        for number, kind in enumerate(KINDS):
            axes.bar(places + 0.27 * (number - 1), mean[kind], width=0.25, label=kind)
        axes.set_xticks(places, [str(name).replace(" ", "\n") for name in mean.index], fontsize=7)

    return draw(paint, title="Tokens a word, by text (mean over training corpora)", y="fertility", size=(6.4, 3.6))
