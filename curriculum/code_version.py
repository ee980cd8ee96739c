"""The version of a computation's code, read from the code: a hash over every project module it can reach.

Comments, formatting and docstrings do not count, so an edit that cannot change a result does not throw one away.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent


def code_version(function: Callable[..., Any]) -> str:
    """First 16 hex digits of SHA-256 over ``function`` and the ``curriculum`` modules it imports, directly or not."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    modules = _closure(frozenset(_imports(tree)))
    parts = [_normal_form(tree), *(f"{name}:{_parsed(name)[1]}" for name in sorted(modules))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _module_file(name: str) -> Path | None:
    path = _ROOT.joinpath(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((c for c in candidates if c.is_file()), None)


def _imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "curriculum":
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.split(".")[0] == "curriculum")
    return {name for name in found if _module_file(name) is not None}


def _normal_form(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


@cache
def _parsed(name: str) -> tuple[frozenset[str], str]:
    path = _module_file(name)
    assert path is not None, name
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = frozenset(_imports(tree))
    return imports, hashlib.sha256(_normal_form(tree).encode()).hexdigest()


@cache
def _closure(start: frozenset[str]) -> frozenset[str]:
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(_parsed(name)[0])
    return frozenset(seen)
