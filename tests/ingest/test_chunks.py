"""Passages are stretches of their document: nothing is lost, and every place is where it says."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.ingest.chunks import cut, passages_of

TEXTS = st.lists(
    st.sampled_from(["word ", "two words. ", "A sentence; ", "\n", "\n\n", "# Heading\n\n", "\n\n## 7\n", "x" * 90, " \t", "\u2003é", "#no\n", "a\n\nb? "]),
    max_size=60,
).map("".join) | st.text(max_size=200)  # fmt: skip


def visible(text: str) -> set[int]:
    return {at for at, char in enumerate(text) if not char.isspace()}


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.integers(3, 30))
def test_no_letter_is_lost_and_no_passage_is_much_too_long(text: str, words: int) -> None:
    cuts = list(cut(text, words))
    covered = {at for piece in cuts for at in range(piece.start, piece.end)}
    headings = {at for found in re.finditer(r"^#{1,6}[ \t]+\S[^\n]*$", text, re.MULTILINE) for at in range(*found.span())}
    assert visible(text) - covered <= headings
    for piece in cuts:
        inside = text[piece.start : piece.end]
        assert inside and inside == inside.strip() and piece.section in text
        assert max(len(inside.split()), len(inside) // 7) <= 1.25 * words + 1 or inside.startswith("#")
    starts = [piece.start for piece in cuts]
    assert starts == sorted(starts)


def test_a_passage_keeps_to_its_section_and_repeats_a_short_sentence() -> None:
    sentence = "The heron stands in the water. "
    text = f"Intro.\n\n# Water\n\n{sentence * 7}\n\n## Empty\n\n# Air\nIt flies.\n\nIt lands.\n"
    cuts = list(cut(text, 25))
    assert [(c.section, text[c.start : c.end][:9]) for c in cuts if c.section != "Water"] == [("", "Intro."), ("", "## Empty"), ("Air", "It flies.")]
    assert text[cuts[-1].start : cuts[-1].end] == "It flies.\n\nIt lands."
    water = [text[c.start : c.end] for c in cuts if c.section == "Water"]
    assert [passage.count("stands") for passage in water] == [4, 4]  # the last sentence of the first begins the second
    assert list(cut("", 25)) == list(cut(" \n", 25)) == []


def document(text: str, **more: object) -> dict[str, object]:
    return {"doc_id": "a.md", "path": "a.md", "title": "A", "text": text, "kind": "markdown", "place": "", "pages": [], "lines": False} | more


def test_a_place_is_a_line_a_page_or_a_row() -> None:
    text = "one two three.\n\nfour five six.\nseven eight nine.\n"
    found = list(passages_of(document(text, lines=True), "own", 4))
    assert [(p["passage_id"], p["text"], p["place"]) for p in found] == [
        ("own/a.md#0", "one two three.", "line 1"), ("own/a.md#1", "four five six.", "line 3"), ("own/a.md#2", "seven eight nine.", "line 4"),
    ]  # fmt: skip
    assert all(text[p["start"] : p["end"]] == p["text"] for p in found)
    paged = list(passages_of(document(text, pages=[0, 16, 31]), "own", 4))
    assert [p["place"] for p in paged] == ["page 1", "page 2", "page 3"]
    assert [p["place"] for p in passages_of(document(text, place="row 7"), "own", 0)] == ["row 7"]
    (whole,) = passages_of(document(text), "own", 0)
    assert whole["text"] == text.strip() and whole["place"] == "" and len({p["digest"] for p in [*found, whole]}) == 4


def test_lines_are_right_where_passages_overlap() -> None:
    text = "\n".join(f"line {n} of a paragraph that has many" for n in range(1, 40))
    for passage in passages_of(document(text, lines=True), "own", 40):
        number = int(passage["place"].removeprefix("line "))
        assert passage["text"].startswith(f"line {number} ")
