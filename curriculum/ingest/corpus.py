"""A folder as a corpus: its documents from its files, and their passages, made again only where a file or a document changed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curriculum.artifacts import DirectoryArtifact
from curriculum.code_version import code_version
from curriculum.corpora.documents import language_of, text_digest
from curriculum.errors import DataError
from curriculum.ingest.chunks import SCHEMA as PASSAGES
from curriculum.ingest.parts import Parts, Unit, read_batches
from curriculum.ingest.reading import Broken
from curriculum.ingest.settings import CorpusSettings
from curriculum.sources import refuse_links_out
from curriculum.storage import digest_of, file_sha256

DOCUMENTS = pa.schema([
    ("doc_id", pa.string()), ("path", pa.string()), ("title", pa.string()), ("text", pa.string()), ("kind", pa.string()),
    ("place", pa.string()), ("pages", pa.list_(pa.int64())), ("lines", pa.bool_()), ("language", pa.string()), ("digest", pa.string()),
])  # fmt: skip
Previous = Callable[[str], Path | None]
_FILES_A_PART, _DOCUMENTS_A_PART = 100, 250
_LIBRARIES = ("pypdf", "python-docx", "lxml", "charset-normalizer", "pyarrow")
_BEIR_CORPUS, _BEIR_QUERIES = ("corpus.jsonl", "corpus.jsonl.gz"), ("queries.jsonl", "queries.jsonl.gz")


def is_beir(folder: Path) -> bool:
    """Whether the folder has BEIR's layout with queries and judgements: it is then measured by those."""
    there = [any((folder / name).exists() for name in names) for names in (_BEIR_CORPUS, _BEIR_QUERIES)]
    return all(there) and any((folder / "qrels").glob("*.tsv"))


def scan(folder: Path) -> list[tuple[str, str]]:
    """(path below the folder, why it is left out or "") of every file, by path; hidden ones are not looked at.

    Raises:
        DataError: the source is no folder, or holds no file.
        SourceError: a symbolic link leads out of it.
    """
    from curriculum.ingest.parsers import parser_of

    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name the folder that holds the documents in corpus.path")
    refuse_links_out(folder)
    judged, found = is_beir(folder), []
    for parent, folders, files in os.walk(folder):  # a link to a folder is not followed
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(parent, name) for name in files if not name.startswith(".")):
            name = path.relative_to(folder).as_posix()
            if judged and (name in _BEIR_QUERIES or name.startswith("qrels/")):
                found.append((name, "the queries and judgements of the corpus"))
            elif path.is_file():
                found.append((name, "" if parser_of(path.name) else f"no parser for {path.suffix or 'a name without suffix'}"))
    if not found:
        raise DataError(f"{folder} holds no files; name the folder that holds the documents in corpus.path")
    return sorted(found)


def parsed(folder: Path, unit: Unit, settings: CorpusSettings, raw_ids: bool) -> Iterator[dict[str, Any] | Broken]:
    """The documents of one file, as rows of :data:`DOCUMENTS`, and what in it is broken. ``raw_ids``: a row keeps the id that it gives."""
    from curriculum.ingest.parsers import parse, parser_of

    parser = parser_of(unit.key)
    if unit.note or parser is None:
        return
    for item in parse(folder / unit.key, settings):
        if isinstance(item, Broken):
            yield item
            continue
        doc_id = unit.key if not parser.many else item.key if raw_ids else f"{unit.key}#{item.key}"
        yield {
            "doc_id": doc_id, "path": unit.key, "title": item.title, "text": item.text, "kind": parser.kind, "place": item.place,
            "pages": list(item.pages), "lines": item.lines, "language": language_of(item.text[:20_000]),
            "digest": text_digest(f"{item.title}\n{item.text}"), "note": item.note,
        }  # fmt: skip


def build_documents(
    folder: Path, settings: CorpusSettings, out: Path, *, previous: Previous, checkpoints: Path, progress: Callable[[str], None]
) -> DirectoryArtifact:
    """The documents of the folder, in parts, and the list of its files with what was left out and why (``units.parquet``).

    ``previous`` finds an earlier version that was read in the same way: a file with the same path and contents is not parsed again.

    Raises:
        DataError: no document, or more broken files and rows than ``max_broken``; the first are named.
        SourceError: a symbolic link leads out of the folder.
    """
    beir, files = is_beir(folder), scan(folder)
    how = digest_of([code_version(parsed), [version(name) for name in _LIBRARIES], beir, settings.model_dump(exclude={"path", "max_broken"})])[:20]
    parts = Parts(
        DOCUMENTS, lambda unit: parsed(folder, unit, settings, beir), how=how, earlier=previous(how), checkpoints=checkpoints,
        size=_FILES_A_PART, max_problems=settings.max_broken, progress=lambda line: progress(f"files {line}"),
    )  # fmt: skip
    tally = parts.write(_files(folder, files), out, len(files))
    listing = pq.read_table(out / "units.parquet", columns=["key", "rows", "note", "problems"]).to_pylist()
    broken = [f"{unit['key']}: {said}" for unit in listing for said in unit["problems"]]
    if not tally.rows:
        raise DataError(f"{folder} holds no documents; {'; '.join(broken[:5]) or 'no file in it can be read'}")
    left = Counter(unit["note"] for unit in listing if not unit["rows"] and not unit["problems"])
    facts = {
        "how": how, "name": settings.name, "beir": beir, "documents": tally.rows, "files": tally.units, "parsed": tally.made,
        "unchanged": tally.kept, "resumed": tally.resumed, "broken": broken[:50], "broken_count": tally.problems, "left_out": dict(left),
    }  # fmt: skip
    return DirectoryArtifact(out, facts)


def _files(folder: Path, files: list[tuple[str, str]]) -> Iterator[Unit]:
    from curriculum.ingest.parsers import parser_of

    for name, reason in files:
        path, parser = folder / name, parser_of(name)
        digest = "" if reason else f"{path.stat().st_size}-{file_sha256(path)}"
        yield Unit(name, digest, note=reason, alone=bool(parser and parser.many and not reason))


def build_passages(
    documents: DirectoryArtifact, words: int, out: Path, *, previous: Previous, checkpoints: Path, progress: Callable[[str], None]
) -> DirectoryArtifact:
    """The passages of the documents, in parts. A corpus with judgements keeps its documents whole, as published scores are measured.

    ``previous`` finds an earlier version that was cut in the same way: a document that is unchanged is not cut again.
    """
    from curriculum.ingest.chunks import passages_of

    name, words = documents.facts["name"], 0 if documents.facts["beir"] else words
    how = digest_of([code_version(build_passages), name, words])[:20]
    parts = Parts(
        PASSAGES, lambda unit: passages_of(unit.what, name, words), how=how, earlier=previous(how), checkpoints=checkpoints,
        size=_DOCUMENTS_A_PART, max_problems=0, progress=lambda line: progress(f"documents {line}"),
    )  # fmt: skip
    units = (
        Unit(row["doc_id"], digest_of([row["digest"], row["path"], row["place"], row["kind"]]), row)
        for batch in read_batches(documents.path, size=64)
        for row in batch.to_dict("records")
    )
    tally = parts.write(units, out, documents.facts["documents"])
    facts = {"name": name, "beir": documents.facts["beir"], "documents": tally.units, "passages": tally.rows, "words": words}
    return DirectoryArtifact(out, facts | {"how": how, "cut": tally.made, "unchanged": tally.kept, "resumed": tally.resumed})
