"""Rows made of units, in parts: a unit that is unchanged keeps its rows, and a killed run keeps its finished parts.

A unit is a file whose rows are documents, or a document whose rows are passages. Under a folder lie ``parts/part-00000.parquet``
(the rows, in the order of the units) and ``units.parquet`` (key, digest, part, rows, note, problems). No more than one part's units and
one row group's rows are in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curriculum.disk import fsync, write_atomically
from curriculum.errors import DataError
from curriculum.ingest.reading import Broken
from curriculum.storage import digest_of

ROW_GROUP = 1000
UNITS = pa.schema([
    ("key", pa.string()), ("digest", pa.string()), ("part", pa.int32()), ("rows", pa.int64()), ("note", pa.string()),
    ("problems", pa.list_(pa.string())),
])  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """What rows are made of. ``digest`` changes when they would; one that is ``alone`` has a part of its own, for it may have any number."""

    key: str
    digest: str
    what: Any = None
    note: str = ""
    alone: bool = False


@dataclass
class Tally:
    """How many units there were: ``made`` now, ``kept`` from an earlier version, ``resumed`` from a run that was killed."""

    units: int = 0
    made: int = 0
    kept: int = 0
    resumed: int = 0
    rows: int = 0
    problems: int = 0
    parts: int = 0


@dataclass(frozen=True)
class _Known:
    digest: str
    part: int
    start: int  # its first row in the part
    rows: int
    note: str
    problems: list[str]


class Earlier:
    """The units of an earlier version, and their rows. ``folder`` None: there is none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._units = folder, dict[str, _Known]()
        self._part, self._file, self._group = -1, None, (-1, pa.table({}))
        if folder is None:
            return
        part, start = -1, 0
        for batch in pq.ParquetFile(folder / "units.parquet").iter_batches():
            for unit in batch.to_pylist():
                start, part = start if unit["part"] == part else 0, unit["part"]
                self._units[unit["key"]] = _Known(unit["digest"], part, start, unit["rows"], unit["note"], unit["problems"])
                start += unit["rows"]

    def find(self, unit: Unit) -> _Known | None:
        """The unit as it was, or None where it is new or has changed."""
        found = self._units.get(unit.key)
        return found if found and found.digest == unit.digest else None

    def rows(self, known: _Known) -> Iterator[pa.Table]:
        """The rows that a unit had; one row group is in memory at a time."""
        at, end = known.start, known.start + known.rows
        while at < end:
            number, inside = divmod(at, ROW_GROUP)
            piece = self._read(known.part, number).slice(inside, end - at)
            yield piece
            at += len(piece)

    def _read(self, part: int, number: int) -> pa.Table:
        if part != self._part:
            assert self._folder is not None
            self._part, self._file, self._group = part, pq.ParquetFile(self._folder / "parts" / _part(part)), (-1, pa.table({}))
        if number != self._group[0]:
            assert self._file is not None
            self._group = (number, self._file.read_row_group(number))
        return self._group[1]


