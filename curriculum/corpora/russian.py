"""Russian text that every installation has: the messages of JupyterLab's Russian language pack, translated by people (BSD-3-Clause).

They are sentences and phrases of a user interface about code, not prose: short, with English names among them. It is what the
lock can pin at 0.2 MB; ``path:DIR`` in ``corpora.russian_source`` puts any other Russian text in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from curriculum.corpora.documents import document, documents_table, language_of, plain, text_digest
from curriculum.corpora.readers import read_documents
from curriculum.errors import DataError

PACKAGED = "packaged:jupyterlab-ru"
SHORTEST = 20  # characters: labels of buttons and menus say too little to be a document


def load_russian(folder: Path, source: str) -> pd.DataFrame:
    """The documents of ``source``, whose files lie in ``folder``: the packaged catalogues' messages, or a user's own files.

    Raises:
        DataError: the folder holds no Russian document.
    """
    if source != PACKAGED:
        table = read_documents(folder)
        russian = table[table["language"] == "ru"].reset_index(drop=True)
        if russian.empty:
            raise DataError(f"{folder} holds no Russian text; correct corpora.russian_source in the profile")
        return russian
    texts: dict[str, str] = {}
    for catalogue in sorted(folder.rglob("*.mo")):
        for text in messages(catalogue):
            if len(text) >= SHORTEST and language_of(text) == "ru":
                texts.setdefault(text, catalogue.stem)
    rows = [document(f"{name}/{text_digest(text)[:12]}", "", text, source=name, language="ru") for text, name in texts.items()]
    return documents_table(rows, f"{source} ({folder})")


def messages(catalogue: Path) -> Iterator[str]:
    """The translations of a compiled gettext catalogue (.mo), its header left out; of plural forms the first."""
    from babel.messages.mofile import read_mo

    with catalogue.open("rb") as stream:
        for message in read_mo(stream):
            first = message.string[0] if isinstance(message.string, tuple | list) else message.string
            if message.id and first:
                yield plain(first)
