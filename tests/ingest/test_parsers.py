"""Every kind of file, read from real ones; what is broken or meant to do harm is a reason in a list, never an exception."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.errors import MemoryLimitError
from curriculum.ingest import parsers
from curriculum.ingest.parsers import PARSERS, Parser, parse, parser_of
from curriculum.ingest.reading import Broken, Parsed
from curriculum.ingest.settings import CorpusSettings
from tests.ingest.files import docx, docx_with, parquet, pdf

LIMITS = CorpusSettings()


def read(path: Path, **limits: object) -> list[Parsed]:
    """The documents of a file that is whole."""
    found = list(parse(path, CorpusSettings(**limits)))
    assert not any(isinstance(item, Broken) for item in found), found
    return found  # type: ignore[return-value]


def reasons(path: Path, **limits: object) -> list[str]:
    """Why a file, or parts of it, are left out."""
    return [item.text() for item in parse(path, CorpusSettings(**limits)) if isinstance(item, Broken)]


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_markdown_has_its_title_and_keeps_its_lines(tmp_path: Path) -> None:
    (page,) = read(write(tmp_path / "a.md", "---\ntitle: \"On swifts\"\ntags: [x]\n---\n# Heading\r\n\r\nText.\x0c\n"))
    assert page.title == "On swifts" and page.lines
    assert page.text.split("\n")[4:7] == ["# Heading", "", "Text. "] and "tags" not in page.text
    assert read(write(tmp_path / "b.md", "intro\n\n## two\n\n# One #\n"))[0].title == "One"
    assert read(write(tmp_path / "c.d.txt", "plain"))[0] == Parsed("c.d", "plain", lines=True)


@pytest.mark.parametrize(
    ("raw", "note"),
    [("\ufeffГоры".encode(), ""), ("Горы".encode("utf-16"), "read as UTF-16"), (("Высокие горы и глубокие реки, леса и поля. " * 8).encode("cp1251"), "not UTF-8, read as ")],
)
def test_an_encoding_is_found_and_said(tmp_path: Path, raw: bytes, note: str) -> None:
    (page,) = read(write(tmp_path / "a.txt", raw))
    assert ("горы" in page.text.lower() or note.startswith("not")) and page.note.startswith(note) and not page.text.startswith("\ufeff")


def test_what_is_no_text_is_said_so(tmp_path: Path) -> None:
    assert reasons(write(tmp_path / "a.txt", b"\x89PNG\r\n\x1a\n\x00\x00")) == ["binary, not text"]
    assert reasons(write(tmp_path / "b.txt", b"a" * 200_000 + b"\xff")) == ["utf-8 up to byte 200000, which is none of its characters; save it as UTF-8"]
    assert reasons(write(tmp_path / "c.txt", " \n")) == ["no text"]
    assert reasons(write(tmp_path / "d.txt", "a" * 101), max_characters=100) == ["more than corpus.max_characters=100 characters"]
    assert reasons(write(tmp_path / "e.txt", b"a" * (2**20 + 1)), max_file_mb=1) == ["1 MB, more than corpus.max_file_mb=1"]


def test_gzip_is_read_broken_gzip_is_said_and_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    packed = gzip.compress(b"some text")
    assert read(write(tmp_path / "a.md.gz", packed))[0].text == "some text"
    assert reasons(write(tmp_path / "b.txt.gz", packed[:-6])) == ["broken gzip (Compressed file ended before the end-of-stream marker was reached)"]
    assert reasons(write(tmp_path / "c.txt.gz", gzip.compress(bytes(3 * 2**20))), max_unpacked_mb=2) == ["it holds more than corpus.max_unpacked_mb=2"]
    assert parser_of("a.pdf.gz") is None and parser_of("A.HTML.GZ") is not None


PAGE = """<!doctype html><html><head><title> The
 swift </title><style>p {}</style></head><body><nav>home</nav><h1>Swifts</h1>
