"""Docstrings read from Python sources by ``ast``: collecting a library's never imports, and so never runs, it."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

from curriculum.corpora.documents import document, first_sentence, plain

_SKIPPED_FOLDERS = {
    "test", "tests", "testing", "_testing", "idlelib", "lib2to3", "turtledemo", "ensurepip", "distutils", "pydoc_data",
    "site-packages", "_vendor", "vendor", "vendored", "_vendored", "externals", "_pyinstaller", "__pycache__",
}
# :class:`~os.PathLike`, :ref:`text <label>`
_ROLE = re.compile(r":(?:py:|c:|std:)?[a-zA-Z]+:`~?\.?([^`<>]+?)(?:\s*<[^`<>]*>)?`")
_DOCTEST_OPTION = re.compile(r"[ \t]*#\s*doctest:.*$", re.MULTILINE)
# lines that are filled in only when the library is imported
_PLACEHOLDER = re.compile(r"^[ \t]*(?:%\(\w+\)s|\{\w+\}|\$\{?\w+\}?)[ \t]*$\n?", re.MULTILINE)


@dataclass(frozen=True)
class Docstring:
    """One docstring and whose it is. ``name`` is the dotted name inside ``module``, empty for the module itself."""

    module: str
    name: str
    kind: str
    text: str

    @property
    def qualified_name(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module

    def row(self, source: str) -> dict[str, str]:
        """The docstring as a row of the documents table."""
        name = self.qualified_name
        return document(
            f"{source}/{name}", name, self.text, source=source, module=self.module, qualified_name=name, kind=self.kind,
            summary=first_sentence(self.text),
        )


def clean_docstring(raw: str) -> str:
    """A docstring as a reader sees it: not indented, roles replaced by their text, no doctest options, no unfilled templates."""
    text = _DOCTEST_OPTION.sub("", cleandoc(raw))
    text = _PLACEHOLDER.sub("", text)
    return plain(_ROLE.sub(r"\1", text))


def says_something(text: str, minimum_characters: int) -> bool:
    """Whether a docstring is long enough, and of words rather than of symbols."""
    letters = sum(map(str.isalpha, text))
    solid = len("".join(text.split()))
    return len(text) >= minimum_characters and letters >= 0.5 * solid


def docstrings_below(root: Path, package: str) -> Iterator[Docstring]:
    """Every public docstring of the Python files under ``root``, whose import name is ``package`` ("" for a folder of modules).

    Modules with a leading underscore are read (numpy, scipy and scikit-learn define their public functions there); private
    classes and functions are not. Files that this interpreter cannot parse are left out: they document nothing it can run.
    """
    for path in sorted(p for p in root.rglob("*.py") if not _skipped(p.relative_to(root))):
        parts = [*([package] if package else []), *path.relative_to(root).with_suffix("").parts]
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if tree := _parse(path):
            yield from _of_module(tree, module)


def _skipped(relative: Path) -> bool:
    folders, stem = relative.parts[:-1], relative.stem
    return bool(_SKIPPED_FOLDERS & {*folders, stem}) or stem.startswith("test_") or stem in {"conftest", "__main__"}


def _parse(path: Path) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's sources
        try:
            return ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError):
            return None


def _of_module(tree: ast.Module, module: str) -> Iterator[Docstring]:
    if module and (text := _own_text(tree)):
        yield Docstring(module, "", "module", text)
    yield from _of_body(tree.body, module, "")


def _of_body(body: list[ast.stmt], module: str, outer: str) -> Iterator[Docstring]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _of_definition(node, module, outer)
        elif isinstance(node, ast.If | ast.Try | ast.With):  # definitions that depend on the platform or on an import
            branches = [node.body, getattr(node, "orelse", []), *(handler.body for handler in getattr(node, "handlers", []))]
            for branch in branches:
                yield from _of_body(branch, module, outer)
        elif isinstance(node, ast.Expr) and not outer:
            yield from _of_added(node.value)


def _of_definition(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, module: str, outer: str) -> Iterator[Docstring]:
    if node.name.startswith("_") and not (node.name.startswith("__") and node.name.endswith("__")):
        return
    name = f"{outer}.{node.name}" if outer else node.name
    is_class = isinstance(node, ast.ClassDef)
    if text := _own_text(node):
        yield Docstring(module, name, "class" if is_class else "method" if outer else "function", text)
    if is_class:
        yield from _of_body(node.body, module, name)


def _own_text(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return clean_docstring(ast.get_docstring(node, clean=False) or "")


def _of_added(call: ast.expr) -> Iterator[Docstring]:
    """numpy documents its C functions by calls: ``add_newdoc(place, name, doc)``, or ``(member, doc)`` in place of ``doc``."""
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        return
    if call.func.id != "add_newdoc" or len(call.args) != 3:
        return
    place, name, doc = map(_literal, call.args)
    member, text = doc if isinstance(doc, tuple) and len(doc) == 2 else ("", doc)
    if not all(isinstance(value, str) for value in (place, name, member, text)):
        return
    kind = "method" if member else "class" if name in {"ndarray", "dtype", "ufunc", "nditer", "broadcast"} else "function"
    yield Docstring(str(place), f"{name}.{member}" if member else str(name), kind, clean_docstring(text))


def _literal(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
