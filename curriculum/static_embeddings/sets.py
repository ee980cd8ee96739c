"""Word-similarity and word-analogy sets, in the layouts they are published in."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from curriculum.corpora.readers import read_text
from curriculum.errors import DataError

_SUFFIXES = {".txt", ".tsv", ".csv"}


def _files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES)
    if not files:
        raise DataError(f"{path} holds no .txt, .tsv or .csv file; correct the source in the profile")
    return files


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line.strip()


def read_similarity(path: Path) -> pd.DataFrame:
    """Graded pairs of a file, or of every file of a folder: columns ``set`` (the file's name), ``word1``, ``word2``, ``grade``.

    A line is two words and a grade, between tabs or commas; a first line whose third cell is no number is a header. Words are put
    into lower case.

    Raises:
        DataError: no file, or a line of another shape.
    """
    rows = []
    for file in _files(path):
        for order, (number, line) in enumerate(_lines(file)):
            cells = line.split("\t" if "\t" in line else ",")
            try:
                word1, word2, grade = cells[0].lower(), cells[1].lower(), float(cells[2])
            except (IndexError, ValueError) as error:
                if order == 0 and len(cells) >= 3:
                    continue
                raise DataError(f"{file}, line {number}: expected two words and a grade, got '{line}'") from error
            rows.append({"set": file.stem, "word1": word1, "word2": word2, "grade": grade})
    if not rows:
        raise DataError(f"{path} holds no graded pair; a line is two words and a number between tabs")
    return pd.DataFrame(rows)


def read_analogies(path: Path) -> pd.DataFrame:
    """Analogies a : b = c : d of a file, or of every file of a folder: columns ``set``, ``section``, ``a``, ``b``, ``c``, ``d``.

    Text as questions-words.txt: four words a line below lines ``: section``. CSV by its header: type, word1, word2, word3, target.

    Raises:
        DataError: no file, or a line of another shape.
    """
    rows = [row for file in _files(path) for row in (_csv_analogies(file) if file.suffix == ".csv" else _text_analogies(file))]
    if not rows:
        raise DataError(f"{path} holds no analogy; a line is four words")
    return pd.DataFrame(rows)


def _csv_analogies(file: Path) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(line for _, line in _lines(file))
    missing = {"type", "word1", "word2", "word3", "target"} - set(reader.fieldnames or ())
    if missing:
        raise DataError(f"{file}: its header lacks {', '.join(sorted(missing))}")
    for row in reader:
        yield _analogy(file, row["type"], [row[name] or "" for name in ("word1", "word2", "word3", "target")])


def _text_analogies(file: Path) -> Iterator[dict[str, str]]:
    section = ""
    for number, line in _lines(file):
        if line.startswith(":"):
            section = line[1:].strip()
        elif len(words := line.split()) == 4:
            yield _analogy(file, section, words)
        else:
            raise DataError(f"{file}, line {number}: expected four words, got '{line}'")


def _analogy(file: Path, section: str, words: list[str]) -> dict[str, str]:
    return {"set": file.stem, "section": section, **dict(zip("abcd", (word.lower() for word in words), strict=True))}
