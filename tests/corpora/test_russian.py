"""The packaged Russian text, and a user's own in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo

from curriculum.corpora.documents import COLUMNS, language_of
from curriculum.corpora.russian import PACKAGED, SHORTEST, load_russian, messages
from curriculum.errors import DataError
from curriculum.sources import dataset_folder, identify


def test_the_packaged_text_is_russian_and_every_document_stands_once() -> None:
    table = load_russian(dataset_folder(PACKAGED), PACKAGED)
    assert list(table.columns) == COLUMNS and table["doc_id"].is_unique and table["text"].is_unique
    assert len(table) > 1_000 and table["text"].str.len().sum() > 60_000 and table["text"].str.len().min() >= SHORTEST
    assert set(table["language"]) == {"ru"} and all(language_of(text) == "ru" for text in table["text"])
    assert identify(PACKAGED, dataset_folder(PACKAGED), "corpus").digest


def test_messages_of_a_catalogue(tmp_path: Path) -> None:
    catalogue = Catalog(locale="ru")
    catalogue.add("Restart the kernel", "Перезапустить ядро сейчас")
    catalogue.add(("%d file", "%d files"), ("Удалён %d файл навсегда", "Удалено %d файла навсегда", "Удалено %d файлов навсегда"))
    catalogue.add("OK", "Да")
    catalogue.add("Not translated", "")
    catalogue.add("Python documentation of numpy", "Python documentation of numpy")
    with (tmp_path / "one.mo").open("wb") as stream:
        write_mo(stream, catalogue)
    assert set(messages(tmp_path / "one.mo")) == {
        "Перезапустить ядро сейчас", "Удалён %d файл навсегда", "Да", "Python documentation of numpy"
    }  # fmt: skip
    table = load_russian(tmp_path, PACKAGED)
    assert set(table["text"]) == {"Перезапустить ядро сейчас", "Удалён %d файл навсегда"}, "short and English ones are no documents"
    assert set(table["source"]) == {"one"}


def test_own_files_and_a_folder_without_russian(tmp_path: Path) -> None:
    (tmp_path / "а.txt").write_text("Сколько токенов занимает это предложение?", encoding="utf-8")
    (tmp_path / "b.txt").write_text("An English text.", encoding="utf-8")
    assert list(load_russian(tmp_path, f"path:{tmp_path}")["text"]) == ["Сколько токенов занимает это предложение?"]
    (tmp_path / "а.txt").unlink()
    with pytest.raises(DataError, match=r"no Russian text; correct corpora\.russian_source"):
        load_russian(tmp_path, f"path:{tmp_path}")
    with pytest.raises(DataError, match="holds no documents"):
        load_russian(tmp_path / "empty", PACKAGED)
