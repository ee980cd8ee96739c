"""Shares on which the from-scratch tokenizers and the `tokenizers` library agree: BPE's merges, the others' encodings."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
from tokenizers import Tokenizer

from curriculum.results import Metric
from curriculum.tokenization import wordpiece
from curriculum.tokenization.bpe import learn_merges
from curriculum.tokenization.training import UNKNOWN, Kind, train_tokenizer
from curriculum.tokenization.unigram import UnigramModel

Trained = tuple[Kind, Tokenizer, list[str]]  # a tokenizer of the library's, and documents that it was not trained on


def merge_agreement(texts: list[str], merges: int, characters: int = 60_000) -> Metric:
    """The share of the first merges on which the from-scratch BPE and the library agree, in order, on the same text."""
    sample = bounded(texts, characters)
    library = json.loads(train_tokenizer("bpe", sample, 257 + merges).to_str())["model"]["merges"]
    ours = learn_merges(sample, len(library))
    equal = sum(tuple(a) == b for a, b in zip(library, ours, strict=False))
    return Metric(name="merge_agreement__scratch_bpe", value=equal / max(len(library), 1), n=len(library))


def encoding_parity(trained: list[Trained], characters: int = 60_000) -> list[Metric]:
    """The share of documents that our WordPiece, and our Unigram, cut exactly as the library's tokenizer of the same vocabulary.

    ``characters`` bounds the documents of each tokenizer, so that checking costs a second and not the study's time again.
    """
    metrics = []
    for kind in ("wordpiece", "unigram"):
        equal = []
        for tokenizer, documents in ((t, documents) for k, t, documents in trained if k == kind):
            encode = scratch_encoder(kind, tokenizer)
            equal += [encode(text) == tokenizer.encode(text).tokens for text in bounded(documents, characters)]
        metrics.append(Metric(name=f"parity__{kind}", value=float(np.mean(equal)), n=len(equal)))
    return metrics


def scratch_encoder(kind: Kind, tokenizer: Tokenizer) -> Callable[[str], list[str]]:
    """Our encoding of a text over the pieces (and scores) of a tokenizer of the library's.

    Raises:
        ValueError: a kind other than ``wordpiece`` and ``unigram``; of BPE the merges are compared.
    """
    if kind == "wordpiece":
        vocabulary = tokenizer.get_vocab()
        return lambda text: wordpiece.encode(text, vocabulary, UNKNOWN)
    if kind == "unigram":
        return UnigramModel(dict(json.loads(tokenizer.to_str())["model"]["vocab"]), UNKNOWN).encode
    raise ValueError(f"no encoder over a vocabulary for the kind '{kind}'")


def bounded(texts: list[str], characters: int) -> list[str]:
    """The first texts, up to the one that reaches ``characters`` in all; the first at least."""
    ends = np.cumsum([len(text) for text in texts])
    return texts[: int(np.searchsorted(ends, characters)) + 1]
