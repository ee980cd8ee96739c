"""The text an adapter is tuned on: prose of the Python documentation, or a user's own folder, split by document."""

from __future__ import annotations

import re

import pandas as pd

from curriculum.corpora.documents import cut_at_paragraph, text_digest
from curriculum.corpora.settings import CorporaSettings
from curriculum.corpora.sides import without_overlap
from curriculum.corpora.splits import split_by_cluster
from curriculum.errors import DataError

_SHARES = {"train": 0.8, "test": 0.2}
_PROSE_SOURCES = ("stdlib", "language-reference")
_WORD = re.compile(r"[^\W\d_]{2,}[,.;:!?)]*$")


def prose_share(text: str) -> float:
    """The share of a text's non-empty lines that read as sentences: six words in ten are of letters, and no prompt opens them."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return sum(map(_is_prose, lines)) / len(lines) if lines else 0.0


def _is_prose(line: str) -> bool:
    words = line.split()
    if line.startswith((">>>", "...", "|", "+-")) or "::=" in line or (len(words) < 2 and not line.endswith(".")):
        return False
    return sum(bool(_WORD.match(word.lstrip("\"'(`*"))) for word in words) >= 0.6 * len(words)


def build_domain_corpus(documents: pd.DataFrame, settings: CorporaSettings, *, packaged: bool = True) -> pd.DataFrame:
    """``documents`` with a ``split`` column (train, test), each within its budget in characters; near-duplicates on one side.

    A test document that shares whole paragraphs with the training side, though it is no near-duplicate, is left out.

    ``packaged`` says that the documents are the Python documentation, of which the standard library's and the language
    reference's prose is taken; a user's own documents are all taken.

    Raises:
        DataError: one side would be empty.
    """
    if packaged:
        wanted = documents["source"].isin(_PROSE_SOURCES)
        wanted &= documents["text"].map(prose_share) >= settings.domain_prose_share
        documents = documents[wanted]
    chosen = documents.reset_index(drop=True)
    splits = split_by_cluster(list(chosen["text"]), _SHARES, settings.leakage_jaccard)
    chosen = chosen.assign(split=splits).sort_values(["digest", "doc_id"])  # by hash: a fixed sample of the whole
    train = _within(chosen[chosen["split"] == "train"], settings.domain_train_characters)
    test = _within(_not_in(train, chosen[chosen["split"] == "test"]), settings.domain_test_characters)
    test = _not_in(train, test)  # the last one has been cut: what is left of it may be what it shares
    for split, side in (("train", train), ("test", test)):
        if side.empty:
            raise DataError(f"the domain corpus has no {split} documents; give corpora.domain_source more files")
    return pd.concat([train, test], ignore_index=True)


def _not_in(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    return test[test["text"].isin(without_overlap(train["text"], test["text"]))]


def _within(side: pd.DataFrame, budget: int) -> pd.DataFrame:
    """The first documents of ``side`` up to ``budget`` characters; the one that passes it is cut there, at a paragraph."""
    before = side["text"].str.len().cumsum().shift(fill_value=0)
    side = side[before < budget].copy()
    if len(side):
        last = side.index[-1]
        text = cut_at_paragraph(side.at[last, "text"], budget - int(before[last]))
        side.loc[last, ["text", "digest"]] = [text, text_digest(text)]
    return side[side["text"] != ""]
