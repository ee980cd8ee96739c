"""Questions on a collection of the user's own: read with their answers, and answered over its documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from curriculum.errors import DataError
from curriculum.rag.questions import asked_questions
from curriculum.rag.report import reference_ids
from curriculum.rag.settings import RagSettings
from curriculum.retrieval.settings import RetrievalSettings

NOTES = pd.DataFrame(
    {"question_id": ["n1"], "note_id": ["note"], "question": ["What?"], "kind": ["answerable"], "answers": [["that"]], "split": ["test"]}
)
TEXTS = {"rome": "Rome has seven hills.", "rome-more": "There are seven hills in Rome.", "oslo": "Oslo has a fjord."}
QUERIES = {"hills": "How many hills has Rome?", "water": "What has Oslo?", "moon": "What has the moon?", "unasked": "Why?"}
ANSWERS = {"hills": ["seven", "7"], "water": ["a fjord"], "moon": []}
JUDGED = {
    "dev": [("hills", "rome", 1), ("water", "oslo", 1)],
    "test": [("hills", "rome-more", 2), ("hills", "oslo", 0), ("moon", "oslo", 1), ("unasked", "rome", 1)],
}


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def cities(tmp_path: Path) -> Path:
    folder = tmp_path / "cities"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(lines([{"_id": i, "title": i, "text": text} for i, text in TEXTS.items()]))
    (folder / "queries.jsonl").write_text(lines([{"_id": i, "text": text} for i, text in QUERIES.items()]))
    (folder / "answers.jsonl").write_text(lines([{"_id": i, "answers": given} for i, given in ANSWERS.items()]))
    for split, rows in JUDGED.items():
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t{g}\n" for q, d, g in rows))
    return folder


@pytest.fixture
def ask(cities: Path) -> Callable[..., pd.DataFrame]:
    retrieval = RetrievalSettings(collections=("path:cities",))
    return lambda name="cities": asked_questions(NOTES, RagSettings(collection=name), retrieval, lambda uri: cities.parent / uri[5:])


def test_the_projects_own_collection_is_asked_what_its_notes_answer(ask: Callable[..., pd.DataFrame]) -> None:
    assert ask("project").to_dict("records") == [NOTES.to_dict("records")[0] | {"documents": ["note"]}]


def test_a_collections_queries_come_with_their_answers_and_documents(ask: Callable[..., pd.DataFrame]) -> None:
    found = ask().set_index("question_id")
    assert list(found.index) == ["hills", "moon", "water"]  # what has no answers listed is not asked
    assert found.loc["hills", "documents"] == ["rome-more", "rome"]  # the better judged first, and none of grade 0
    assert found.loc["hills", "note_id"] == "rome-more" and found.loc["hills", "answers"] == ["seven", "7"]
    assert found["kind"].to_dict() == {"hills": "answerable", "moon": "unanswerable", "water": "answerable"}
    assert found["split"].to_dict() == {"hills": "test", "moon": "test", "water": "dev"}  # one judged on both sides is a test question


def test_the_answer_may_stand_in_any_of_the_documents(ask: Callable[..., pd.DataFrame]) -> None:
    passages = pd.DataFrame([{"passage_id": f"{i}#0", "doc_id": i, "text": text} for i, text in TEXTS.items()])
    rows = ask().rename(columns={"answers": "gold"})
    assert reference_ids(rows, passages) == [["rome-more#0", "rome#0"], [], ["oslo#0"]]


def test_another_name_is_one_clear_error(ask: Callable[..., pd.DataFrame]) -> None:
    with pytest.raises(DataError, match=r"rag.collection is 'towns', and the folders under retrieval.collections are cities: .*'project'"):
        ask("towns")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"_id": "hills", "answers": ["six"]}', "line 4: 'hills' stands twice"),
        ('{"_id": "lakes", "answers": ["six"]}', "line 4: 'lakes' is not in queries.jsonl"),
        ('{"_id": "unasked", "answers": "six"}', "line 4: 'answers' must be a list"),
        ('{"_id": "unasked", "answers": [" "]}', "line 4: 'answers' must be a list"),
        ('{"_id": "unasked"}', "line 4: no field 'answers'"),
    ],
)
def test_broken_answers_name_their_line(ask: Callable[..., pd.DataFrame], cities: Path, line: str, said: str) -> None:
    file = cities / "answers.jsonl"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(DataError, match=said):
        ask()


def test_a_collection_without_a_judged_answer_is_refused(ask: Callable[..., pd.DataFrame], cities: Path) -> None:
    (cities / "answers.jsonl").write_text('{"_id": "unasked", "answers": ["because"]}\n')
    (cities / "qrels" / "test.tsv").write_text("unasked\trome\t0\n")
    with pytest.raises(DataError, match="no query of 'cities' has both an answer"):
        ask()
