"""Near-duplicates by MinHash and banded LSH (Broder, 1997; Leskovec et al., ch. 3), confirmed by exact Jaccard similarity."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from zlib import crc32

import numpy as np

_PRIME = (1 << 61) - 1
_WORDS = re.compile(r"\w+")


def shingles(text: str, width: int = 5) -> frozenset[int]:
    """Hashes of the ``width``-word windows of a text, case folded; a shorter text is one shingle."""
    words = _WORDS.findall(text.lower())
    windows = (" ".join(words[i : i + width]) for i in range(max(1, len(words) - width + 1)))
    return frozenset(crc32(w.encode()) for w in windows)


def jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    """|a & b| / |a | b|; 1 for two empty sets."""
    union = len(a | b)
    return len(a & b) / union if union else 1.0


class MinHash:
    """Signatures of ``permutations`` minima under random linear maps modulo a Mersenne prime."""

    def __init__(self, permutations: int = 64, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        # 2**29 keeps factor * crc32 below 2**61, so the product is exact in uint64
        self.factors = rng.integers(1, 1 << 29, permutations, dtype=np.uint64)
        self.offsets = rng.integers(0, _PRIME, permutations, dtype=np.uint64)

    def signature(self, items: frozenset[int]) -> np.ndarray:
        """uint64 [permutations]; the share of equal entries of two signatures estimates their Jaccard similarity."""
        values = np.fromiter(items, dtype=np.uint64, count=len(items))
        hashed = (self.factors[:, None] * values[None, :] + self.offsets[:, None]) % np.uint64(_PRIME)
        return hashed.min(axis=1)


def clusters(texts: Sequence[str], threshold: float, *, bands: int = 16, seed: int = 0) -> list[int]:
    """For each text, the index of the first text of its near-duplicate cluster (its own index when it has none before it).

    LSH proposes pairs (16 bands of 4 rows find pairs of similarity 0.85 with probability above 0.9999); exact Jaccard
    confirms them; clusters are the connected components.
    """
    sets = [shingles(text) for text in texts]
    hasher = MinHash(bands * 4, seed)
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for members in _buckets(sets, hasher, bands):
        first = members[0]
        for other in members[1:]:
            a, b = root(first), root(other)
            if a != b and jaccard(sets[first], sets[other]) >= threshold:
                parent[max(a, b)] = min(a, b)
    return [root(i) for i in range(len(texts))]


def _buckets(sets: Sequence[frozenset[int]], hasher: MinHash, bands: int) -> Iterable[list[int]]:
    found: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for index, items in enumerate(sets):
        for band, part in enumerate(hasher.signature(items).reshape(bands, -1)):
            found[band, part.tobytes()].append(index)
    return (members for members in found.values() if len(members) > 1)
