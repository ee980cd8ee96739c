"""The domain corpus: prose, budgets, disjoint sides."""

from __future__ import annotations

import random

import pandas as pd
import pytest

from curriculum.corpora.deduplicate import leakage
from curriculum.corpora.documents import document, documents_table
from curriculum.corpora.domain import build_domain_corpus, prose_share
from curriculum.corpora.settings import CorporaSettings
from curriculum.corpora.sides import overlap
from curriculum.errors import DataError

SETTINGS = CorporaSettings(domain_train_characters=5_000, domain_test_characters=1_000)


def corpus(size: int, source: str = "stdlib") -> pd.DataFrame:
    rng = random.Random(0)
    letters = "abcdefghijklmnop"
    texts = ["The " + " ".join("".join(rng.choices(letters, k=5)) for _ in range(30)) + "." for _ in range(size)]
    return documents_table([document(f"{source}/{i:03}", "t", text, source=source) for i, text in enumerate(texts)], "test")


def test_prose() -> None:
    assert prose_share("This is a sentence of words,\nand this another one.\n") == 1.0
    assert prose_share(">>> print(1)\n1\n>>> x = [1, 2]\n") == 0.0
    assert prose_share("stmt ::= expr\n\nA line of prose here.") == 0.5
    assert prose_share("") == 0.0


def test_sides_are_within_budget_and_share_nothing() -> None:
    found = build_domain_corpus(pd.concat([corpus(60), corpus(60, "numpy")], ignore_index=True), SETTINGS)
    assert set(found["source"]) == {"stdlib"}
    sizes = found.groupby("split")["text"].apply(lambda texts: texts.str.len().sum())
    assert 4_000 < sizes["train"] <= 5_000 and 600 < sizes["test"] <= 1_000
    assert leakage({split: list(side["text"]) for split, side in found.groupby("split")}, 0.8) == 0
    assert found["doc_id"].is_unique
    assert found.equals(build_domain_corpus(pd.concat([corpus(60), corpus(60, "numpy")]), SETTINGS))


def test_test_documents_that_share_paragraphs_with_the_training_side_are_left_out() -> None:
    documents, budget = corpus(60), CorporaSettings(domain_train_characters=50_000, domain_test_characters=50_000)

    def after(header: str, among: slice = slice(None)) -> pd.DataFrame:
        changed = documents.copy()
        changed.loc[documents.index[among], "text"] = header + " " + documents["text"]
        return build_domain_corpus(changed, budget)

    words = corpus(61)["text"].iloc[-1].split()
    assert len(after(" ".join(words[:12]))) == 60  # no run of 13
    with pytest.raises(DataError, match="no test documents"):
        after(" ".join(words[:16]))  # four of the 34 runs of each
    some = after(" ".join(words[:16]), slice(0, 20))
    assert 40 < len(some) < 60
    sides = {split: list(side["text"]) for split, side in some.groupby("split")}
    assert overlap(sides["train"], sides["test"]) == 0


def test_code_is_left_out_of_the_packaged_text_only() -> None:
    code = corpus(40).assign(text=lambda table: ">>> f(" + table["doc_id"] + ")\n" + table["digest"])
    with pytest.raises(DataError, match="no train documents"):
        build_domain_corpus(code, SETTINGS)
    assert len(build_domain_corpus(code, SETTINGS, packaged=False)) > 10


def test_two_documents_are_enough_and_one_is_not() -> None:
    assert sorted(build_domain_corpus(corpus(2, "mine"), SETTINGS, packaged=False)["split"]) == ["test", "train"]
    with pytest.raises(DataError, match="give corpora.domain_source more files"):
        build_domain_corpus(corpus(1, "mine"), SETTINGS, packaged=False)
