"""Parsers of files that are one document: Markdown and text, HTML, PDF, DOCX. None resolves an entity or follows a reference."""

from __future__ import annotations

import io
import logging
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curriculum.corpora.documents import plain
from curriculum.ingest.reading import MIB, Parsed, Unreadable, cleaned, decoded, whole
from curriculum.ingest.settings import CorpusSettings

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---(?:\n|\Z)", re.DOTALL)
_META_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w:.-]+)", re.IGNORECASE)
_DOCTYPE = re.compile(r"<!DOCTYPE[^>\[]*(?:\[.*?\]\s*)?>", re.IGNORECASE | re.DOTALL)
_UNSEEN = ("script", "style", "noscript", "template", "svg", "nav", "head", "iframe", "object")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = {"p", "div", "section", "article", "main", "header", "footer", "aside", "ul", "ol", "dl", "table", "blockquote", "figure",
           "figcaption", "form", "fieldset", "address", "hr", "pre", "dt", "dd", "details", "summary", "body"}  # fmt: skip
_OLE = b"\xd0\xcf\x11\xe0"


def stem(path: Path) -> str:
    """The file's name without its suffix."""
    return re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE).rsplit(".", 1)[0]


def text_file(path: Path, limits: CorpusSettings) -> Iterator[Parsed]:
    """Text as it is."""
    text, note = decoded(whole(path, limits))
    yield Parsed(stem(path), cleaned(text), lines=True, note=note)


def markdown_file(path: Path, limits: CorpusSettings) -> Iterator[Parsed]:
    """Markdown as it is: its headings are the sections. Front matter gives the title and is blanked, so that lines keep their numbers."""
    text, note = decoded(whole(path, limits))
    text, title = cleaned(text), ""
    front = _FRONT_MATTER.match(text)
    if front:
        named = re.search(r"^title:\s*(.+?)\s*$", front.group(1), re.MULTILINE)
        title = named.group(1).strip("\"'") if named else ""
        text = "\n" * front.group().count("\n") + text[front.end() :]
    heading = re.search(r"^#\s+(\S.*?)\s*#*$", text, re.MULTILINE)
    yield Parsed(title or (heading.group(1) if heading else stem(path)), text, lines=True, note=note)


def html_file(path: Path, limits: CorpusSettings) -> Iterator[Parsed]:
    """What a page says: its headings as Markdown ones, its blocks as paragraphs; scripts, styles and navigation left out.

    Raises:
        Unreadable: it is nested deeper than libxml2 reads without being told to trust it.
    """
    from lxml import etree, html

    raw = whole(path, limits)
    declared = _META_CHARSET.search(raw[:4096])
    text, note = decoded(raw, declared.group(1).decode("ascii") if declared else "")
    text = _DOCTYPE.sub("", text, count=1)  # with whatever entities it declares
    if not text.strip():
        yield Parsed(stem(path), "")
        return
    parser = html.HTMLParser(encoding="utf-8", no_network=True, huge_tree=False, remove_comments=True, remove_pis=True)
    root = html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise Unreadable("HTML nested too deeply")
    title = " ".join((root.findtext(".//title") or "").split())
    etree.strip_elements(root, *_UNSEEN, with_tail=False)
    first = next((" ".join(node.text_content().split()) for node in root.iter("h1")), "")
    yield Parsed(title or first or stem(path), _page_text(root), note=note)


def _page_text(root: Any) -> str:
    from lxml import etree

    out, verbatim = [""], 0
    for event, node in etree.iterwalk(root, events=("start", "end")):
        tag, begins = node.tag, event == "start"
        verbatim += (1 if begins else -1) * (tag in {"pre", "textarea"})
        if tag in _HEADINGS:
            out.append(f"\n\n{'#' * _HEADINGS[tag]} " if begins else "\n\n")
        elif tag in _BLOCKS:
            out.append("\n\n")
        elif begins and tag in {"li", "tr", "br"}:
            out.append({"li": "\n- ", "tr": "\n", "br": "\n"}[tag])
        elif begins and tag in {"td", "th"} and node.getprevious() is not None:
            out.append(" | ")
        words = node.text if begins else node.tail
        if words and not verbatim:
            words = re.sub(r"\s+", " ", words)
            words = words.lstrip() if out[-1].endswith(("\n", " ")) else words
        if words:
            out.append(words)
    return plain("".join(out))


def pdf_file(path: Path, limits: CorpusSettings) -> Iterator[Parsed]:
    """The text of a PDF, page after page.

    Raises:
        Unreadable: it has a password, too many pages, or no text at all, as a scan has none.
    """
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # what it repairs is no news to whoever reads the list of files
    reader = PdfReader(io.BytesIO(whole(path, limits)), strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("it has a password; save a copy without one")
    if len(reader.pages) > limits.max_pages:
        raise Unreadable(f"{len(reader.pages)} pages, more than corpus.max_pages={limits.max_pages}")
    text, pages = "", []
    for page in reader.pages:
        pages.append(len(text))
        words = plain(page.extract_text())
        text += f"{words}\n\n" if words else ""
        if len(text) > limits.max_characters:
            break  # what more there is changes nothing: it is too long
    if not text:
        raise Unreadable("no text: the pages are pictures, and need OCR first")
    title = " ".join(str((reader.metadata or {}).get("/Title") or "").split())
    yield Parsed(title or stem(path), text, pages=tuple(pages))


def docx_file(path: Path, limits: CorpusSettings) -> Iterator[Parsed]:
    """The body of a Word document: headings as Markdown ones, paragraphs, and tables a row a line.

    Raises:
        Unreadable: it is no DOCX, has a password, or unpacks to more than the limits.
    """
    from docx import Document
    from docx.table import Table

    raw = whole(path, limits)
    if raw.startswith(_OLE):
        raise Unreadable("it has a password, or is a DOC of before 2007; save it as DOCX without a password")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as packed:  # reading stops at these sizes, whatever else the archive holds
            unpacked = sum(entry.file_size for entry in packed.infolist())
    except zipfile.BadZipFile as error:
        raise Unreadable(f"no DOCX file ({error})") from error
    if unpacked > limits.max_unpacked_mb * MIB:
        raise Unreadable(f"it unpacks to {unpacked / MIB:.0f} MB, more than corpus.max_unpacked_mb={limits.max_unpacked_mb}")
    document = Document(io.BytesIO(raw))
    parts = [_table(block) if isinstance(block, Table) else _paragraph(block) for block in document.iter_inner_content()]
    text = plain("\n\n".join(filter(None, parts)))
    heading = re.search(r"^#\s+(\S.*)$", text, re.MULTILINE)
    title = " ".join((document.core_properties.title or "").split())
    yield Parsed(title or (heading.group(1) if heading else stem(path)), text)


def _paragraph(paragraph: Any) -> str:
    text = " ".join(paragraph.text.split()) if paragraph.text else ""
    style = ((paragraph.style.name if paragraph.style is not None else "") or "").lower()
    level = re.match(r"heading (\d)", style)
    if text and (level or style == "title"):
        return f"{'#' * min(6, int(level.group(1)) if level else 1)} {text}"
    return f"- {text}" if text and style.startswith("list") else text


def _table(table: Any) -> str:
    rows = []
    for row in table.rows:
        cells: dict[int, str] = {id(cell._tc): " ".join(cell.text.split()) for cell in row.cells}  # a merged cell comes once a column
        rows.append(" | ".join(cells.values()))
    return "\n".join(rows)