<p>They sleep <b>on the</b> wing.<script>alert(1)</script><!-- no --> Always.</p><h2>Food</h2><ul><li>flies<li>gnats</ul>
<table><tr><th>bird<th>grams<tr><td>swift<td>40</table><pre>  a
    b</pre>tail</body></html>"""


def test_html_is_what_a_page_says(tmp_path: Path) -> None:
    (page,) = read(write(tmp_path / "a.html", PAGE))
    assert page.title == "The swift"
    assert page.text == "# Swifts\n\nThey sleep on the wing. Always.\n\n## Food\n\n- flies\n- gnats\n\nbird | grams\nswift | 40\n\n  a\n    b\n\ntail"
    declared = '<meta charset="windows-1251"><h1>Горы</h1>'.encode("cp1251")
    assert read(write(tmp_path / "b.htm", declared)) == [Parsed("Горы", "# Горы", note="read as windows-1251")]


def test_html_that_means_harm_or_is_too_deep(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the secret")
    entity = f'<!DOCTYPE html [<!ENTITY x SYSTEM "file://{tmp_path}/secret"><!ENTITY y "{"z" * 1000}">]><html><body><p>a &x; &y; b</p></body></html>'
    (page,) = read(write(tmp_path / "a.xhtml", entity))
    assert page.text == "a &x; &y; b"
    assert reasons(write(tmp_path / "b.html", "<div>" * 5000 + "<p>text</p>")) == ["HTML nested too deeply"]
    assert reasons(write(tmp_path / "c.html", "")) == ["no text"]


def test_pdf_has_pages_and_without_text_a_reason(tmp_path: Path) -> None:
    (page,) = read(pdf(tmp_path / "a.pdf", ["A heron stands.", "", "It strikes."], title="On herons"))
    assert page.title == "On herons" and [page.text[at:].split("\n")[0] for at in (page.pages[0], page.pages[2])] == ["A heron stands.", "It strikes."]
    assert reasons(pdf(tmp_path / "b.pdf", ["secret"], password="key")) == ["it has a password; save a copy without one"]
    assert reasons(pdf(tmp_path / "c.pdf", ["", ""])) == ["no text: the pages are pictures, and need OCR first"]
    assert reasons(tmp_path / "a.pdf", max_pages=2) == ["3 pages, more than corpus.max_pages=2"]
    (cut,) = reasons(write(tmp_path / "d.pdf", (tmp_path / "a.pdf").read_bytes()[:60]))
    assert cut.startswith("Pdf")


def test_docx_has_headings_lists_and_tables(tmp_path: Path) -> None:
    (page,) = read(docx(tmp_path / "a.docx"))
    assert page == Parsed("On herons", "# Where they stand\n\nIn shallow water, for an hour.\n\n- frogs\n\nbird | weight\nheron | 1.5 kg")


def test_docx_that_is_none_or_means_harm(tmp_path: Path) -> None:
    assert reasons(write(tmp_path / "a.docx", "text")) == ["no DOCX file (File is not a zip file)"]
    assert reasons(write(tmp_path / "b.docx", b"\xd0\xcf\x11\xe0" + bytes(100)))[0].startswith("it has a password, or is a DOC of before 2007")
    assert reasons(docx_with(tmp_path / "c.docx", bytes(3 * 2**20)), max_unpacked_mb=2) == ["it unpacks to 4 MB, more than corpus.max_unpacked_mb=2"]
    (tmp_path / "secret").write_text("the secret")
    word = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    body = f'<!DOCTYPE d [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]><w:document {word}><w:body><w:p><w:r><w:t>a &x; b</w:t></w:r></w:p></w:body></w:document>'
    found = list(parse(docx_with(tmp_path / "d.docx", body.encode()), LIMITS))
    assert "the secret" not in str(found)
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 9))
    body = f'<!DOCTYPE d [<!ENTITY l0 "ha">{laughs}]><w:document {word}><w:body><w:p><w:r><w:t>&l8;</w:t></w:r></w:p></w:body></w:document>'
    assert len(str(list(parse(docx_with(tmp_path / "e.docx", body.encode()), LIMITS)))) < 1000


def test_json_lines_keep_their_good_lines(tmp_path: Path) -> None:
    lines = [
        {"_id": 7, "title": "One", "text": "first"}, {"id": "b", "text": "second"}, {"text": "third"}, {"text": ["x"]}, {"body": "x"},
        {"id": "b", "text": "again"}, {"text": "\ud800"}, "x",
    ]  # fmt: skip
    raw = "\n".join(map(json.dumps, lines)) + '\n{"text": \n\n' + "[" * 100_000 + "\n"
    path = write(tmp_path / "a.jsonl", raw.encode() + b'{"text": "\xff"}\n')
    good = [item for item in parse(path, LIMITS) if isinstance(item, Parsed)]
    assert [(d.key, d.title, d.text, d.place) for d in good] == [("7", "One", "first", "line 1"), ("b", "", "second", "line 2"), ("3", "", "third", "line 3")]
    assert reasons(path) == [
        "line 4: the text is list; it must be text", "line 5: no text in 'text'", "line 6: the id 'b' stands twice",
        "line 7: the text holds half a surrogate pair", "line 8: expected an object, got str",
        "line 9: malformed JSON (Expecting value at column 9)", "line 11: JSON that is no data (RecursionError)", "line 12: not UTF-8 (byte 0xff)",
    ]  # fmt: skip
    assert reasons(write(tmp_path / "b.jsonl", b'{"text": "' + b"a" * 2**20 + b'"}'), max_file_mb=1) == ["line 1 is longer than 1 MB"]


def test_csv_of_every_kind(tmp_path: Path) -> None:
    commas = 'id,title,text\na,One,"two\nlines, quoted"\nb,Two\nc,Three,third\n'
    path = write(tmp_path / "a.csv", commas)
    assert [(d.key, d.text) for d in parse(path, LIMITS) if isinstance(d, Parsed)] == [("a", "two\nlines, quoted"), ("c", "third")]
    assert reasons(path) == ["row 2: 2 cells under 3 columns"]
    assert [d.text for d in read(write(tmp_path / "b.csv", "text;n\nsemi, colon;1\n"))] == ["semi, colon"]
    assert [d.text for d in read(write(tmp_path / "c.tsv", "n\ttext\n1\ttab, bed\n"))] == ["tab, bed"]
    assert reasons(write(tmp_path / "d.csv", "a,b\n1,2\n")) == ["no column 'text' among a, b; name it in corpus.text_field"]
    assert [d.key for d in read(write(tmp_path / "e.csv", "a,b\n1,2\n"), text_field="b", id_field="a")] == ["1"]
    assert reasons(write(tmp_path / "f.csv", 'text\n"never closed\n'))[0].startswith("from line 2 on: unexpected end of data")
    assert reasons(write(tmp_path / "g.csv", "text\n" + "a" * 200), max_characters=100)[0].startswith("from line 2 on: field larger than field limit (100)")


def test_parquet_is_read_by_its_columns(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", doc_id=[1, 2, 3], text=["one", None, "three"], vector=[[1.0]] * 3)
    assert [(d.key, d.text, d.place) for d in parse(path, LIMITS) if isinstance(d, Parsed)] == [("1", "one", "row 1"), ("3", "three", "row 3")]
    assert reasons(path) == ["row 2: no text in 'text'"]
    assert reasons(parquet(tmp_path / "b.parquet", body=["x"])) == ["no column 'text' among body; name it in corpus.text_field"]
    assert reasons(write(tmp_path / "c.parquet", "no table"))[0].startswith("ArrowInvalid: Parquet magic bytes not found")
    large = parquet(tmp_path / "d.parquet", text=[f"{n} " + "abc" * 700 for n in range(1000)])
    assert reasons(large, max_unpacked_mb=1) == ["a row group of 2 MB, more than corpus.max_unpacked_mb=1"]


def test_only_running_out_of_memory_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", "text")
    for error, raised in ((MemoryLimitError("memory"), True), (MemoryError(), True), (AssertionError("a library's"), False), (RecursionError(), False)):

        def read_it(path: Path, limits: CorpusSettings, error: Exception = error) -> object:
            raise error

        monkeypatch.setitem(parsers.PARSERS, ".txt", Parser("text", read_it))  # type: ignore[arg-type]
        if raised:
            with pytest.raises(type(error)):
                list(parse(path, LIMITS))
        else:
            assert reasons(path)[0].startswith(type(error).__name__)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PARSERS)), st.binary(max_size=300), st.booleans())
def test_no_bytes_break_the_reading(tmp_path_factory: pytest.TempPathFactory, suffix: str, raw: bytes, marked: bool) -> None:
    magic = {".pdf": b"%PDF-1.7\n", ".docx": b"PK\x03\x04", ".parquet": b"PAR1", ".html": b"<p>", ".csv": b"text\n", ".jsonl": b'{"text": '}
    path = write(tmp_path_factory.getbasetemp() / f"any{suffix}", (magic.get(suffix, b"") if marked else b"") + raw)
    found = list(parse(path, LIMITS))
    assert found or suffix in {".jsonl", ".ndjson", ".csv", ".tsv"}  # which may be empty
    assert all(item.text() if isinstance(item, Broken) else item.text.strip() for item in found)
