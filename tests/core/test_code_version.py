"""The code version: changes when what a computation can reach changes, and only then."""

from __future__ import annotations

import ast

from curriculum import code_version as subject


def _version(body: str) -> str:
    return subject._normal_form(ast.parse(body))


def test_comments_and_docstrings_do_not_count() -> None:
    assert _version('def f():\n    """Doc."""\n    return 1  # why\n') == _version("def f():\n    return 1\n")


def test_a_changed_constant_counts() -> None:
    assert _version("def f():\n    return 1\n") != _version("def f():\n    return 2\n")


def test_the_closure_follows_imports_of_imports() -> None:
    reached = subject._closure(frozenset({"curriculum.evaluation.gate"}))
    assert {"curriculum.evaluation.gate", "curriculum.storage", "curriculum.syllabus", "curriculum.errors"} <= reached
    assert "curriculum.hardware" not in reached


def _study() -> None:
    from curriculum.evaluation.statistics import bootstrap_mean

    bootstrap_mean([])


def test_an_import_inside_the_body_is_part_of_the_version() -> None:
    tree = ast.parse("def f():\n    from curriculum.evaluation.statistics import bootstrap_mean\n")
    assert subject._imports(tree) == {"curriculum.evaluation.statistics"}
    assert len(subject.code_version(_study)) == 16
