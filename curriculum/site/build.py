"""Write the site's pages from the notes and the results, and have MkDocs build them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from curriculum.corpora.notes import front_matter, note_files
from curriculum.errors import UserError
from curriculum.report.topics import TopicRow, by_part, tally
from curriculum.site.path import Note, draw_path, learning_order
from curriculum.syllabus import Syllabus

Figures = Mapping[str, Sequence[Sequence[object]]]  # asset -> [metric, value with its interval, n]
_ASSET = re.compile(r"`([a-z0-9_]+)`")


def read_notes(folder: Path) -> list[Note]:
    """The notes of a folder with their front matter.

    Raises:
        DataError: as :func:`curriculum.corpora.notes.load_notes`.
    """
    notes = []
    for path in note_files(folder):
        head, text = front_matter(path)
        lists = {name: tuple(map(str, head.get(name) or ())) for name in ("links", "prerequisites", "assets")}
        notes.append(Note(id=head["id"], title=str(head["title"]), part=str(head["part"]), text=text, **lists))
    return notes


def build_site(
    notes: Sequence[Note], syllabus: Syllabus, figures: Figures, topics: Sequence[TopicRow], measured: str, work: Path
) -> Path:
    """Write the pages under ``work/pages`` and build them to ``work/html``, whose ``index.html`` is returned.

    ``figures`` are the headline metrics by asset, ``topics`` the table of claims; ``measured`` says which run they are of.

    Raises:
        UserError: MkDocs does not accept the pages; its own words are in the message.
        DataError: the prerequisites do not resolve or go round in a circle.
    """
    pages, html = work / "pages", work / "html"
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir(parents=True)
    titles = {part.id: part.title for part in syllabus.parts}
    given = {topic: place for place, topic in enumerate(syllabus.topics())}
    ordered = sorted(notes, key=lambda note: given.get(note.id, len(given)))
    order = learning_order(ordered)
    for note in ordered:
        (pages / f"{note.id}.md").write_text(_page(note, order, {n.id: _without_html(n.title) for n in notes}, figures, syllabus), encoding="utf-8")
    (pages / "index.md").write_text(_index(ordered, titles, syllabus), encoding="utf-8")
    (pages / "figures.md").write_text(_figures_page(figures, measured), encoding="utf-8")
    (pages / "topics.md").write_text(_topics_page(topics, {note.id for note in notes}, figures, measured), encoding="utf-8")
    (work / "mkdocs.yml").write_text(yaml.safe_dump(_config(ordered, titles, pages, html), sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(work / "mkdocs.yml")]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an advertisement for its successor
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("WARNING", "ERROR"))]
        raise UserError(f"the notes' site could not be built: {' '.join(said)[:800] or done.stderr.strip()[-800:]}")
    return html / "index.html"


def _config(notes: Sequence[Note], titles: Mapping[str, str], pages: Path, html: Path) -> dict[str, object]:
    parts = dict.fromkeys(note.part for note in notes)
    nav = [{titles.get(part, part): [f"{note.id}.md" for note in notes if note.part == part]} for part in parts]
    return {
        "site_name": "Curriculum: the study notes",
        "docs_dir": str(pages),
        "site_dir": str(html),
        "use_directory_urls": False,
        "theme": {"name": "material", "font": False, "features": ["navigation.tabs", "navigation.footer", "search.highlight"]},
        "markdown_extensions": ["tables", "attr_list", "pymdownx.superfences"],
        "plugins": ["search"],
        "nav": [{"Learning path": "index.md"}, *nav, {"Topics": "topics.md"}, {"Figures": "figures.md"}],
    }


def _page(note: Note, order: Sequence[str], titles: Mapping[str, str], figures: Figures, syllabus: Syllabus) -> str:
    prose = _outside_code(_without_html(note.text))
    text = _ASSET.sub(lambda m: f"[`{m[1]}`](figures.md#{m[1]})" if m[1] in note.assets and m[1] in figures else m[0], prose)
    before = ", ".join(f"[{titles[p]}]({p}.md)" for p in note.prerequisites)
    following = [n for n in order[order.index(note.id) + 1 :][:1]]
    topic = syllabus.topics().get(note.id)
    lines = [text.replace(_HELD, "`"), ""]
    if topic:
        lines += ["## What its asset must show", "", f"> {topic.shows}", ""]
    for asset in note.assets:
        lines += [f"### `{asset}`, as last measured", "", *_table(figures.get(asset, ())), ""]
    lines += ["## Read on", ""]
    lines += [f"- Builds on: {before}"] if before else []
    lines += [f"- Next on the path: [{titles[n]}]({n}.md)" for n in following]
    lines += [f"- [{urlsplit(link).netloc}{urlsplit(link).path}]({link})" for link in note.links]
    return "\n".join(lines) + "\n"


_HELD = "\x00"
_TAG = re.compile(r"(^```.*?^```[ \t]*$|``[^\n]+?``|`(?:[^`\n]|\n(?!\s*\n))*`)|<(?=[A-Za-z/!?])(?!https?://)", re.MULTILINE | re.DOTALL)


def _outside_code(text: str) -> str:
    """``text`` with the backticks of its code blocks held back, so that only names in prose become links."""
    return re.sub(r"^```.*?^```$", lambda block: block[0].replace("`", _HELD), text, flags=re.MULTILINE | re.DOTALL)


def _without_html(text: str) -> str:
    """``text`` with its tags as text, but for those in code and for addresses between angle brackets."""
    return _TAG.sub(lambda m: m[1] or "&lt;", text)


def _table(rows: Sequence[Sequence[object]]) -> list[str]:
    if not rows:
        return ["Not measured yet: `make run` does."]
    return ["| metric | value | n |", "|---|---|---|", *(_without_html(_row(*row)) for row in rows)]


def _row(name: object, value: object, n: object) -> str:
    return f"| {name} | {value} | {'' if n is None else n} |"


def _index(notes: Sequence[Note], titles: Mapping[str, str], syllabus: Syllabus) -> str:
    drawn = draw_path(notes, {note.id: f"{note.id}.html" for note in notes})
    lines = [
        "---", "hide: [navigation, toc]", "---", "",  # the drawing needs the width
        "# The learning path", "",
        "Every box is a topic and opens its note; a line leads from what a topic builds on directly. Read from left to right; the drawing "
        "scrolls sideways.", "",
        f'<div style="overflow-x: auto" tabindex="0">{drawn}</div>', "",
    ]  # fmt: skip
    for part in dict.fromkeys(note.part for note in notes):
        goal = next((p.goal for p in syllabus.parts if p.id == part), "")
        lines += [f"## {titles.get(part, part)}", "", goal, ""]
        lines += [f"- [{_without_html(note.title)}]({note.id}.md)" for note in notes if note.part == part] + [""]
    return "\n".join(lines)


def _figures_page(figures: Figures, measured: str) -> str:
    lines = ["# Figures", "", measured, ""]
    for asset in sorted(figures):
        lines += [f"## `{asset}` {{ #{asset} }}", "", *_table(figures[asset]), ""]
    return "\n".join(lines)


def _topics_page(rows: Sequence[TopicRow], noted: set[str], figures: Figures, measured: str) -> str:
    lines = ["---", "hide: [navigation, toc]", "---", "", "# What each topic claims", "", measured, "", f"{tally(rows)}.", ""]
    for part, within in by_part(rows):
        lines += [f"## {part.title}", "", "| topic | measured | value [95%] | bar | verdict |", "|---|---|---|---|---|"]
        for row in within:
            title = f"[{row.topic.title}]({row.topic.id}.md)" if row.topic.id in noted else row.topic.title
            lines += [f"| {title} | | | | **{row.verdict}** |"]
            for claim in row.claims:
                asset = claim.judgement.bar.asset
                name = f"[`{claim.metric}`](figures.md#{asset})" if asset in figures else f"`{claim.metric}`"
                lines += [f"| | {name} | {claim.value} | {claim.bar} | {claim.verdict} |"]
        lines += [""]
    return "\n".join(lines)
