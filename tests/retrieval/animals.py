"""Passages on animals and their colours, questions on them, and a sentence encoder for both: search small enough for every area's tests."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from curriculum.retrieval.passages import COLUMNS

ANIMALS = ["cat", "dog", "horse", "mouse", "sheep", "goat", "duck", "bear", "wolf", "hare"]
COLOURS = ["red", "green", "blue", "black"]
WORDS = [*ANIMALS, *COLOURS, *"the is find not it lives in a house by river and page".split(), "[unused0]", "[unused1]"]


def passages() -> pd.DataFrame:
    """A passage for each colour of an animal."""
    rows = []
    for animal in ANIMALS:
        for number, colour in enumerate(COLOURS):
            text = f"The {animal} is {colour}. " + "It lives in a house by the river. " * (number + 2)
            own = {"passage_id": f"{animal}-{colour}", "doc_id": animal, "title": f"Page {animal}", "text": text}
            rows.append({**dict.fromkeys(COLUMNS, ""), **own, "collection": "project", "position": 0})
    return pd.DataFrame(rows)


def tracks() -> pd.DataFrame:
    """Each colour of an animal is asked for in two phrasings; the passage that names both is relevant."""
    rows = []
    for i, animal in enumerate(ANIMALS):
        for colour in COLOURS[i % 2 :: 2]:
            for n, query in enumerate((f"find the {colour} {animal}", f"the {animal} is {colour}")):
                own = {"track": "animals", "collection": "project", "query_id": f"{animal}/{colour}/{n}", "query": query, "kind": ""}
                own |= {"split": "dev" if i < 4 else "test", "group": f"{animal}/{colour}", "doc_ids": [animal]}
                rows.append({**own, "relevant_ids": [f"{animal}-{colour}"], "grades": [2]})
    return pd.DataFrame(rows)


def sentence_encoder(bert: Path, folder: Path) -> Path:
    """Mean pooling over the model in ``bert``, written to ``folder``; its files name a prompt for queries."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    made = SentenceTransformer(modules=[Transformer(str(bert), max_seq_length=128), Pooling(32)], prompts={"query": "find "}, device="cpu")
    made.save_pretrained(str(folder))
    return folder
