"""Near-duplicates by MinHash and banded LSH (Broder, 1997; Leskovec et al., ch. 3), confirmed by exact Jaccard similarity."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np

_WORDS = re.compile(r"\w+")
_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, so multiplying by it loses nothing modulo 2**64
_CHUNK = 4096  # shingles hashed at once: [permutations, _CHUNK] uint64 is 4 MB


@lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: a bijection of uint64 whose every output bit depends on every input bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def shingles(text: str, width: int = 5) -> np.ndarray:
    """Sorted hashes (uint64) of the ``width``-word windows of a text, case folded, each once.

    A text of fewer words is one shingle; one without words is the hash of its characters, so that it equals only itself.
    """
    words = _WORDS.findall(text.lower())
    if not words:
        return np.array([_word_hash(text.strip())], dtype=np.uint64)
    hashes = np.fromiter(map(_word_hash, words), dtype=np.uint64, count=len(words))
    width = min(width, len(words))
    windows = np.zeros(len(words) - width + 1, dtype=np.uint64)
    for offset in range(width):
        windows = _mix(windows * _STEP + hashes[offset : offset + len(windows)])
    return np.unique(windows)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """``|a & b| / |a | b|`` of two sorted arrays without repeats; 1 for two empty ones."""
    shared = np.intersect1d(a, b, assume_unique=True).size
    union = a.size + b.size - shared
    return shared / union if union else 1.0


class MinHash:
    """Signatures: the minima of a set's hashes under ``permutations`` random maps ``a x + b`` modulo 2**64, ``a`` odd."""

    def __init__(self, permutations: int = 128, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.factors = rng.integers(0, 1 << 64, permutations, dtype=np.uint64) | np.uint64(1)
        self.offsets = rng.integers(0, 1 << 64, permutations, dtype=np.uint64)

    def signature(self, items: np.ndarray) -> np.ndarray:
        """uint64 [permutations] of a non-empty set of hashes [n]."""
        lowest = np.full(len(self.factors), np.iinfo(np.uint64).max, dtype=np.uint64)
        for start in range(0, len(items), _CHUNK):
            hashed = self.factors[:, None] * items[None, start : start + _CHUNK] + self.offsets[:, None]
            np.minimum(lowest, hashed.min(axis=1), out=lowest)
        return lowest

    @staticmethod
    def estimate(a: np.ndarray, b: np.ndarray) -> float:
        """The Jaccard similarity two signatures suggest: the share of equal entries, standard error sqrt(J(1-J)/permutations)."""
        return float(np.mean(a == b))


def bands_for(permutations: int, threshold: float, miss: float = 1e-6) -> tuple[int, int]:
    """(bands, rows) of the longest bands that overlook a pair at ``threshold`` with probability below ``miss``.

    A pair of similarity s shares a band with probability ``1 - (1 - s**rows)**bands``. Longer bands propose fewer wrong pairs.
    """
    fitting = [rows for rows in range(1, permutations + 1) if (1 - threshold**rows) ** (permutations // rows) < miss]
    rows = max(fitting, default=1)
    return permutations // rows, rows


def similar_pairs(
    texts: Sequence[str], threshold: float, *, permutations: int = 128, seed: int = 0
) -> Iterator[tuple[int, int]]:
    """Pairs ``i < j`` of texts that are equal, or whose exact Jaccard similarity reaches ``threshold``.

    Of equal texts only (first, other) is given, and only the first is compared with the rest: what holds for it holds for all.
    """
    first_of: dict[str, int] = {}
    for index, text in enumerate(texts):
        first = first_of.setdefault(text, index)
        if first != index:
            yield first, index
    distinct = sorted(first_of.values())
    sets = {index: shingles(texts[index]) for index in distinct}
    for a, b in _candidates(sets, MinHash(permutations, seed), bands_for(permutations, threshold)):
        # sizes alone bound the similarity, and most wrong candidates fall here
        small, large = sorted((sets[a].size, sets[b].size))
        if small >= threshold * large and jaccard(sets[a], sets[b]) >= threshold:
            yield a, b


def _candidates(sets: Mapping[int, np.ndarray], hasher: MinHash, shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    bands, rows = shape
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for index, items in sets.items():
        parts = hasher.signature(items)[: bands * rows].reshape(bands, rows)
        for band, part in enumerate(parts):
            buckets[band, part.tobytes()].append(index)
    seen: set[tuple[int, int]] = set()
    for members in buckets.values():
        for position, a in enumerate(members):
            for b in members[position + 1 :]:
                if (a, b) not in seen:
                    seen.add((a, b))
                    yield a, b


def clusters(texts: Sequence[str], threshold: float, *, seed: int = 0) -> list[int]:
    """For each text, the index of the first text of its near-duplicate cluster (its own index where it is the first).

    Clusters are the connected components of :func:`similar_pairs`.
    """
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in similar_pairs(texts, threshold, seed=seed):
        a, b = root(i), root(j)
        parent[max(a, b)] = min(a, b)
    return [root(i) for i in range(len(texts))]


def leakage(documents_by_split: Mapping[str, Sequence[str]], threshold: float = 0.8, *, seed: int = 1) -> int:
    """How many documents have an equal or near-duplicate document in another split; 0 for sound splits.

    The default seed differs from that of :func:`clusters`, so that the check does not share the blind spots of what it checks.
    """
    texts = [text for split in documents_by_split.values() for text in split]
    sides = [name for name, split in documents_by_split.items() for _ in split]
    groups: dict[str, list[int]] = defaultdict(list)  # equal texts stand for one another
    for index, text in enumerate(texts):
        groups[text].append(index)
    leaked: set[int] = set()
    for i, j in similar_pairs(texts, threshold, seed=seed):
        ours, theirs = groups[texts[i]], groups[texts[j]]
        leaked.update(a for a in ours if any(sides[a] != sides[b] for b in theirs))
        leaked.update(b for b in theirs if any(sides[a] != sides[b] for a in ours))
    return len(leaked)
