"""A user's own files: text, JSON lines, BEIR and SQuAD layouts. What is wrong with a file is said with its line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pandas as pd

from curriculum.corpora.documents import document, documents_table, plain
from curriculum.errors import DataError

_TEXT = {".md", ".txt", ".rst"}


def _open(path: Path) -> IO[str]:
    if not path.exists():
        raise DataError(f"{path} does not exist; correct the path: source in the profile")
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def iter_jsonl(path: Path, required: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file (``.gz`` too).

    Raises:
        DataError: a missing file, a line that is no JSON object, a missing field, or bytes that are not UTF-8; the line's
            number is in the message.
    """
    number = 0
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield _record(line, path, number, required)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number + 1}: not UTF-8 ({error.reason}); save the file as UTF-8") from error


def _record(line: str, path: Path, number: int, required: tuple[str, ...]) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: malformed JSON ({error.msg}); correct or remove the line") from error
    missing = [name for name in required if not isinstance(record, dict) or name not in record]
    if missing:
        raise DataError(f"{path}, line {number}: no field {', '.join(map(repr, missing))}; every line needs {', '.join(required)}")
    return record


def read_text(path: Path) -> str:
    """A UTF-8 text file, cleaned.

    Raises:
        DataError: the bytes are not UTF-8.
    """
    try:
        return plain(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error


def read_documents(path: Path) -> pd.DataFrame:
    """A documents table from a folder of .md, .txt, .rst and .jsonl files, or from one such file.

    Raises:
        DataError: a missing path, no text in it, a broken file, or an id that stands twice.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; correct the path: source in the profile")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in _TEXT | {".jsonl"} and p.is_file())
    rows: list[dict[str, str]] = []
    for file in files:
        name = file.name if file == path else str(file.relative_to(path))
        if file.suffix == ".jsonl":
            for index, record in enumerate(iter_jsonl(file, ("text",))):
                key = str(record.get("_id", record.get("id", f"{name}#{index}")))
                rows.append(document(key, str(record.get("title", "")), plain(record["text"]), source=file.stem))
        elif text := read_text(file):
            rows.append(document(name, file.stem, text, source=file.stem))
    return documents_table([r for r in rows if r["text"]], str(path))


@dataclass(frozen=True)
class Beir:
    """A retrieval set: corpus (doc_id, title, text), queries (query_id, text), qrels (split, query_id, doc_id, grade)."""

    name: str
    corpus: pd.DataFrame
    queries: pd.DataFrame
    qrels: pd.DataFrame


def read_beir(folder: Path) -> Beir:
    """A BEIR folder: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv (Thakur et al., 2021).

    Raises:
        DataError: a missing or broken file, an empty corpus, an id that stands twice, or qrels that name what is not there.
    """
    records = iter_jsonl(folder / "corpus.jsonl", ("_id", "text"))
    corpus = pd.DataFrame([{"doc_id": str(r["_id"]), "title": r.get("title") or "", "text": r["text"]} for r in records])
    asked = iter_jsonl(folder / "queries.jsonl", ("_id", "text"))
    queries = pd.DataFrame([{"query_id": str(r["_id"]), "text": r["text"]} for r in asked])
    for table, key, file in ((corpus, "doc_id", "corpus.jsonl"), (queries, "query_id", "queries.jsonl")):
        if table.empty:
            raise DataError(f"{folder / file} is empty; it needs one JSON object a line")
        twice = table.loc[table[key].duplicated(), key].unique()
        if len(twice):
            raise DataError(f"{folder / file}: {len(twice)} ids stand twice ({', '.join(map(str, twice[:5]))}); make them unique")
    return Beir(folder.name, corpus, queries, _qrels(folder, set(queries["query_id"]), set(corpus["doc_id"])))


def _qrels(folder: Path, queries: set[str], documents: set[str]) -> pd.DataFrame:
    files = sorted((folder / "qrels").glob("*.tsv"))
    if not files:
        raise DataError(f"{folder / 'qrels'} holds no .tsv file; add test.tsv with query-id, corpus-id and score")
    rows = []
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            cells = line.split("\t")
            if number == 1 and not cells[-1].strip().lstrip("-").isdigit():
                continue  # the header
            if len(cells) != 3 or cells[0] not in queries or cells[1] not in documents:
                raise DataError(f"{file}, line {number}: expected a known query id, a known document id and a grade, got {line!r}")
            rows.append({"split": file.stem, "query_id": cells[0], "doc_id": cells[1], "grade": int(cells[2])})
    return pd.DataFrame(rows)


def read_squad(path: Path) -> pd.DataFrame:
    """QA examples from SQuAD v1 JSON: a file (.json, .json.gz), or every such file of a folder. ``split`` is left empty.

    Raises:
        DataError: no file, JSON of another shape, or an answer that does not stand at its offset.
    """
    files = [path] if path.is_file() else sorted([*path.glob("*.json"), *path.glob("*.json.gz")])
    if not files:
        raise DataError(f"{path} holds no SQuAD file (.json or .json.gz); correct the path: source in the profile")
    rows = [row for file in files for row in _squad_file(file)]
    if not rows:
        raise DataError(f"{path} holds no question; is it SQuAD v1.1 JSON?")
    return pd.DataFrame(rows).drop_duplicates("example_id", ignore_index=True)


def _squad_file(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with _open(file) as stream:
            articles = json.load(stream)["data"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{file} is not SQuAD JSON ({type(error).__name__}: {error}); it needs a top-level 'data' list") from error
    for article in articles:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield _squad_row(question, paragraph["context"], article.get("title", ""), file)


def _squad_row(question: dict[str, Any], context: str, title: str, file: Path) -> dict[str, Any]:
    answers = question.get("answers") or []
    for answer in answers:
        if context[answer["answer_start"] : answer["answer_start"] + len(answer["text"])] != answer["text"]:
            raise DataError(f"{file}: the answer of question {question['id']!r} does not stand at its answer_start")
    stem = file.name.split(".")[0]
    return {
        "example_id": str(question["id"]), "title": title, "context": context, "question": question["question"].strip(),
        "answers": [a["text"] for a in answers], "answer_starts": [int(a["answer_start"]) for a in answers],
        "group": f"{stem}/{title}", "split": "", "source": stem,
    }
