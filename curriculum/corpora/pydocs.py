"""Python's own documentation, which every user already has: the language reference and docstrings, read without importing.

Docstrings are taken from source files by ``ast``, so collecting a library's never runs it; only the C modules of the
standard library, which have no source to parse, are inspected.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from curriculum.corpora.deduplicate import clusters
from curriculum.corpora.documents import cut_at_paragraph, document, documents_table, first_sentence, plain
from curriculum.corpora.settings import CorporaSettings
from curriculum.errors import SourceError

_SKIPPED = {"tests", "test", "idlelib", "lib2to3", "turtledemo", "site-packages", "_vendor", "vendor", "conftest", "__pycache__"}
_C_MODULES = ("math", "itertools", "time", "sys", "array", "zlib", "unicodedata", "_collections", "_struct", "gc", "atexit", "errno")


def collect_pydocs(settings: CorporaSettings) -> pd.DataFrame:
    """The documents of the language reference, the standard library and ``settings.libraries``, near-duplicates removed.

    Raises:
        SourceError: a library of the settings is not installed.
    """
    rows = [*language_reference(), *_c_docstrings(settings), *stdlib_docstrings(settings)]
    for library in settings.libraries:
        rows.extend(_bounded(library_docstrings(library, settings), settings.library_characters))
    rows = [row | _cut(row, settings.maximum_characters) for row in rows]
    rows = list({row["doc_id"]: row for row in rows}.values())
    first = clusters([row["text"] for row in rows], settings.near_duplicate_jaccard)
    return documents_table([row for i, row in enumerate(rows) if first[i] == i], "the Python documentation")


def _cut(row: dict[str, str], limit: int) -> dict[str, str]:
    from curriculum.corpora.documents import text_digest

    text = cut_at_paragraph(row["text"], limit)
    return {"text": text, "digest": text_digest(text)}


def _bounded(rows: Iterable[dict[str, str]], characters: int) -> Iterator[dict[str, str]]:
    taken = 0
    for row in rows:
        if taken >= characters:
            return
        taken += len(row["text"])
        yield row


def language_reference() -> Iterator[dict[str, str]]:
    """The pages of the language reference that ship with the interpreter (``pydoc_data.topics``)."""
    from pydoc_data import topics

    for name, page in sorted(topics.topics.items()):
        text = plain(re.sub(r"(?m)^[*=~^\"-]{3,}$", "", page))
        heading = next((line for line in text.splitlines() if line.strip()), name).strip()
        yield document(
            f"language-reference/{name}", heading, text, source="language-reference", module="", qualified_name=name,
            kind="topic", summary="",
        )


def stdlib_docstrings(settings: CorporaSettings) -> Iterator[dict[str, str]]:
    """Docstrings of the standard library's Python sources, private modules left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return _tree_docstrings(root, "", "stdlib", settings)


def library_docstrings(library: str, settings: CorporaSettings) -> Iterator[dict[str, str]]:
    """Docstrings of an installed library's Python sources, shallow modules first (they hold what users call)."""
    spec = importlib.util.find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"corpora.libraries names '{library}', which is not installed; install it or take it off the list")
    return _tree_docstrings(Path(next(iter(spec.submodule_search_locations))), library, library, settings)


def _tree_docstrings(root: Path, package: str, source: str, settings: CorporaSettings) -> Iterator[dict[str, str]]:
    paths = [p for p in root.rglob("*.py") if not _skipped(p.relative_to(root))]
    for path in sorted(paths, key=lambda p: (len(p.relative_to(root).parts), str(p))):
        parts = [*([package] if package else []), *path.relative_to(root).with_suffix("").parts]
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, RecursionError):
            continue  # a file this interpreter cannot read (templates, other encodings) documents nothing it can run
        yield from _docstrings(tree, module, "", source, settings)


def _skipped(relative: Path) -> bool:
    names = [*relative.parts[:-1], relative.stem]
    return any(n in _SKIPPED or n.startswith("test_") or (n.startswith("_") and n != "__init__") for n in names)


def _docstrings(node: Any, module: str, outer: str, source: str, settings: CorporaSettings) -> Iterator[dict[str, str]]:
    text = plain(ast.get_docstring(node) or "")
    name = outer or module
    if len(text) >= settings.minimum_characters and name:
        qualified = f"{module}.{outer}" if outer else module
        yield _row(qualified, text, source, module, _kind(node, outer))
    for child in getattr(node, "body", []):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            nested = f"{outer}.{child.name}" if outer else child.name
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _docstrings(child, module, nested, source, settings)


def _kind(node: Any, outer: str) -> str:
    if isinstance(node, ast.Module):
        return "module"
    if isinstance(node, ast.ClassDef):
        return "class"
    return "method" if "." in outer else "function"


def _row(qualified: str, text: str, source: str, module: str, kind: str) -> dict[str, str]:
    summary = first_sentence(text)
    return document(
        f"{source}/{qualified}", qualified, text, source=source, module=module, qualified_name=qualified, kind=kind, summary=summary
    )


def _c_docstrings(settings: CorporaSettings) -> Iterator[dict[str, str]]:
    """Docstrings of builtins and of standard C modules, which are loaded in every interpreter anyway."""
    for name in ("builtins", *_C_MODULES):
        if name not in sys.builtin_module_names and importlib.util.find_spec(name) is None:
            continue
        module = importlib.import_module(name)
        public = name.lstrip("_")
        for member, value in sorted(vars(module).items()):
            text = plain(inspect.cleandoc(value.__doc__)) if isinstance(getattr(value, "__doc__", None), str) else ""
            if not member.startswith("_") and callable(value) and len(text) >= settings.minimum_characters:
                kind = "class" if inspect.isclass(value) else "function"
                yield _row(f"{public}.{member}", text, "stdlib", public, kind)
