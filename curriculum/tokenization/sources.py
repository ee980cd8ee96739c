"""Which texts the tokenizer study compares on."""

from __future__ import annotations

import pandas as pd

_PROSE_SOURCES = ("language-reference", "stdlib")
_PARAGRAPH = 120  # characters: headings and one-line items of a note are no documents


def study_texts(
    documents: pd.DataFrame, notes: pd.DataFrame, questions: pd.DataFrame, own: pd.DataFrame | None = None
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """(corpora to train on, texts to measure on only): documentation that is mostly prose, the libraries' docstrings with their
    examples, the notes by paragraph, a user's ``own`` documents where given; and the Russian questions.

    A corpus without documents is left out.
    """
    prose = documents["source"].isin(_PROSE_SOURCES)
    corpora = {
        "reference and standard library": list(documents.loc[prose, "text"]),
        "library docstrings": list(documents.loc[~prose, "text"]),
        "study notes": [part for text in notes["text"] for part in text.split("\n\n") if len(part) >= _PARAGRAPH],
        "own documents": [] if own is None else list(own["text"]),
    }
    asked = questions[questions["kind"] == "russian"]
    russian = [text for row in asked.itertuples() for text in (row.question, *row.phrasings)]
    return {name: texts for name, texts in corpora.items() if texts}, {"Russian questions": russian} if russian else {}
