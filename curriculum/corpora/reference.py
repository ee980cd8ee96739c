"""The Python language reference that ships with the interpreter (``pydoc_data.topics``), section by section, markup removed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from curriculum.corpora.documents import document, plain

_UNDERLINE = re.compile(r"([*=~^\"#-])\1{2,}")
_EMPHASIS = re.compile(r"(?<![\w*\"'])(\*{1,2})([A-Za-z][\w .-]*?)\1(?![\w*])")
_FOOTNOTES = re.compile(r"^-\[ (.+?) \]-$", re.MULTILINE)


def language_reference() -> Iterator[dict[str, str]]:
    """The sections of every topic as rows of the documents table.

    Topics overlap: a long one holds shorter ones whole. The short ones come first, so that whoever drops repeats keeps the
    most specific place of a section.
    """
    from pydoc_data.topics import topics

    for name, page in sorted(topics.items(), key=lambda item: (len(item[1]), item[0])):
        taken: dict[str, int] = {}
        for number, (heading, body) in enumerate(sections(page)):
            slug = re.sub(r"\W+", "-", heading.lower()).strip("-")
            taken[slug] = taken.get(slug, 0) + 1
            suffix = "" if number == 0 else f"/{slug}" if taken[slug] == 1 else f"/{slug}-{taken[slug]}"
            yield document(
                f"language-reference/{name}{suffix}", heading or name, plain_topic(f"{heading}\n\n{body}"),
                source="language-reference", qualified_name=name, kind="topic",
            )


def sections(page: str) -> list[tuple[str, str]]:
    """(heading, body) of each section of a page in Sphinx's text form, where a heading is underlined for its whole length.

    Sections without text of their own are left out.
    """
    lines = page.strip().split("\n")
    found: list[tuple[str, list[str]]] = [("", [])]
    index = 0
    while index < len(lines):
        below = lines[index + 1] if index + 1 < len(lines) else ""
        heading = lines[index].strip()
        if heading and not lines[index][0].isspace() and _UNDERLINE.fullmatch(below) and abs(len(below) - len(lines[index])) <= 1:
            found.append((heading, []))
            index += 2
            continue
        found[-1][1].append(lines[index])
        index += 1
    return [(heading, "\n".join(body).strip()) for heading, body in found if "".join(body).strip()]


def plain_topic(text: str) -> str:
    """Text of the reference without emphasis marks; code keeps its quotation marks, grammar rules and code their stars."""
    lines = (line if "::=" in line else _EMPHASIS.sub(r"\2", line) for line in _FOOTNOTES.sub(r"\1", text).split("\n"))
    return plain("\n".join(lines))
