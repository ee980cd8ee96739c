"""The parser of every kind of file, by the end of its name, and the one way to use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from curriculum.errors import MemoryLimitError
from curriculum.ingest.reading import Broken, Parsed, Unreadable
from curriculum.ingest.settings import CorpusSettings
from curriculum.ingest.tables import csv_file, jsonl_file, parquet_file
from curriculum.ingest.texts import docx_file, html_file, markdown_file, pdf_file, text_file


@dataclass(frozen=True)
class Parser:
    """``read`` gives the documents of a file, and what in it is broken; ``many`` says that its rows are documents."""

    kind: str
    read: Callable[[Path, CorpusSettings], Iterator[Parsed | Broken]]
    many: bool = False


_MARKDOWN, _TEXT, _HTML = Parser("markdown", markdown_file), Parser("text", text_file), Parser("html", html_file)
_JSONL, _CSV = Parser("jsonl", jsonl_file, many=True), Parser("csv", csv_file, many=True)
PARSERS: dict[str, Parser] = {
    ".md": _MARKDOWN, ".markdown": _MARKDOWN, ".txt": _TEXT, ".rst": _TEXT, ".html": _HTML, ".htm": _HTML, ".xhtml": _HTML,
    ".jsonl": _JSONL, ".ndjson": _JSONL, ".csv": _CSV, ".tsv": _CSV,
    ".pdf": Parser("pdf", pdf_file), ".docx": Parser("docx", docx_file), ".parquet": Parser("parquet", parquet_file, many=True),
}  # fmt: skip
_PACKED = {"markdown", "text", "html", "jsonl", "csv"}


def parser_of(name: str) -> Parser | None:
    """The parser of a file called ``name``; text and rows of text may end in .gz too. None where there is none."""
    lowered = name.lower()
    packed = lowered.endswith(".gz")
    found = PARSERS.get(Path(lowered.removesuffix(".gz")).suffix)
    return found if found and (not packed or found.kind in _PACKED) else None


def parse(path: Path, limits: CorpusSettings) -> Iterator[Parsed | Broken]:
    """The documents of a file, and what of it is left out: a file that no parser can read is one :class:`Broken`.

    Only running out of memory is raised: files come from anywhere, and a broken one makes its library raise anything.
    """
    parser = parser_of(path.name)
    assert parser is not None, path
    seen: set[str] = set()
    try:
        for item in parser.read(path, limits):
            yield _judged(item, parser, seen, limits) if isinstance(item, Parsed) else item
    except Unreadable as error:
        yield Broken(str(error))
    except (MemoryError, MemoryLimitError):
        raise
    except Exception as error:
        said = str(error).strip().splitlines()
        yield Broken(f"{type(error).__name__}: {said[0][:160]}" if said else type(error).__name__)


def _judged(item: Parsed, parser: Parser, seen: set[str], limits: CorpusSettings) -> Parsed | Broken:
    if not item.text.strip():
        return Broken("no text", item.place)
    if len(item.text) > limits.max_characters:
        return Broken(f"more than corpus.max_characters={limits.max_characters} characters", item.place)
    if parser.many:
        if item.key in seen:
            return Broken(f"the id '{item.key[:60]}' stands twice", item.place)
        seen.add(item.key)
    return item
