"""The notes' site: built by MkDocs from a small folder, with its path drawn, its links whole and its figures in place."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from curriculum.errors import DataError, UserError
from curriculum.evaluation.gate import active_bars
from curriculum.profile import load_profile
from curriculum.report.readme import recorded_judgements
from curriculum.report.topics import TopicRow, topic_rows
from curriculum.site import build
from curriculum.site.build import build_site, read_notes
from curriculum.site.path import Note, columns, direct, draw_path, learning_order
from curriculum.syllabus import load_syllabus

ROOT = Path(__file__).parents[2]
FIGURES = {"attention_study": [["memory_exponent", "1.84 [1.8, 1.9]", 7]]}


def note(name: str, *prerequisites: str, part: str = "foundations") -> Note:
    return Note(id=name, title=f"About {name} & more", part=part, prerequisites=prerequisites)


def test_every_note_comes_after_what_it_builds_on() -> None:
    notes = [note("c", "a", "b"), note("b", "a"), note("d"), note("a")]
    assert learning_order(notes) == ["d", "a", "b", "c"]
    assert [[n.id for n in column] for column in columns(notes)] == [["d", "a"], ["b"], ["c"]]


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ([note("a", "b"), note("b", "a")], "build on one another in a circle: a -> b -> a|b -> a -> b"),
        ([note("a", "z")], "a.md builds on 'z', which has no note"),
    ],
)
def test_a_path_that_leads_nowhere_is_an_error(notes: list[Note], message: str) -> None:
    with pytest.raises(DataError, match=message):
        learning_order(notes)


def test_the_path_is_drawn_with_a_box_a_note_and_a_line_a_prerequisite_that_no_other_implies() -> None:
    notes = [note("a"), note("b", "a", part="search"), note("c", "a", "b")]
    root = ET.fromstring(draw_path(notes, {n.id: f"{n.id}.html" for n in notes}))
    space = "{http://www.w3.org/2000/svg}"
    assert [link.get("href") for link in root.iter(f"{space}a")] == ["a.html", "b.html", "c.html"]
    assert len(list(root.iter(f"{space}path"))) == 2  # a to b and b to c; c builds on a through b
    assert direct(notes[2], notes) == ["b"] and direct(note("d", "a", "c"), [*notes, note("d", "a", "c")]) == ["c"]
    boxes = [(float(box.get("x", "0")), float(box.get("y", "0"))) for box in root.iter(f"{space}rect")]
    assert len(set(boxes)) == 3 and boxes[0][0] < boxes[1][0] < boxes[2][0]


def topics() -> list[TopicRow]:
    """The topic table of a machine where one check of attention has passed and nothing else ran."""
    syllabus, profile = load_syllabus(), load_profile("starter")
    checks = {"checks": {"milestone_attention_attention_study_memory_exponent__tiled": ["passed", 0.7861]}}
    return topic_rows(syllabus, profile, recorded_judgements(checks, active_bars(syllabus, profile)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "notes"
    made.mkdir()
    for name, before in (("self_attention", "[]"), ("flash_attention", "[self_attention]")):
        head = f"id: {name}\ntitle: T {name}\npart: foundations\nlinks: [https://example.org/x]\nprerequisites: {before}\nassets: [attention_study]"
        body = f"# T {name}\n\nMeasured by `attention_study`; `softmax` is no asset.\n\n```\n`attention_study` in code\n```\n"
        (made / f"{name}.md").write_text(f"---\n{head}\n---\n\n{body}")
    return made


def test_a_site_is_built_with_figures_links_and_search(folder: Path, tmp_path: Path) -> None:
    index = build_site(read_notes(folder), load_syllabus(), FIGURES, topics(), "Measured on a test.", tmp_path / "site")
    page = (index.parent / "flash_attention.html").read_text()
    assert "1.84 [1.8, 1.9]" in page and 'href="figures.html#attention_study"' in page and page.count("figures.html#attention_study") == 1
    assert 'href="self_attention.html"' in page and "https://example.org/x" in page and "<code>softmax</code>" in page
    assert "online-softmax attention equals the naive one" in page  # the claim, from the syllabus
    assert 'href="flash_attention.html"' in index.read_text() and "<svg" in index.read_text() and "max-width: none" in index.read_text()  # else a wide path shrinks beyond reading
    found = json.loads((index.parent / "search" / "search_index.json").read_text())
    assert any("attention_study" in entry["text"] for entry in found["docs"])
    loaded = re.findall(r'(?:src|href)="(https?://[^"]+)"', page)
    assert all(link.startswith(("https://example.org", "https://squidfunk")) for link in loaded)  # nothing is fetched from elsewhere


def test_the_site_has_the_topic_table(folder: Path, tmp_path: Path) -> None:
    index = build_site(read_notes(folder), load_syllabus(), FIGURES, topics(), "Measured on a test.", tmp_path / "site")
    page = (index.parent / "topics.html").read_text()
    assert 'href="topics.html"' in index.read_text() and "Measured on a test." in page
    rows = [re.sub(r"<[^>]+>", "|", row) for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)]
    assert sum("memory_exponent__tiled" in row and "0.7861" in row and "&lt;= 1.3" in row and "PASSED" in row for row in rows) == 1
    assert all(any(f"|{topic.title.replace('&', '&amp;')}|" in row for row in rows) for topic in load_syllabus().topics().values())
    assert page.count('href="flash_attention.html"') >= 1 and "no claim yet" in page and 'href="figures.html#attention_study"' in page


def test_an_asset_without_a_result_says_so(folder: Path, tmp_path: Path) -> None:
    index = build_site(read_notes(folder), load_syllabus(), {}, topics(), "Nothing yet.", tmp_path / "site")
    assert "Not measured yet" in (index.parent / "self_attention.html").read_text()


def test_a_broken_page_is_one_clear_error(folder: Path, tmp_path: Path) -> None:
    note = folder / "self_attention.md"
    note.write_text(note.read_text() + "\nSee [this](nowhere.md).\n")
    with pytest.raises(UserError, match=r"could not be built: .*nowhere.md"):
        build_site(read_notes(folder), load_syllabus(), FIGURES, topics(), "", tmp_path / "site")


def test_the_packaged_notes_have_a_learning_path() -> None:
    notes = read_notes(ROOT / "notes")
    known = {n.id for n in notes}
    if len(known) == len(load_syllabus().topics()):
        assert sorted(learning_order(notes)) == sorted(known)
    assert build.read_notes(ROOT / "notes") == notes


def test_tags_in_a_note_and_in_figures_are_text(folder: Path, tmp_path: Path) -> None:
    note = folder / "self_attention.md"
    told = '\n\nThe word "<her>" and <script>alert(1)</script>, `<b>` and y_<t, <https://example.org/y>.\n\n`\n\n<img src=x onerror=alert(2)>\n\n`\n'
    note.write_text(note.read_text().replace("title: T", "title: <script>alert(3)</script>") + told)
    figures = {"attention_study": [["<script>alert(4)</script>", "1", 7]]}
    index = build_site(read_notes(folder), load_syllabus(), figures, topics(), "", tmp_path / "site")
    for page in index.parent.glob("*.html"):
        text = page.read_text()
        assert not re.search(r"<script>alert|<img src=x|<her>", text), page.name
    text = (index.parent / "self_attention.html").read_text()
    assert "&lt;script&gt;alert(1)" in text and "<code>&lt;b&gt;</code>" in text and "&lt;her&gt;" in text and 'href="https://example.org/y"' in text
    assert "&amp;lt;" not in text
