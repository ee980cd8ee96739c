"""WordPiece from scratch: BERT's words, encoding by the longest match, and the vocabulary as the `tokenizers` library learns it.

The original training (Schuster and Nakajima, 2012) merges the pair that raises the likelihood most; the library merges the
commonest pair, as BPE does, over characters of which all but a word's first wear the prefix ``##``. This module follows the library.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import regex

from curriculum.tokenization.bpe import Merge, merges_in_order

PREFIX = "##"
UNKNOWN = "[UNK]"
MAX_CHARACTERS = 100  # a longer word is unknown: the library's default
_PUNCTUATION = r"\p{P}\x21-\x2F\x3A-\x40\x5B-\x60\x7B-\x7E"  # with ASCII's symbols, as BERT has it
_WORD = regex.compile(rf"[{_PUNCTUATION}]|[^\p{{White_Space}}{_PUNCTUATION}]+")


def words_of(text: str) -> list[str]:
    """The words of a text in NFC: parted at white space, each punctuation mark a word by itself.

    The library's Unicode tables are older than Python's and `regex`'s: punctuation newer than version 8 parts words here only, and
    runs of combining marks newer than version 9 can be put in another order.
    """
    return _WORD.findall(unicodedata.normalize("NFC", text))


def encode(text: str, vocabulary: Collection[str], unknown: str = UNKNOWN, max_characters: int = MAX_CHARACTERS) -> list[str]:
    """The tokens of a text. ``vocabulary`` should be a set or a dictionary: it is asked about every substring that is tried.

    Raises:
        ValueError: ``unknown`` is not in the vocabulary, or no character is allowed in a word.
    """
    if unknown not in vocabulary:
        raise ValueError(f"the vocabulary has no unknown token '{unknown}'")
    if max_characters < 1:
        raise ValueError(f"max_characters is {max_characters}; a word has at least 1")
    return [token for word in words_of(text) for token in encode_word(word, vocabulary, unknown, max_characters)]


def encode_word(word: str, vocabulary: Collection[str], unknown: str = UNKNOWN, max_characters: int = MAX_CHARACTERS) -> list[str]:
    """The longest piece that matches from the left, again and again; the unknown token alone where none matches.

    Greedy: a word that has a spelling is unknown all the same when the longest first piece leads to a dead end.
    """
    if len(word) > max_characters:
        return [unknown]
    pieces: list[str] = []
    start = 0
    while start < len(word):
        prefix = PREFIX if start else ""
        fitting = (end for end in range(len(word), start, -1) if prefix + word[start:end] in vocabulary)
        end = next(fitting, None)
        if end is None:
            return [unknown]
        pieces.append(prefix + word[start:end])
        start = end
    return pieces


def learn_vocabulary(
    texts: Iterable[str], size: int, special: Sequence[str] = (UNKNOWN,), continuing: Sequence[str] | None = None
) -> list[str]:
    """A vocabulary of at most ``size`` pieces in the order of their ids; it is smaller when the words run out of pairs.

    First the special tokens, then the characters by code point, then those of them that continue a word, with the prefix, then
    what each merge made. Equal counts are settled by the ids, lowest first. Only the order of the ``continuing`` characters
    is free: the library takes it from a hash map, another one each time, here it is by code point unless given.

    Raises:
        ValueError: ``size`` does not hold the special tokens and the characters, or ``continuing`` are other characters.
    """
    frequency = Counter(word for text in texts for word in words_of(text))
    words = {word: [word[0], *(PREFIX + character for character in word[1:])] for word in frequency}
    found = sorted({symbol for symbols in words.values() for symbol in symbols[1:]})
    order = found if continuing is None else list(continuing)
    if sorted(order) != found:
        raise ValueError(f"{len(order)} continuing characters were given in order; the words have {len(found)}, or others")
    age = {symbol: number for number, symbol in enumerate([*sorted({c for word in words for c in word}), *order])}
    if len(special) + len(age) > size:
        raise ValueError(f"a vocabulary of {size} cannot hold {len(special)} special tokens and {len(age)} characters")
    merges = merges_in_order(words, frequency, age, join)
    while len(special) + len(age) < size and next(merges, None):
        pass  # each merge drawn adds its piece to ``age``, unless another pair made the same piece before
    return [*special, *age]


def join(pair: Merge) -> str:
    """What a pair of symbols becomes: the second one's prefix falls away."""
    return pair[0] + pair[1].removeprefix(PREFIX)
