"""Small real files of every kind, written by the libraries that read them or by hand."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

BIRDS = {
    "heron": "The grey heron stands still in shallow water for an hour before it strikes at a frog.",
    "swift": "A young swift sleeps on the wing and does not touch the ground for two whole years.",
    "cuckoo": "The cuckoo lays its egg in the nest of a reed warbler while both parents are away.",
    "bittern": "The booming of a bittern carries five kilometres over a reed bed on a calm night.",
    "dipper": "A dipper walks along the bed of a stream against the current to turn over stones.",
    "curlew": "The curlew reaches worms with its long curved bill that no other wader can get at.",
    "wren": "A wren of nine grams is heard at half a kilometre when it sings from its woodpile.",
    "owl": "The barn owl hears a vole under the snow and takes it without seeing it at all.",
}


def story(name: str) -> str:
    """A heading, a sentence of its own, and more."""
    rest = f"Of the {name} one reads in old field books. It was drawn, counted and described every year, and the {name} is still seen there today."
    return f"# {name.title()}\n\n{BIRDS[name]} {rest}\n"


def birds(folder: Path) -> Path:
    """Eight Markdown files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in BIRDS:
        (folder / f"{name}.md").write_text(story(name), encoding="utf-8")
    return folder


def pdf(path: Path, pages: list[str], *, password: str = "", title: str = "") -> Path:
    """A PDF with a line of text a page (a page with "" is blank), by pypdf."""
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    font = DictionaryObject({NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1"), NameObject("/BaseFont"): NameObject("/Helvetica")})
    for text in pages:
        page = writer.add_blank_page(300, 300)
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): DictionaryObject({NameObject("/F1"): writer._add_object(font)})})
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode() if text else b"")
        page[NameObject("/Contents")] = writer._add_object(stream)
    if title:
        writer.add_metadata({"/Title": title})
    if password:
        writer.encrypt(password)
    writer.write(path)
    return path


def docx(path: Path) -> Path:
    """A Word document with a title, headings, a list and a table, by python-docx."""
    from docx import Document

    made = Document()
    made.core_properties.title = "On herons"
    made.add_heading("Where they stand", level=1)
    made.add_paragraph("In shallow water, for an hour.")
    made.add_paragraph("frogs", style="List Bullet")
    table = made.add_table(rows=2, cols=2)
    for row, cells in zip(table.rows, (("bird", "weight"), ("heron", "1.5 kg")), strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    made.save(str(path))
    return path


def docx_with(path: Path, document_xml: bytes) -> Path:
    """A Word document whose body is ``document_xml``."""
    original = io.BytesIO()
    docx_path = docx(path.with_name("original.docx"))
    original.write(docx_path.read_bytes())
    docx_path.unlink()
    with zipfile.ZipFile(original) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, document_xml if entry == "word/document.xml" else old.read(entry))
    return path


def parquet(path: Path, **columns: list[object]) -> Path:
    """A Parquet table."""
    pq.write_table(pa.table(columns), path)
    return path
