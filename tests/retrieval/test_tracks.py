"""Tracks: grades, splits, sampling, and sets of the user's own."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from curriculum.corpora.readers import Beir, read_beir
from curriculum.errors import DataError
from curriculum.retrieval.passages import beir_passages
from curriculum.retrieval.sets import retrieval_sets
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.retrieval.tracks import COLUMNS, build_tracks, known_item_track, notes_track, two_hop_track
from tests.retrieval.small import Searchable, table

NO_QUESTIONS = pd.DataFrame(columns=["kind"])


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    (folder / "qrels").mkdir(parents=True)
    docs = [{"_id": f"d{n}", "title": f"T{n}", "text": f"text {n}"} for n in range(4)]
    asked = [{"_id": f"q{n}", "text": f"question {n}"} for n in range(4)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, docs)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)))
    head = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "test.tsv").write_text(head + "q0\td0\t1\nq0\td1\t2\nq1\td1\t0\nq2\td2\t1\n")
    (folder / "qrels" / "train.tsv").write_text(head + "q3\td3\t1\n")
    return folder


def test_an_answering_passage_has_grade_2_and_its_section_1() -> None:
    own = table({"a#0": "the answer is 42", "a#1": "more of it", "a#2": "another section", "b#0": "42 too"})
    own = own.assign(doc_id=["a", "a", "a", "b"], section=["s", "s", "t", "s"], source="notes")
    question = {"question_id": "q", "note_id": "a", "question": "What?", "phrasings": ["Which?"], "kind": "answerable", "answers": ["42"]}
    asked = pd.DataFrame([question | {"difficulty": "easy", "split": "train"}, question | {"kind": "unanswerable"}])
    rows = notes_track(own, asked)
    assert [row["query_id"] for row in rows] == ["notes/q/0", "notes/q/1"] and {row["group"] for row in rows} == {"notes/q"}
    assert all(dict(zip(row["relevant_ids"], row["grades"], strict=True)) == {"a#0": 2, "a#1": 1} for row in rows)
    assert {row["split"] for row in rows} == {"dev"}


def test_a_two_hop_question_needs_both_places() -> None:
    passages = {"a#0": "the first hop is named here", "a#1": "other", "b#0": "it weighs 42 kg", "b#1": "42 kg again", "c#0": "it weighs 42 kg"}
    own = table(passages).assign(doc_id=["a", "a", "b", "b", "c"], source="notes")
    question = {
        "question_id": "t", "question": "How heavy?", "phrasings": ["What weight?"], "kind": "bridge", "answers": ["42 kg"],
        "note_ids": ["a", "b"], "spans": ["first hop is named", "weighs 42 kg"], "split": "dev",
    }
    cut = question | {"question_id": "cut", "spans": ["first hop is named there, and so on", "nowhere at all"]}
    rows = two_hop_track(own, pd.DataFrame([question, cut]))
    assert [row["query_id"] for row in rows] == ["two-hop/t/0", "two-hop/t/1"]  # of the other question one place is lost
    assert all(dict(zip(row["relevant_ids"], row["grades"], strict=True)) == {"a#0": 1, "b#0": 2} for row in rows)
    nearly = two_hop_track(own, pd.DataFrame([question | {"spans": ["first hop is named there", "weighs 42 kg"]}]))
    assert set(nearly[0]["relevant_ids"]) == {"a#0", "b#0"}  # a place cut by a passage's end is where most of it is


def test_a_known_item_is_its_first_passage() -> None:
    own = table({"project/f#0": "rest", "project/f#1": "of it", "project/g#0": "other"}).assign(doc_id=["f", "f", "g"])
    (row,) = known_item_track(own.assign(known_item_query=["what f does", "", ""]))
    assert row["query"] == "what f does" and row["relevant_ids"] == ["project/f#0", "project/f#1"] and row["grades"] == [2, 1]


def test_real_tracks_are_whole(searchable: Searchable) -> None:
    tracks = searchable.tracks
    assert list(tracks.columns) == COLUMNS and tracks["query_id"].is_unique and set(tracks["split"]) == {"dev", "test"}
    known = set(searchable.passages["passage_id"])
    assert all(known.issuperset(ids) and 2 in grades for ids, grades in zip(tracks["relevant_ids"], tracks["grades"], strict=True))
    notes_of = {split: set(rows.explode()) for split, rows in tracks.groupby("split")["doc_ids"]}
    assert not notes_of["dev"] & notes_of["test"]
    assert tracks.groupby("split").size().max() <= searchable.settings.max_queries
    assert (tracks.groupby("group").size() == 3).all()  # the phrasings of a question stay together


def test_a_beir_folder_is_a_collection_and_a_track(beir: Path) -> None:
    data = read_beir(beir)
    passages, tracks = beir_passages([data]), build_tracks(table({}), NO_QUESTIONS, NO_QUESTIONS, [data], 10)
    assert list(passages["passage_id"]) == [f"own/d{n}#0" for n in range(4)] and set(passages["collection"]) == {"own"}
    rows = {row.query_id: row for row in tracks.itertuples()}
    assert set(rows) == {"own/test/q0", "own/test/q2", "own/train/q3"}  # q1 has no relevant document
    assert list(rows["own/test/q0"].relevant_ids) == ["own/d0#0", "own/d1#0"] and list(rows["own/test/q0"].grades) == [1, 2]
    assert rows["own/train/q3"].split == "dev" and list(rows["own/test/q0"].doc_ids) == ["d0", "d1"]
    assert len(build_tracks(table({}), NO_QUESTIONS, NO_QUESTIONS, [data], 1)) == 2  # one a split


def test_nothing_to_ask_is_an_error() -> None:
    with pytest.raises(DataError, match="no query has a relevant passage"):
        build_tracks(table({"a": "b"}), NO_QUESTIONS, NO_QUESTIONS, [], 10)


def test_two_sets_of_one_name_are_refused(beir: Path) -> None:
    sets = retrieval_sets(RetrievalSettings(collections=("path:own",)), lambda _: beir)
    assert [type(s) for s in sets] == [Beir] and sets[0].name == "own"
    with pytest.raises(DataError, match="own is taken"):
        retrieval_sets(RetrievalSettings(collections=("path:a/own", "path:b/own")), lambda _: beir)
    with pytest.raises(DataError, match="project is taken"):
        retrieval_sets(RetrievalSettings(collections=("path:project",)), lambda _: beir.rename(beir.parent / "project"))
