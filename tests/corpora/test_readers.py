"""Every bad input has one clear error that names the file, and the line where there is one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curriculum.corpora.documents import COLUMNS, text_digest
from curriculum.corpora.readers import iter_jsonl, read_beir, read_documents, read_squad
from curriculum.errors import DataError

GOOD = '{"_id": "a", "title": "A", "text": "first text"}'


def lines(path: Path, *rows: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(row.encode() if isinstance(row, str) else row for row in rows) + b"\n")
    return path


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"text": "cut off', r"line 3: malformed JSON"),
        ("[1, 2]", r"line 3: expected a JSON object, got list"),
        ('{"title": "no text"}', r"line 3: no field 'text'"),
        ('{"text": null}', r"line 3: no field 'text'"),
        ('{"text": ["a"]}', r"line 3: field 'text' is list; it must be text"),
        ('{"text": "half \\ud83d"}', r"line 3: field 'text' holds half a surrogate pair"),
        ('{"text": "  "}', r"line 3: 'text' is empty"),
        (b'{"text": "caf\xe9"}', r"line 3: not UTF-8 \(byte 0xe9\)"),
        ("[" * 100_000, r"line 3: JSON that is no data"),
        ('{"text": ' + "9" * 5000 + "}", r"line 3: JSON that is no data"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, bad: str | bytes, message: str) -> None:
    path = lines(tmp_path / "docs.jsonl", GOOD, "", bad, GOOD)
    with pytest.raises(DataError, match=message) as caught:
        read_documents(path)
    assert "docs.jsonl" in str(caught.value) and "\n" not in str(caught.value)


def test_the_number_is_right_far_into_a_file(tmp_path: Path) -> None:
    rows: list[str | bytes] = [json.dumps({"text": f"text {i} " * 50}) for i in range(3000)]
    with pytest.raises(DataError, match=r"line 3001: not UTF-8"):
        list(iter_jsonl(lines(tmp_path / "long.jsonl", *rows, b'{"text": "\xff"}', *rows)))


def test_missing_path(tmp_path: Path) -> None:
    for read in (read_documents, read_squad):
        with pytest.raises(DataError, match=r"nowhere does not exist; correct the path"):
            read(tmp_path / "nowhere")


def test_empty_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no documents"):
        read_documents(tmp_path)
    (tmp_path / "blank.txt").write_text(" \n\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="holds no documents"):
        read_documents(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "cp1251", "latin-1"])
def test_wrong_encoding(tmp_path: Path, encoding: str) -> None:
    text = "Первая строка\n" if encoding != "latin-1" else "caf\u00e9\n"
    (tmp_path / "page.txt").write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=r"page.txt, line 1: not UTF-8 .*save the file as UTF-8"):
        read_documents(tmp_path)


def test_duplicate_ids_are_named(tmp_path: Path) -> None:
    lines(tmp_path / "one.jsonl", GOOD)
    lines(tmp_path / "two.jsonl", GOOD, '{"id": "b", "text": "second"}')
    with pytest.raises(DataError, match=r"1 ids more than once \(a\)"):
        read_documents(tmp_path)


def test_broken_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(GOOD.encode() * 1000)
    for name, raw in (("cut.jsonl.gz", whole[: len(whole) // 2]), ("none.jsonl.gz", b"plain text")):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(DataError, match=f"{name} is a broken gzip file"):
            list(iter_jsonl(tmp_path / name))


def test_documents_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "page.md").write_bytes("\ufeff# Заголовок\r\n\r\nТекст страницы.  \r\n".encode())
    (tmp_path / "notes.txt.gz").write_bytes(gzip.compress(b"zipped text"))
    lines(tmp_path / "rows.jsonl", GOOD, '{"id": 7, "text": "a\u2028b"}', '{"text": "nameless"}')
    table = read_documents(tmp_path)
    assert list(table.columns) == COLUMNS
    assert list(table["doc_id"]) == ["7", "a", "deep/page.md", "notes.txt.gz", "rows.jsonl#3"]
    page = table.set_index("doc_id").loc["deep/page.md"]
    assert (page["text"], page["language"], page["source"]) == ("# Заголовок\n\nТекст страницы.", "ru", "page")
    assert table["text"][0] == "a\u2028b", "only a line feed ends a JSON line"
    assert all(text_digest(t) == d for t, d in zip(table["text"], table["digest"], strict=True))
    assert read_documents(tmp_path / "rows.jsonl")["doc_id"].tolist() == ["7", "a", "rows.jsonl#3"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=60))
def test_no_bytes_raise_anything_but_a_data_error(tmp_path: Path, raw: bytes) -> None:
    for name in ("fuzz.jsonl", "fuzz.txt", "fuzz.json"):
        (tmp_path / name).write_bytes(raw)
        try:
            table = (read_squad if name.endswith(".json") else read_documents)(tmp_path / name)
        except DataError as error:
            assert name in str(error)
        else:
            assert len(table) > 0


def beir(folder: Path, corpus: tuple[str, ...] = (GOOD,), queries: tuple[str, ...] = ('{"_id": "q", "text": "what"}',)) -> Path:
    lines(folder / "corpus.jsonl", *corpus)
    lines(folder / "queries.jsonl", *queries)
    lines(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore", "q\ta\t1")
    return folder


def test_beir(tmp_path: Path) -> None:
    lines(beir(tmp_path / "set") / "qrels" / "dev.tsv", "q\t0\ta\t2")
    found = read_beir(tmp_path / "set")
    assert (found.name, found.splits, found.corpus["text"].tolist()) == ("set", ["dev", "test"], ["first text"])
    assert found.qrels.to_dict("records") == [
        {"split": "dev", "query_id": "q", "doc_id": "a", "grade": 2}, {"split": "test", "query_id": "q", "doc_id": "a", "grade": 1}
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("q\tz\t1", r"line 2: 'z' is not in corpus.jsonl"), ("z\ta\t1", r"line 2: 'z' is not in queries.jsonl"),
        ("q\ta\thigh", r"line 2: expected query-id"), ("q a 1", r"line 2: expected query-id"),
        (b"q\t\xff\t1", r"line 2: not UTF-8"),
    ],
)
def test_beir_judgements_that_name_nothing(tmp_path: Path, row: str | bytes, message: str) -> None:
    lines(beir(tmp_path) / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore", row)
    with pytest.raises(DataError, match=message):
        read_beir(tmp_path)


def test_beir_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corpus.jsonl: 1 ids stand more than once \(a\)"):
        read_beir(beir(tmp_path / "twice", (GOOD, GOOD)))
    (beir(tmp_path / "empty") / "queries.jsonl").write_text("")
    with pytest.raises(DataError, match=r"queries.jsonl is empty"):
        read_beir(tmp_path / "empty")
    (beir(tmp_path / "unjudged") / "qrels" / "test.tsv").unlink()
    with pytest.raises(DataError, match=r"qrels holds no .tsv"):
        read_beir(tmp_path / "unjudged")


def squad(*, start: int = 4, identity: str = "1", text: str = "cat") -> dict[str, Any]:
    answer = {"text": text, "answer_start": start}
    return {"data": [{"title": "T", "paragraphs": [{"context": "the cat sat", "qas": [
        {"id": identity, "question": " who? ", "answers": [answer]}, {"id": identity + "x", "question": "why?", "answers": []}]}]}]}


def test_squad(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(squad()))
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(json.dumps(squad(identity="2")).encode()))
    table = read_squad(tmp_path)
    assert table["example_id"].tolist() == ["1", "1x", "2", "2x"]
    row = table.iloc[0]
    assert row["context"][row["answer_starts"][0] :].startswith(row["answers"][0]) and row["question"] == "who?"
    assert table["group"].tolist() == ["a/T", "a/T", "b/T", "b/T"] and table["answers"][1] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(squad(start=5)), "question '1': an answer does not stand at its answer_start"),
        (json.dumps(squad(start=-7)), "does not stand at its answer_start"),
        ('{"data": [\n{"title"', r"line 2: malformed JSON"),
        ("[]", "top-level 'data' list"),
        ('{"data": []}', "holds no question"),
        ('{"data": [{"title": "T"}]}', r"article 0: not of SQuAD's shape \(KeyError"),
        ('{"data": [3]}', "article 0: not of SQuAD's"),
    ],
)
def test_bad_squad(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_squad(tmp_path / "train.json")


def test_squad_ids_that_stand_twice(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(squad()))
    with pytest.raises(DataError, match=r"2 ids stand more than once \(1, 1x\)"):
        read_squad(tmp_path)