class Parts:
    """Makes the parts of one version.

    ``make`` gives the rows of a unit (dicts of ``schema``), and what of it is broken. ``how`` is whatever else the rows depend on.
    Finished parts wait in ``checkpoints``.
    """

    def __init__(
        self, schema: pa.Schema, make: Callable[[Unit], Iterable[dict[str, Any] | Broken]], *, how: str, earlier: Path | None,
        checkpoints: Path, size: int, max_problems: int, progress: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.tally = Tally()
        self._schema, self._make, self._how, self._size = schema, make, how, size
        self._earlier, self._checkpoints, self._progress, self._max_problems = Earlier(earlier), checkpoints, progress, max_problems
        self._problems: list[str] = []

    def write(self, units: Iterable[Unit], out: Path, total: int) -> Tally:
        """Make the parts of ``units`` under ``out``; ``total`` is how many there will be, for the progress.

        Raises:
            DataError: more is broken than the limit; the first are named.
        """
        (out / "parts").mkdir(parents=True)
        with pq.ParquetWriter(out / "units.parquet", UNITS) as listing:
            for number, group in enumerate(_groups(units, self._size)):
                rows, known = self._part(number, group)
                copyfile(rows, out / "parts" / _part(number))
                listing.write_table(pa.Table.from_pylist(known, UNITS))
                self._count(known)
                t = self.tally
                self._progress(f"{t.units} of {total}: {t.made} made, {t.kept} unchanged, {t.resumed} from before, {t.problems} broken")
        return self.tally

    def _part(self, number: int, group: list[Unit]) -> tuple[Path, list[dict[str, Any]]]:
        """The file with the part's rows, and its units; from the checkpoints where it was finished before."""
        name = digest_of([self._how, number, [(u.key, u.digest) for u in group]])[:20]
        rows, said = self._checkpoints / f"{name}.parquet", self._checkpoints / f"{name}.json"
        if said.exists():
            self.tally.resumed += len(group)
            return rows, json.loads(said.read_text(encoding="utf-8"))
        unfinished = rows.with_suffix(".part")
        with pq.ParquetWriter(unfinished, self._schema) as writer:
            pen = _Pen(writer)
            known = [self._unit(unit, number, pen) for unit in group]
            pen.flush()
        fsync(unfinished)
        unfinished.replace(rows)
        write_atomically(said, json.dumps(known).encode())  # last: it says that the rows are whole
        return rows, known

    def _unit(self, unit: Unit, number: int, pen: _Pen) -> dict[str, Any]:
        before, found = pen.rows, self._earlier.find(unit)
        note, problems, made = unit.note, list[str](), list[dict[str, Any]]()
        if found is not None:
            self.tally.kept += 1
            note, problems = found.note, found.problems
            for table in self._earlier.rows(found):
                pen.write(table)
        else:
            self.tally.made += 1
            for item in self._make(unit):
                if isinstance(item, Broken):
                    problems.append(item.text())
                    self._refuse_more([*self._problems, *(f"{unit.key}: {said}" for said in problems)])
                    continue
                note = item.pop("note", "") or note
                made.append(item)
                if len(made) == ROW_GROUP:
                    pen.write(pa.Table.from_pylist(made, self._schema))
                    made = []
            pen.write(pa.Table.from_pylist(made, self._schema))
        return {"key": unit.key, "digest": unit.digest, "part": number, "rows": pen.rows - before, "note": note, "problems": problems}

    def _count(self, known: list[dict[str, Any]]) -> None:
        self._problems += [f"{unit['key']}: {said}" for unit in known for said in unit["problems"]]
        self._refuse_more(self._problems)
        self.tally.parts += 1
        self.tally.units += len(known)
        self.tally.rows += sum(unit["rows"] for unit in known)
        self.tally.problems = len(self._problems)

    def _refuse_more(self, problems: list[str]) -> None:
        if len(problems) > self._max_problems:
            raise DataError(
                f"more than corpus.max_broken={self._max_problems} files or rows are broken, among them: {'; '.join(problems[:8])}; "
                "repair or remove them, or raise corpus.max_broken"
            )


class _Pen:
    """Writes rows in row groups of one size, however they come: equal rows then give equal files, made now or kept."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer, self._waiting, self._count = writer, list[pa.Table](), 0
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._count += len(table)
        self.rows += len(table)
        while self._count >= ROW_GROUP:
            whole = pa.concat_tables(self._waiting)
            self._writer.write_table(whole.slice(0, ROW_GROUP).combine_chunks())
            self._waiting, self._count = [whole.slice(ROW_GROUP)], self._count - ROW_GROUP

    def flush(self) -> None:
        if self._count:
            self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks())


def _part(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _groups(units: Iterable[Unit], size: int) -> Iterator[list[Unit]]:
    held: list[Unit] = []
    for unit in units:
        if unit.alone or len(held) == size:
            if held:
                yield held
            held = []
        if unit.alone:
            yield [unit]
        else:
            held.append(unit)
    if held:
        yield held


def read_batches(folder: Path, columns: list[str] | None = None, size: int = 512) -> Iterator[Any]:
    """The rows of every part as data frames of at most ``size`` rows, in order."""
    for part in sorted((folder / "parts").iterdir()):
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(batch_size=size, columns=columns):
                yield batch.to_pandas()
