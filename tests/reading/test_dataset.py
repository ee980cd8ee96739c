"""The QA dataset: exact spans, no group on two sides, and a user's own files."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from curriculum.corpora.documents import document, documents_table, first_sentence
from curriculum.corpora.notes import load_notes, load_questions
from curriculum.errors import DataError
from curriculum.reading.dataset import build_qa_dataset, documentation_examples, hub_examples, leaked_groups, notes_examples, sample
from curriculum.reading.questions import ask
from curriculum.reading.settings import ReaderSettings

NOTES = Path(__file__).parents[2] / "notes"
DOC = """Return the absolute value of the argument.

Parameters
----------
axis : int, default=0
    The axis along which to work.
x : array-like of shape (n,)
    The numbers.

Raises ValueError if the axis is out of bounds for the array.
"""


def test_the_rules_find_exact_spans() -> None:
    found = {a.kind: (a.question, DOC[a.start : a.end]) for a in ask("numpy.absolute", DOC, first_sentence(DOC))}
    assert found["returns"] == ("What does numpy.absolute return?", "the absolute value of the argument")
    assert found["default"] == ("What is the default of axis in numpy.absolute?", "0")
    assert found["type"] == ("What is the type of the parameter x of numpy.absolute?", "array-like of shape (n,)")
    assert found["raises"][1] == "ValueError" and "out of bounds" in found["raises"][0]


def documents() -> pd.DataFrame:
    rows = []
    for module in range(40):
        for name in ("first", "second"):
            text = DOC.replace("absolute", f"{name} {module}")
            rows.append(document(f"lib/m{module}.{name}", f"m{module}.{name}", text, module=f"m{module}", kind="function",
                                 qualified_name=f"m{module}.{name}", summary=first_sentence(text), source="lib"))  # fmt: skip
    return documents_table(rows, "test")


def exact(frame: pd.DataFrame) -> bool:
    return all(
        row.context[start : start + len(answer)] == answer
        for row in frame.itertuples()
        for start, answer in zip(row.answer_starts, row.answers, strict=True)
    )


def test_every_answer_stands_where_it_says_and_no_group_is_on_two_sides() -> None:
    notes = load_notes(NOTES)
    frame = pd.DataFrame([*notes_examples(notes, load_questions(NOTES, notes)), *documentation_examples(documents(), seed=0)])
    assert exact(frame) and len(frame) > 300 and leaked_groups(frame) == 0
    assert frame["example_id"].is_unique
    assert set(frame.loc[frame["source"] == "notes", "split"]) == {"train", "dev", "test"}


def test_the_budget_holds_and_a_leak_is_refused() -> None:
    frame = pd.DataFrame(documentation_examples(documents(), seed=0))
    small = ReaderSettings(train_examples=20, dev_examples=5, test_examples=7)
    assert sample(frame, small).groupby("split").size().to_dict() == {"train": 20, "dev": 5, "test": 7}
    leaked = frame.assign(group="one")
    with pytest.raises(DataError, match="stand on two splits"):
        sample(leaked, small)
    with pytest.raises(DataError, match="no questions on the dev side"):
        sample(frame[frame["split"] != "dev"], small)


def squad(path: Path, titles: list[str]) -> None:
    data = [
        {"title": t, "paragraphs": [{"context": f"{t} is red.", "qas": [
            {"id": f"{t}-{i}", "question": "What color?", "answers": [{"text": "red", "answer_start": len(t) + 4}]} for i in range(3)]}]}
        for t in titles
    ]  # fmt: skip
    path.write_text(json.dumps({"version": "1.1", "data": data}))


def test_a_users_squad_files_replace_the_packaged_questions(tmp_path: Path) -> None:
    squad(tmp_path / "train.json", [f"a{i}" for i in range(60)])
    squad(tmp_path / "test.json", [f"b{i}" for i in range(20)])
    settings = ReaderSettings(train_source=f"path:{tmp_path / 'train.json'}", test_source=f"path:{tmp_path / 'test.json'}")
    sources = {"train": tmp_path / "train.json", "test": tmp_path / "test.json"}
    empty = pd.DataFrame()
    frame = build_qa_dataset(empty, empty, empty, settings, seed=0, sources=sources)
    assert exact(frame) and leaked_groups(frame) == 0
    assert set(frame.loc[frame["split"] == "test", "source"]) == {"test"} and set(frame["split"]) == {"train", "dev", "test"}
    alone = build_qa_dataset(empty, empty, empty, settings, seed=0, sources={"train": tmp_path / "train.json"})
    assert set(alone["source"]) == {"train"} and set(alone["split"]) == {"train", "dev", "test"}


def test_half_of_the_test_articles_can_be_trained_on_and_are_then_not_tested_on(tmp_path: Path) -> None:
    squad(tmp_path / "train.json", [f"a{i}" for i in range(40)])
    squad(tmp_path / "test.json", [f"b{i}" for i in range(40)])
    sources = {side: tmp_path / f"{side}.json" for side in ("train", "test")}
    settings = ReaderSettings(train_source=f"path:{sources['train']}", test_source=f"path:{sources['test']}", in_domain_share=0.5)
    frame = build_qa_dataset(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), settings, seed=0, sources=sources)
    articles = frame[frame["source"] == "test"].groupby("split")["group"].nunique()
    assert leaked_groups(frame) == 0 and articles.sum() == 40 and articles["train"] >= 12 and articles["test"] >= 12
    with pytest.raises(ValidationError, match="takes articles from test_source"):
        ReaderSettings(train_source=f"path:{sources['train']}", in_domain_share=0.5)


def test_a_dataset_in_the_hubs_layout_is_read(tmp_path: Path) -> None:
    rows = {"id": ["1"], "title": ["t"], "context": ["It is red."], "question": ["What?"], "answers": [{"text": ["red"], "answer_start": [6]}]}
    pd.DataFrame(rows).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    frame = hub_examples(tmp_path, "train")
    assert exact(frame) and frame.loc[0, "group"] == "squad/t"
