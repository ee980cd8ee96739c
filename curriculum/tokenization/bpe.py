"""Byte-pair encoding from scratch (Sennrich et al., 2016), as short as it reads; the `tokenizers` library is the reference."""

from __future__ import annotations

from collections import Counter

Merge = tuple[str, str]


def learn_merges(word_counts: dict[str, int], merges: int) -> list[Merge]:
    """The first ``merges`` merges over ``word_counts``: the commonest pair each time, ties broken by the smaller pair.

    Every word is a sequence of symbols that starts as its characters. Only the words that hold the merged pair are counted
    again, so the cost of a merge is the length of those words and not of the corpus.
    """
    words = {word: list(word) for word in sorted(word_counts)}
    counts: Counter[Merge] = Counter()
    where: dict[Merge, set[str]] = {}
    for word, symbols in words.items():
        _count(word, symbols, word_counts[word], counts, where)
    learned: list[Merge] = []
    while len(learned) < merges and counts:
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < 1:
            break
        learned.append(best)
        for word in sorted(where[best]):
            _count(word, words[word], -word_counts[word], counts, where)
            words[word] = apply_merge(words[word], best)
            _count(word, words[word], word_counts[word], counts, where)
        counts.pop(best, None)
    return learned


def _count(word: str, symbols: list[str], weight: int, counts: Counter[Merge], where: dict[Merge, set[str]]) -> None:
    for pair in zip(symbols, symbols[1:], strict=False):
        counts[pair] += weight
        if weight > 0:
            where.setdefault(pair, set()).add(word)


def apply_merge(symbols: list[str], merge: Merge) -> list[str]:
    """``symbols`` with every occurrence of the pair joined, from left to right."""
    out: list[str] = []
    i = 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == merge:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


def encode(word: str, merges: list[Merge]) -> list[str]:
    """A word's symbols after every merge, in the order they were learned."""
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    symbols = list(word)
    while True:
        pairs = [(ranks[p], p) for p in zip(symbols, symbols[1:], strict=False) if p in ranks]
        if not pairs:
            return symbols
        symbols = apply_merge(symbols, min(pairs)[1])
