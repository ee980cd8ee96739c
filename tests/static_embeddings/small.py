"""A text made so that meaning is known: words of one topic stand together, and come in three inflected forms."""

from __future__ import annotations

import numpy as np
import pandas as pd

from curriculum.static_embeddings.settings import GloveSettings, StaticEmbeddingsSettings

TOPICS = {
    "sea": ["harbour", "anchor", "sailor", "vessel", "captain", "lighthouse"],
    "kitchen": ["kettle", "pepper", "saucer", "baker", "cinnamon", "oven"],
    "garden": ["flower", "shovel", "compost", "meadow", "orchard", "gardener"],
    "music": ["violin", "melody", "rhythm", "concert", "singer", "trumpet"],
}
SETTINGS = StaticEmbeddingsSettings(
    dimensions=16, window=4, epochs=4, subsample=0, minimum_count=2, learning_rate=0.05, batch_pairs=128, buckets=2_000, seeds=2,
    unseen_words=8, resamples=100, neighbours=5, shown_words=("harbours", "nowhere"),
    glove=GloveSettings(window=4, epochs=20, batches=5),
)


def texts(count: int = 500, seed: int = 0) -> list[str]:
    """Each text is twelve words of one topic, in forms like ``harbour``, ``harbours``, ``harbouring``."""
    rng, names = np.random.default_rng(seed), list(TOPICS)
    made = []
    for _ in range(count):
        topic = TOPICS[names[int(rng.integers(len(names)))]]
        made.append(" ".join(topic[int(i)] + ("", "s", "ing")[int(form)] for i, form in zip(rng.integers(6, size=12), rng.integers(3, size=12), strict=True)))
    return made


def pairs() -> pd.DataFrame:
    """Base forms: 10 within a topic, 1 across."""
    words = [(word, topic) for topic, members in TOPICS.items() for word in members]
    rows = [
        {"set": "small", "word1": a, "word2": b, "grade": 10.0 if of_a == of_b else 1.0}
        for i, (a, of_a) in enumerate(words) for b, of_b in words[i + 1 :]
    ]
    return pd.DataFrame(rows)


def analogies() -> pd.DataFrame:
    """Base : plural, and one with a word that is not in the text."""
    rows = [("harbour", "harbours", "kettle", "kettles"), ("violin", "violins", "flower", "flowers"), ("harbour", "harbours", "king", "kings")]
    return pd.DataFrame([{"set": "small", "section": "plural", **dict(zip("abcd", row, strict=True))} for row in rows])
