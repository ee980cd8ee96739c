"""A user's own files: text, JSON lines, BEIR and SQuAD layouts. What is wrong with a file is said with its line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pandas as pd

from curriculum.corpora.documents import document, documents_table, language_of, plain
from curriculum.errors import DataError
from curriculum.sources import refuse_links_out

_TEXT = (".md", ".txt", ".rst", ".md.gz", ".txt.gz", ".rst.gz")
_LINES = (".jsonl", ".jsonl.gz")
_UTF8_MARK, _UTF16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


def _present(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path} does not exist; correct the path: source in the profile")
    return path


def _contained(path: Path) -> Path:
    refuse_links_out(_present(path))
    return path


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _byte_lines(path: Path) -> Iterator[bytes]:
    """Lines as bytes, ended by line feeds alone: text may hold other characters that Unicode counts as line ends."""
    try:
        with _open(_present(path)) as stream:
            yield from stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a broken gzip file ({error}); copy it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); correct the path: source in the profile") from error


def _decoded(raw: bytes, place: str) -> str:
    try:
        return raw.removeprefix(_UTF8_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        guess = "it looks like UTF-16" if raw.startswith(_UTF16_MARKS) else f"byte {error.object[error.start]:#04x}"
        raise DataError(f"{place}: not UTF-8 ({guess}); save the file as UTF-8") from error


def iter_jsonl(path: Path, required: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file (``.gz`` too); empty lines are passed over.

    Raises:
        DataError: a missing file, a line that is no JSON object, a missing field, or bytes that are not UTF-8; the line's
            number is in the message.
    """
    for _, record in _numbered_jsonl(path, required):
        yield record


