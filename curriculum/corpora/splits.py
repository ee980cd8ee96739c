"""Splits that keep near-duplicates together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256

from curriculum.corpora.deduplicate import clusters
from curriculum.corpora.documents import split_of


def split_by_cluster(texts: Sequence[str], shares: dict[str, float], threshold: float) -> list[str]:
    """The split of each text: that of the hash of its near-duplicate cluster, so a text stays where it is when others are added.

    Where chance leaves a split of a small corpus empty, it is given the cluster of lowest hash from the split with the most.
    """
    first = clusters(texts, threshold)
    digests = {i: sha256(texts[i].encode("utf-8")).hexdigest() for i in set(first)}
    members: dict[str, list[int]] = defaultdict(list)
    for i in sorted(digests, key=lambda i: (digests[i], i)):
        members[split_of(digests[i], shares)].append(i)
    for name in shares:
        fullest = max(shares, key=lambda split: len(members[split]))
        if not members[name] and len(members[fullest]) > 1:
            members[name].append(members[fullest].pop(0))
    side = {i: name for name, indices in members.items() for i in indices}
    return [side[i] for i in first]
