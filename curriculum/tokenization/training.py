"""Byte-level BPE, WordPiece and Unigram tokenizers, trained by the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

Kind = Literal["bpe", "wordpiece", "unigram"]
KINDS: tuple[Kind, ...] = ("bpe", "wordpiece", "unigram")
DETERMINISTIC: tuple[Kind, ...] = ("bpe",)  # the library trains the other two over hash maps, in another order each time
END = "<|endoftext|>"
UNKNOWN = "[UNK]"


def train_tokenizer(kind: Kind, texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of at most ``vocab_size`` entries. ``bpe`` works on bytes, so it knows every text; the others on characters.

    ``wordpiece`` keeps case, encodes by the longest match from the left, and learns as the library does: by pair frequency, not
    by the likelihood ratio of the original (Schuster and Nakajima, 2012). ``unigram`` is Kudo's (2018), spaces as U+2581.

    Raises:
        ValueError: an unknown ``kind``.
    """
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    elif kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=[UNKNOWN, END], show_progress=False)
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=vocab_size, special_tokens=[UNKNOWN, END], unk_token=UNKNOWN, show_progress=False
        )
    else:
        raise ValueError(f"unknown tokenizer kind '{kind}'; use one of {', '.join(KINDS)}")
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True  # an end token written out in somebody's text is text
    return tokenizer