def _numbered_jsonl(path: Path, required: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, raw in enumerate(_byte_lines(path), 1):
        place = f"{path}, line {number}"
        line = _decoded(raw, place)
        if line.strip():
            yield number, _record(line, place, required)


def _record(line: str, place: str, required: tuple[str, ...]) -> dict[str, Any]:
    record = _parsed(line, place)
    if not isinstance(record, dict):
        raise DataError(f"{place}: expected a JSON object, got {type(record).__name__}; write one object a line")
    missing = [name for name in required if record.get(name) is None]
    if missing:
        raise DataError(f"{place}: no field {', '.join(map(repr, missing))}; every line needs {', '.join(required)}")
    return record


def _parsed(text: str, place: str, *, whole_file: bool = False) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{place}, line {error.lineno}" if whole_file else place
        raise DataError(f"{where}: malformed JSON ({error.msg} at column {error.colno}); correct or remove the line") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise DataError(f"{place}: JSON that is no data ({type(error).__name__}); correct or remove the line") from error


def _string(record: dict[str, Any], field: str, place: str) -> str:
    """A field as text. A whole number is accepted (ids often are); half a surrogate pair is not, nothing can store it."""
    value = record.get(field)
    if value is None:
        return ""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise DataError(f"{place}: field '{field}' is {type(value).__name__}; it must be text")
    text = str(value)
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise DataError(f"{place}: field '{field}' holds half a surrogate pair; write the whole character")
    return text


def read_text(path: Path) -> str:
    """A UTF-8 text file (``.gz`` too), cleaned.

    Raises:
        DataError: it is missing, or its bytes are not UTF-8 (the first such line is named).
    """
    lines = (_decoded(raw, f"{path}, line {number}") for number, raw in enumerate(_byte_lines(path), 1))
    return plain("".join(lines))


def read_documents(path: Path) -> pd.DataFrame:
    """A documents table from a folder of .md, .txt, .rst and .jsonl files (.gz too), or from one such file.

    A text file is one document, its id its path below the folder. A JSON line has ``text``, and may have ``title`` and an id
    (``doc_id``, ``_id`` or ``id``; else the file's name and the line's number).

    Raises:
        DataError: a missing path, no text in it, a broken file, or an id that stands twice.
        SourceError: a symbolic link leads out of the folder.
    """
    is_file = _contained(path).is_file()
    inside = [path] if is_file else sorted(p for p in path.rglob("*") if p.is_file())
    files = [p for p in inside if is_file or p.name.lower().endswith(_TEXT + _LINES)]
    rows: list[dict[str, str]] = []
    for file in files:
        name = file.name if is_file else file.relative_to(path).as_posix()
        if file.name.lower().endswith(_LINES):
            rows.extend(_json_documents(file, name))
        elif text := read_text(file):
            rows.append(document(name, _stem(file), text, source=_stem(file), language=language_of(text)))
    return documents_table(rows, str(path))


def _json_documents(file: Path, name: str) -> Iterator[dict[str, str]]:
    for number, record in _numbered_jsonl(file, ("text",)):
        place = f"{file}, line {number}"
        given = next((key for key in ("doc_id", "_id", "id") if record.get(key) is not None), "")
        text, title = plain(_string(record, "text", place)), _string(record, "title", place)
        if not text and not title:
            raise DataError(f"{place}: 'text' is empty; give the document text or remove the line")
        key = _string(record, given, place) if given else f"{name}#{number}"
        yield document(key, title, text or title, source=_stem(file), language=language_of(text or title))


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").rsplit(".", 1)[0]


@dataclass(frozen=True)
class Beir:
    """A retrieval set: corpus (doc_id, title, text), queries (query_id, text), qrels (split, query_id, doc_id, grade)."""

    name: str
    corpus: pd.DataFrame
    queries: pd.DataFrame
    qrels: pd.DataFrame

    @property
    def splits(self) -> list[str]:
        """The splits that have judgements, by name."""
        return sorted(self.qrels["split"].unique())


def read_beir(folder: Path) -> Beir:
    """A BEIR folder: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv (Thakur et al., 2021); the .jsonl files may be gzipped.

    Raises:
        DataError: a missing or broken file, an empty corpus, an id that stands twice, or qrels that name what is not there.
        SourceError: a symbolic link leads out of the folder.
    """
    refuse_links_out(folder)
    corpus = _beir_table(_beir_file(folder, "corpus.jsonl"), "doc_id", ("title", "text"))
    return Beir(folder.name, corpus, *read_judgements(folder, set(corpus["doc_id"])))


def read_judgements(folder: Path, documents: set[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The queries (query_id, text) and qrels (split, query_id, doc_id, grade) of a BEIR folder whose corpus has ``documents``.

    Raises:
        DataError: as :func:`read_beir`.
    """
    queries = _beir_table(_beir_file(folder, "queries.jsonl"), "query_id", ("text",))
    return queries, _qrels(folder, set(queries["query_id"]), documents)


def read_answers(folder: Path, queries: set[str]) -> dict[str, list[str]]:
    """The accepted answers of the queries of a BEIR folder by query_id, as its answers.jsonl says: lines of _id and a list ``answers``.

    A query whose list is empty has no answer in the corpus; one that is not listed is not asked.

    Raises:
        DataError: a missing or broken file, an id that stands twice or is not among ``queries``, or answers that are no list of words.
    """
    file, found = _beir_file(folder, "answers.jsonl"), dict[str, list[str]]()
    for number, record in _numbered_jsonl(file, ("_id", "answers")):
        place, given = f"{file}, line {number}", record["answers"]
        key = _string(record, "_id", place)
        if key not in queries or key in found:
            raise DataError(f"{place}: '{key}' {'stands twice' if key in found else 'is not in queries.jsonl'}; correct or remove the line")
        if not isinstance(given, list) or not all(isinstance(text, str) and text.strip() for text in given):
            raise DataError(f"{place}: 'answers' must be a list of the accepted answers, each some words; got {given!r}")
        found[key] = given
    if not found:
        raise DataError(f"{file} is empty; it needs one JSON object a line")
    return found


def _beir_file(folder: Path, name: str) -> Path:
    gzipped = folder / f"{name}.gz"
    return gzipped if gzipped.exists() and not (folder / name).exists() else folder / name


def _beir_table(file: Path, key: str, fields: tuple[str, ...]) -> pd.DataFrame:
    rows = []
    for number, record in _numbered_jsonl(file, ("_id", "text")):
        place = f"{file}, line {number}"
        rows.append({key: _string(record, "_id", place)} | {field: _string(record, field, place) for field in fields})
    if not rows:
        raise DataError(f"{file} is empty; it needs one JSON object a line")
    _refuse_repeats((row[key] for row in rows), str(file))
    return pd.DataFrame(rows)


def _refuse_repeats(ids: Iterable[str], origin: str) -> None:
    table = pd.Series(list(ids))
    twice = sorted(table[table.duplicated()].unique())
    if twice:
        raise DataError(f"{origin}: {len(twice)} ids stand more than once ({', '.join(twice[:5])}); make them unique")


def _qrels(folder: Path, queries: set[str], documents: set[str]) -> pd.DataFrame:
    files = sorted((folder / "qrels").glob("*.tsv"))
    if not files:
        raise DataError(f"{folder / 'qrels'} holds no .tsv file; add test.tsv with query-id, corpus-id and score")
    rows = []
    for file in files:
        for number, raw in enumerate(_byte_lines(file), 1):
            place = f"{file}, line {number}"
            cells = _decoded(raw, place).strip("\r\n").split("\t")
            if not any(cells) or (number == 1 and cells[0].lower().replace("_", "-") in {"query-id", "qid"}):
                continue
            rows.append({"split": file.stem, **_judgement(cells, queries, documents, place)})
    if not rows:
        raise DataError(f"{folder / 'qrels'} judges nothing; its .tsv files need lines of query-id, corpus-id and score")
    return pd.DataFrame(rows)


def _judgement(cells: list[str], queries: set[str], documents: set[str], place: str) -> dict[str, Any]:
    if len(cells) == 4:  # TREC's own layout has an unused second column
        cells = [cells[0], *cells[2:]]
    if len(cells) != 3 or not cells[2].strip().lstrip("-").isdecimal():
        raise DataError(f"{place}: expected query-id, corpus-id and a whole-number score between tabs, got {cells}")
    for cell, known, what in ((cells[0], queries, "queries"), (cells[1], documents, "corpus")):
        if cell not in known:
            raise DataError(f"{place}: '{cell}' is not in {what}.jsonl; add it there or remove the line")
    return {"query_id": cells[0], "doc_id": cells[1], "grade": int(cells[2])}


def read_squad(path: Path) -> pd.DataFrame:
    """QA examples from SQuAD v1 JSON: a file (.json, .json.gz), or every such file of a folder. ``split`` is left empty.

    Unanswerable questions of v2 have no answers. ``group`` is the article, so that splits can keep articles whole.

    Raises:
        DataError: no file, JSON of another shape, an answer that does not stand at its offset, or an id that stands twice.
        SourceError: a symbolic link leads out of the folder.
    """
    files = [path] if _contained(path).is_file() else sorted([*path.glob("*.json"), *path.glob("*.json.gz")])
    if not files:
        raise DataError(f"{path} holds no SQuAD file (.json or .json.gz); correct the path: source in the profile")
    rows = [row for file in files for row in _squad_file(file)]
    if not rows:
        raise DataError(f"{path} holds no question; is it SQuAD v1.1 JSON?")
    _refuse_repeats((row["example_id"] for row in rows), str(path))
    return pd.DataFrame(rows)


def _squad_file(file: Path) -> Iterator[dict[str, Any]]:
    content = _parsed(_decoded(b"".join(_byte_lines(file)), str(file)), str(file), whole_file=True)
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise DataError(f"{file} is not SQuAD JSON; it needs a top-level 'data' list of articles")
    for number, article in enumerate(content["data"]):
        try:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    yield _squad_row(question, paragraph["context"], article.get("title") or f"article {number}", file)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file}, article {number}: not of SQuAD's shape ({type(error).__name__}: {error})") from error


def _squad_row(question: dict[str, Any], context: str, title: str, file: Path) -> dict[str, Any]:
    answers = question.get("answers") or []
    for answer in answers:
        start = answer["answer_start"]
        if start < 0 or context[start : start + len(answer["text"])] != answer["text"]:
            place = f"{file}: question {question['id']!r}"
            raise DataError(f"{place}: an answer does not stand at its answer_start; correct the offset")
    stem = _stem(file)
    return {
        "example_id": str(question["id"]), "title": title, "context": context, "question": question["question"].strip(),
        "answers": [a["text"] for a in answers], "answer_starts": [int(a["answer_start"]) for a in answers],
        "group": f"{stem}/{title}", "split": "", "source": stem,
    }
