"""Byte-level BPE from scratch (Sennrich et al., 2016; Radford et al., 2019); the `tokenizers` library is the reference.

A text is cut into words by GPT-2's pattern, a word's UTF-8 bytes become one printable character each, and merges join symbols
inside words only.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

import regex

Merge = tuple[str, str]
_WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


def byte_characters() -> dict[int, str]:
    """A printable character for each byte: itself where it is printable Latin-1, else one from U+0100 on (as in GPT-2)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in sorted(printable)} | {byte: chr(0x100 + n) for n, byte in enumerate(others)}


_CHARACTER = byte_characters()
_BYTE = {character: byte for byte, character in _CHARACTER.items()}


def words_of(text: str) -> list[str]:
    """The words of a text, each a string of byte characters. Joined, they are the whole text."""
    return [_bytes_of(word) for word in _WORD.findall(text)]


def _bytes_of(word: str) -> str:
    """The bytes of a word, a byte character each."""
    return "".join([_CHARACTER[byte] for byte in word.encode("utf-8")])


def learn_merges(texts: Iterable[str], merges: int, min_frequency: int = 1) -> list[Merge]:
    """The first ``merges`` merges: the commonest adjacent pair each time, among equals the pair of symbols known the longest."""
    found = Counter(word for text in texts for word in _WORD.findall(text))
    frequency = Counter({_bytes_of(word): count for word, count in found.items()})
    words = {word: list(word) for word in frequency}
    age = {character: number for number, character in enumerate(sorted(_BYTE))}
    return list(itertools.islice(merges_in_order(words, frequency, age, "".join, min_frequency), merges))


def merges_in_order(
    words: dict[str, list[str]], frequency: Counter[str], age: dict[str, int], join: Callable[[Merge], str], min_frequency: int = 1
) -> Iterator[Merge]:
    """Every merge of ``words`` (each with its symbols), one at a time; ``words`` and ``age`` change as they are drawn.

    The commonest pair comes first; among equals the pair whose symbols have the lowest ``age``, which a symbol gets when it is
    first made. ``join`` names what a pair becomes. Only the words that hold the merged pair are looked at, and only its neighbours
    counted again, so a merge costs the length of those words and not of the corpus.
    """
    counts: dict[Merge, int] = defaultdict(int)
    holders: dict[Merge, set[str]] = defaultdict(set)
    for word, symbols in words.items():
        for pair in itertools.pairwise(symbols):
            counts[pair] += frequency[word]
            holders[pair].add(word)
    queue = [_entry(pair, counts[pair], age) for pair in counts]
    heapq.heapify(queue)
    while queue:
        negative, _, _, pair = heapq.heappop(queue)
        if counts[pair] != -negative:  # counted again since: the entry that holds is elsewhere in the queue, or none is
            continue
        if -negative < max(min_frequency, 1):
            break
        joined = join(pair)
        age.setdefault(joined, len(age))
        for changed in _merge_everywhere(pair, joined, words, frequency, counts, holders):
            if counts[changed] > 0:
                heapq.heappush(queue, _entry(changed, counts[changed], age))
        yield pair


def _entry(pair: Merge, count: int, age: dict[str, int]) -> tuple[int, int, int, Merge]:
    return -count, age[pair[0]], age[pair[1]], pair


def _merge_everywhere(
    pair: Merge, joined: str, words: dict[str, list[str]], frequency: Counter[str], counts: dict[Merge, int],
    holders: dict[Merge, set[str]],
) -> set[Merge]:
    """Join ``pair`` in every word that holds it; returns the pairs whose counts changed: the neighbours of what was joined."""
    first, second = pair
    changed: set[Merge] = set()
    for word in holders.pop(pair):
        symbols, times = words[word], frequency[word]
        after: list[str] = []
        place, was_joined, last = 0, False, len(symbols) - 1
        while place <= last:
            symbol = symbols[place]
            joins = symbol == first and place < last and symbols[place + 1] == second
            if after and (joins or was_joined):  # the border between these two symbols is another pair now
                gone, made = (symbols[place - 1], symbol), (after[-1], joined if joins else symbol)
                counts[gone] -= times
                counts[made] += times
                holders[made].add(word)
                changed.add(gone)
                changed.add(made)
            after.append(joined if joins else symbol)
            place += 2 if joins else 1
            was_joined = joins
        words[word] = after
    counts[pair] = 0
    return changed


def apply_merge(symbols: list[str], merge: Merge, joined: str) -> list[str]:
    """``symbols`` with every occurrence of the pair replaced by ``joined``, from left to right."""
    out: list[str] = []
    i = 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == merge:
            out.append(joined)
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


def encode(text: str, merges: list[Merge]) -> list[str]:
    """The tokens of a text: in every word, the earliest learned merge that fits is applied until none does."""
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    return [token for word in words_of(text) for token in _encode_word(word, ranks)]


def _encode_word(word: str, ranks: dict[Merge, int]) -> list[str]:
    symbols = list(word)
    while fitting := [(ranks[pair], pair) for pair in itertools.pairwise(symbols) if pair in ranks]:
        merge = min(fitting)[1]
        symbols = apply_merge(symbols, merge, "".join(merge))
    return symbols


def decode(tokens: Iterable[str]) -> str:
    """The text of tokens. Bytes that are no UTF-8 become U+FFFD, which only cutting inside a character can cause."""
    return bytes(_BYTE[character] for token in tokens for character in token).decode("utf-8", errors="replace")
