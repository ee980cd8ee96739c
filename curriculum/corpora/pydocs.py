"""Python's own documentation, which every user already has: the language reference, the standard library, installed libraries."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pandas as pd

from curriculum.corpora.deduplicate import clusters
from curriculum.corpora.docstrings import Docstring, clean_docstring, docstrings_below, says_something
from curriculum.corpora.documents import cut_at_paragraph, documents_table, text_digest
from curriculum.corpora.reference import language_reference
from curriculum.corpora.settings import CorporaSettings
from curriculum.errors import SourceError

# C modules of the standard library: they have no source to parse, and importing them runs nothing but themselves
_C_MODULES = (
    "builtins", "array", "atexit", "binascii", "cmath", "errno", "gc", "itertools", "math", "select", "sys", "time",
    "unicodedata", "zlib", "_bisect", "_collections", "_csv", "_datetime", "_decimal", "_functools", "_heapq", "_io", "_json",
    "_operator", "_random", "_sqlite3", "_struct", "_thread", "_weakref",
)


def collect_pydocs(settings: CorporaSettings, *, progress: Callable[[str], None] = lambda line: None) -> pd.DataFrame:
    """The documents of the language reference, the standard library and ``settings.libraries``, near-duplicates removed.

    Raises:
        SourceError: a library of the settings is not installed.
    """
    rows = list(language_reference())
    found = [*_stdlib(), *_c_docstrings()]
    rows += [d.row("stdlib") for d in found if says_something(d.text, settings.minimum_characters)]
    progress(f"{len(rows)} documents of the language reference and the standard library")
    for library in settings.libraries:
        public = docstrings_below(library_folder(library), library)
        useful = [d for d in public if says_something(d.text, settings.minimum_characters)]
        chosen = list(_bounded(_breadth_first(useful), settings.library_characters))
        rows += [d.row(library) for d in chosen]
        progress(f"{len(chosen)} of {len(useful)} docstrings of {library}")
    rows = [_cut(row, settings.maximum_characters) for row in rows if len(row["text"]) >= settings.minimum_characters]
    first = clusters([row["text"] for row in rows], settings.near_duplicate_jaccard)
    kept = [row for index, row in enumerate(rows) if first[index] == index]
    progress(f"{len(kept)} documents kept, {len(rows) - len(kept)} repeats and near-duplicates left out")
    return documents_table(_numbered(kept), "the Python documentation")


def library_folder(library: str) -> Path:
    """Where an installed package's sources are, found without importing it.

    Raises:
        SourceError: it is not installed, or is a single C file.
    """
    spec = importlib.util.find_spec(library) if library.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(
            f"corpora.libraries names '{library}', which is no installed package; install it or take it off the list"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _stdlib() -> Iterator[Docstring]:
    return docstrings_below(Path(sysconfig.get_paths()["stdlib"]), "")


def _breadth_first(found: Iterable[Docstring]) -> list[Docstring]:
    """First docstrings of every module first, shallow modules before deep ones: a budget then cuts depth and not breadth."""
    ranked: list[tuple[int, int, str, Docstring]] = []
    seen: dict[str, int] = {}
    for docstring in found:
        rank = seen[docstring.module] = seen.get(docstring.module, -1) + 1
        ranked.append((rank, docstring.module.count("."), docstring.qualified_name, docstring))
    return [item[-1] for item in sorted(ranked, key=lambda item: item[:3])]


def _bounded(found: Iterable[Docstring], characters: int) -> Iterator[Docstring]:
    taken = 0
    for docstring in found:
        taken += len(docstring.text)
        if taken > characters:
            return
        yield docstring


def _cut(row: dict[str, str], limit: int) -> dict[str, str]:
    text = cut_at_paragraph(row["text"], limit)
    return row | {"text": text, "digest": text_digest(text)}


def _numbered(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Definitions of one name that say different things (one a platform, one a fallback) get ids ending in ~2, ~3, ..."""
    seen: dict[str, int] = {}
    out = []
    for row in rows:
        count = seen[row["doc_id"]] = seen.get(row["doc_id"], 0) + 1
        out.append(row if count == 1 else row | {"doc_id": f"{row['doc_id']}~{count}"})
    return out


def _c_docstrings() -> Iterator[Docstring]:
    """Docstrings of the functions, classes and methods of the standard library's C modules."""
    for name in _C_MODULES:
        if importlib.util.find_spec(name) is not None:  # which ones exist depends on how the interpreter was built
            yield from _members(importlib.import_module(name), name.lstrip("_"))


def _members(module: ModuleType, public: str) -> Iterator[Docstring]:
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or not callable(value):
            continue
        if text := _doc_of(value):
            yield Docstring(public, name, "class" if inspect.isclass(value) else "function", text)
        if inspect.isclass(value):
            for member, method in sorted(vars(value).items()):
                if not member.startswith("_") and (text := _doc_of(method)):
                    yield Docstring(public, f"{name}.{member}", "method", text)


def _doc_of(value: object) -> str:
    doc = getattr(value, "__doc__", None)
    return clean_docstring(doc) if isinstance(doc, str) else ""
