"""What every parser shares: what it gives, bytes read within limits, and bytes as text."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from curriculum.ingest.settings import CorpusSettings

MIB = 2**20
_SAMPLE = 100_000
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
          codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # all but tab and line feed


@dataclass(frozen=True)
class Parsed:
    """One document of a file. ``key`` is its id within the file, where the file has several; ``place`` says where it stands there.

    ``pages`` are the offsets in ``text`` at which pages begin; ``lines`` says that the text has the file's own lines.
    ``note`` is what a reader of the list of files should know.
    """

    title: str
    text: str
    key: str = ""
    place: str = ""
    pages: tuple[int, ...] = ()
    lines: bool = False
    note: str = ""


@dataclass(frozen=True)
class Broken:
    """A file, or the place in it, that is left out, and why."""

    reason: str
    place: str = ""

    def text(self) -> str:
        """Place and reason as one line."""
        return f"{self.place}: {self.reason}" if self.place else self.reason


class Unreadable(Exception):
    """The rest of a file cannot be read; the message is the reason, as the list of files shows it."""


def opened(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked where its name ends in .gz."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def whole(path: Path, limits: CorpusSettings) -> bytes:
    """All bytes of a file.

    Raises:
        Unreadable: it is larger than the limits, packed or unpacked, or broken gzip.
    """
    if path.stat().st_size > limits.max_file_mb * MIB:
        raise Unreadable(f"{path.stat().st_size / MIB:.0f} MB, more than corpus.max_file_mb={limits.max_file_mb}")
    with gzip_errors(), opened(path) as stream:
        raw = stream.read(limits.max_unpacked_mb * MIB + 1)
    if len(raw) > limits.max_unpacked_mb * MIB:
        raise Unreadable(f"it holds more than corpus.max_unpacked_mb={limits.max_unpacked_mb}")
    return raw


class gzip_errors:
    """Says of broken gzip that it is that."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
            raise Unreadable(f"broken gzip ({error})") from error


def byte_lines(path: Path, limit: int) -> Iterator[tuple[int, bytes]]:
    """(number, line) of a file, one line in memory at a time.

    Raises:
        Unreadable: a line is longer than ``limit`` bytes, or the gzip is broken.
    """
    with gzip_errors(), opened(path) as stream:
        number = 0
        while line := stream.readline(limit + 1):
            number += 1
            if len(line) > limit:
                raise Unreadable(f"line {number} is longer than {limit / MIB:.0f} MB")
            yield number, line


def encoding_of(sample: bytes, declared: str = "") -> tuple[str, str]:
    """(encoding, note) of bytes that begin with ``sample``: by byte order mark, as UTF-8, as declared, or as charset-normalizer finds.

    Raises:
        Unreadable: they are no text in any encoding it knows.
    """
    for mark, name in _MARKS.items():
        if sample.startswith(mark):
            return name, "" if name == "utf-8-sig" else f"read as {name.upper()}"
    if b"\0" in sample:
        raise Unreadable("binary, not text")
    for name in filter(None, ("utf-8", declared)):
        try:
            codecs.getincrementaldecoder(name)().decode(sample)
        except (UnicodeDecodeError, LookupError):
            continue
        return name, "" if name == "utf-8" else f"read as {name}"
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    if best is None:
        raise Unreadable("neither UTF-8 nor any encoding that could be recognised; save it as UTF-8")
    return best.encoding, f"not UTF-8, read as {best.encoding}"


def decoded(raw: bytes, declared: str = "") -> tuple[str, str]:
    """(text, note) of a file's bytes.

    Raises:
        Unreadable: they are no text.
    """
    encoding, note = encoding_of(raw[:_SAMPLE], declared)
    try:
        return raw.decode(encoding), note
    except UnicodeDecodeError as error:
        raise Unreadable(f"{encoding} up to byte {error.start}, which is none of its characters; save it as UTF-8") from error


def cleaned(text: str) -> str:
    """Line feeds end lines, and a control character is a blank: lines and their numbers stay the file's own."""
    return _CONTROLS.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))
