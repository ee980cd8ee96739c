"""Parsers of files whose rows are documents: JSON lines, CSV, Parquet. One row is in memory at a time, and a broken one is left out alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curriculum.corpora.documents import plain
from curriculum.ingest.reading import MIB, Broken, Parsed, Unreadable, byte_lines, encoding_of
from curriculum.ingest.settings import CorpusSettings

_IDS = ("doc_id", "_id", "id")
_SAMPLE = 100_000


def jsonl_file(path: Path, limits: CorpusSettings) -> Iterator[Parsed | Broken]:
    """One JSON object a line."""
    for number, raw in byte_lines(path, limits.max_file_mb * MIB):
        place = f"line {number}"
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            if text.strip():
                yield _row(json.loads(text.rstrip()), number, place, limits)
        except UnicodeDecodeError as error:
            yield Broken(f"not UTF-8 (byte {error.object[error.start]:#04x})", place)
        except json.JSONDecodeError as error:
            yield Broken(f"malformed JSON ({error.msg} at column {error.colno})", place)
        except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
            yield Broken(f"JSON that is no data ({type(error).__name__})", place)


def csv_file(path: Path, limits: CorpusSettings) -> Iterator[Parsed | Broken]:
    """CSV with a header line; columns are parted by commas, tabs in a .tsv, or semicolons where the header has no comma.

    Raises:
        Unreadable: no column has the text, or from some line on it is no CSV.
    """
    lines = byte_lines(path, limits.max_file_mb * MIB)
    first = next(lines, (0, b""))[1]
    encoding, note = encoding_of(_head(path))
    if encoding.startswith(("utf-16", "utf-32")):
        raise Unreadable(f"{encoding.upper()}; save it as UTF-8")
    tabs = ".tsv" in path.suffixes or (b"\t" in first and b"," not in first)
    csv.field_size_limit(min(limits.max_characters, 2**31 - 1))
    texts = (line.decode(encoding) for line in _again(first, lines))
    reader = csv.reader(texts, delimiter="\t" if tabs else ";" if b";" in first and b"," not in first else ",", strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        _require(names, limits)
        for number, cells in enumerate(filter(None, reader), 1):
            place = f"row {number}"
            if len(cells) == len(names):
                yield _row(dict(zip(names, cells, strict=True)), number, place, limits, note)
            else:
                yield Broken(f"{len(cells)} cells under {len(names)} columns", place)
    except csv.Error as error:
        raise Unreadable(f"from line {reader.line_num} on: {error}") from error
    except UnicodeDecodeError as error:
        raise Unreadable(f"from line {reader.line_num + 1} on: not {encoding}") from error


def _head(path: Path) -> bytes:
    """The first bytes, to the end of a line, so that no character is cut."""
    held = b""
    for _, line in byte_lines(path, 2**31):
        held += line
        if len(held) > _SAMPLE:
            break
    return held


def _again(first: bytes, rest: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
    if first:
        yield first
    yield from (line for _, line in rest)


def parquet_file(path: Path, limits: CorpusSettings) -> Iterator[Parsed | Broken]:
    """A Parquet table, read a few rows at a time.

    Raises:
        Unreadable: no column has the text, or one row group unpacks to more than the limits.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        names = table.schema_arrow.names
        _require(names, limits)
        sizes = [table.metadata.row_group(n).total_byte_size for n in range(table.metadata.num_row_groups)]
        if max(sizes, default=0) > limits.max_unpacked_mb * MIB:
            raise Unreadable(f"a row group of {max(sizes) / MIB:.0f} MB, more than corpus.max_unpacked_mb={limits.max_unpacked_mb}")
        wanted = [n for n in (limits.text_field, limits.title_field, *([limits.id_field] if limits.id_field else _IDS)) if n in names]
        number = 0
        for batch in table.iter_batches(batch_size=64, columns=wanted):
            for record in batch.to_pylist():
                number += 1
                yield _row(record, number, f"row {number}", limits)


def _require(names: list[str], limits: CorpusSettings) -> None:
    for field, setting in ((limits.text_field, "text_field"), (limits.id_field, "id_field")):
        if field and field not in names:
            raise Unreadable(f"no column '{field}' among {', '.join(names[:8]) or 'none'}; name it in corpus.{setting}")


def _row(record: Any, number: int, place: str, limits: CorpusSettings, note: str = "") -> Parsed | Broken:
    if not isinstance(record, dict):
        return Broken(f"expected an object, got {type(record).__name__}", place)
    named = [limits.id_field] if limits.id_field else [name for name in _IDS if record.get(name) is not None]
    cells = {"text": record.get(limits.text_field), "title": record.get(limits.title_field), "id": record.get(named[0]) if named else None}
    for what, cell in cells.items():
        if cell is not None and (not isinstance(cell, str | int) or isinstance(cell, bool)):
            return Broken(f"the {what} is {type(cell).__name__}; it must be text", place)
        if isinstance(cell, str) and any("\ud800" <= c <= "\udfff" for c in cell):
            return Broken(f"the {what} holds half a surrogate pair", place)
    text, title = (plain(cells[what]) if cells[what] is not None else "" for what in ("text", "title"))
    if limits.id_field and cells["id"] in (None, ""):
        return Broken(f"no id in '{limits.id_field}'", place)
    if not text and not title:
        return Broken(f"no text in '{limits.text_field}'", place)
    key = str(number) if cells["id"] in (None, "") else str(cells["id"])
    return Parsed(" ".join(title.split()), text or title, key=key, place=place, note=note)
