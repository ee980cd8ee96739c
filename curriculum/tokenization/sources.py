"""Which texts the tokenizer study compares on."""

from __future__ import annotations

import pandas as pd

_PROSE_SOURCES = ("language-reference", "stdlib")
PROSE, RUSSIAN = "study notes", "Russian interface texts"
_PARAGRAPH = 120  # characters: headings and one-line items of a note are no documents


def study_texts(
    documents: pd.DataFrame, notes: pd.DataFrame, questions: pd.DataFrame, russian: pd.DataFrame, own: pd.DataFrame | None = None
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """(corpora to train on, texts to measure on only): documentation that is mostly prose, the libraries' docstrings with their
    examples, the notes by paragraph, Russian text, a user's ``own`` documents where given; and the questions asked in Russian.

    A corpus without documents is left out.
    """
    prose = documents["source"].isin(_PROSE_SOURCES)
    corpora = {
        "reference and standard library": list(documents.loc[prose, "text"]),
        "library docstrings": list(documents.loc[~prose, "text"]),
        PROSE: [part for text in notes["text"] for part in text.split("\n\n") if len(part) >= _PARAGRAPH],
        RUSSIAN: list(russian["text"]),
        "own documents": [] if own is None else list(own["text"]),
    }
    asked = questions[questions["kind"] == "russian"]
    questions_ru = [text for row in asked.itertuples() for text in (row.question, *row.phrasings)]
    return {name: texts for name, texts in corpora.items() if texts}, {"Russian questions": questions_ru} if questions_ru else {}
