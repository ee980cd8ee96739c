"""The learning path: topics in columns by how many topics they build on, drawn as an SVG whose boxes open their notes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from html import escape

from curriculum.errors import DataError

_BOX, _GAP = (168, 26), (58, 10)
_COLOURS = ("#1565c0", "#2e7d32", "#ef6c00", "#6a1b9a", "#c62828", "#00838f", "#5d4037", "#455a64")


@dataclass(frozen=True)
class Note:
    """What a page needs of a note beside its text."""

    id: str
    title: str
    part: str
    links: tuple[str, ...] = ()
    prerequisites: tuple[str, ...] = ()
    assets: tuple[str, ...] = ()
    text: str = ""


def learning_order(notes: Sequence[Note]) -> list[str]:
    """Ids, every note after its prerequisites, otherwise in the given order.

    Raises:
        DataError: a prerequisite has no note, or notes require one another in a circle.
    """
    known = {note.id for note in notes}
    for note in notes:
        absent = [wanted for wanted in note.prerequisites if wanted not in known]
        if absent:
            raise DataError(f"{note.id}.md builds on '{absent[0]}', which has no note; write it or remove the prerequisite")
    sorter = TopologicalSorter({note.id: note.prerequisites for note in notes})
    try:
        sorter.prepare()
    except CycleError as error:
        raise DataError(f"notes build on one another in a circle: {' -> '.join(error.args[1])}; remove one prerequisite") from error
    place, order, ready = {note.id: i for i, note in enumerate(notes)}, [], []
    while sorter.is_active():
        ready += sorter.get_ready()
        ready.sort(key=place.__getitem__)
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return order


def columns(notes: Sequence[Note]) -> list[list[Note]]:
    """The notes by the length of the longest chain below them; within a column by part, then near what they build on."""
    by_id, depth = {note.id: note for note in notes}, {}
    for name in learning_order(notes):
        depth[name] = 1 + max((depth[p] for p in by_id[name].prerequisites), default=-1)
    held: dict[int, list[Note]] = defaultdict(list)
    for note in notes:
        held[depth[note.id]].append(note)
    parts, row = {part: i for i, part in enumerate(dict.fromkeys(note.part for note in notes))}, {}
    for level in sorted(held):
        held[level].sort(key=lambda n: (parts[n.part], sum(row[p] for p in n.prerequisites) / max(1, len(n.prerequisites))))
        row |= {note.id: i for i, note in enumerate(held[level])}
    return [held[level] for level in sorted(held)]


def direct(note: Note, notes: Sequence[Note]) -> list[str]:
    """The prerequisites of ``note`` that no other of its prerequisites builds on: the lines that say something new."""
    by_id = {one.id: one for one in notes}
    below: set[str] = set()
    waiting = [q for p in note.prerequisites for q in by_id[p].prerequisites]
    while waiting:
        name = waiting.pop()
        if name not in below:
            below.add(name)
            waiting += by_id[name].prerequisites
    return [p for p in note.prerequisites if p not in below]


def draw_path(notes: Sequence[Note], hrefs: Mapping[str, str]) -> str:
    """The path as SVG text; ``hrefs`` are the pages that the boxes open."""
    grid = columns(notes)
    colour = {part: _COLOURS[i % len(_COLOURS)] for i, part in enumerate(dict.fromkeys(note.part for note in notes))}
    step = (_BOX[0] + _GAP[0], _BOX[1] + _GAP[1])
    at = {note.id: (x * step[0], y * step[1] + 30) for x, column in enumerate(grid) for y, note in enumerate(column)}
    width, height = len(grid) * step[0], max(map(len, grid)) * step[1] + 30
    legend = "".join(
        f'<text x="{130 * i}" y="14" fill="{colour[part]}" font-weight="bold">{escape(part)}</text>' for i, part in enumerate(colour)
    )
    lines = "".join(_line(at[p], at[note.id]) for note in notes for p in direct(note, notes))
    boxes = "".join(_box(note, at[note.id], colour[note.part], hrefs[note.id]) for note in notes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'style="max-width: none" aria-label="Learning path" font-family="sans-serif" font-size="11">{legend}{lines}{boxes}</svg>'
    )


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1, x2, y2 = start[0] + _BOX[0], start[1] + _BOX[1] // 2, end[0], end[1] + _BOX[1] // 2
    bend = (x1 + x2) // 2
    return f'<path d="M{x1},{y1} C{bend},{y1} {bend},{y2} {x2},{y2}" fill="none" stroke="#9e9e9e" stroke-opacity="0.6"/>'


def _box(note: Note, place: tuple[int, int], colour: str, href: str) -> str:
    x, y = place
    title = note.title if len(note.title) <= 28 else note.title[:27] + "…"
    return (
        f'<a href="{escape(href)}"><title>{escape(note.title)}</title>'
        f'<rect x="{x}" y="{y}" width="{_BOX[0]}" height="{_BOX[1]}" rx="4" fill="{colour}"/>'
        f'<text x="{x + 8}" y="{y + 17}" fill="#ffffff">{escape(title)}</text></a>'
    )
