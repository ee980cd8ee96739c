"""Docstrings by ast from a package on disk, the language reference, C docstrings, budgets and identity of the whole corpus."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from curriculum.corpora import pydocs
from curriculum.corpora.docstrings import clean_docstring, docstrings_below, says_something
from curriculum.corpora.documents import COLUMNS, first_sentence
from curriculum.corpora.reference import language_reference, plain_topic, sections
from curriculum.corpora.settings import CorporaSettings
from curriculum.errors import SourceError

LONG = "This sentence is long enough to count as documentation of something that a reader would want to find, number {}."
SOURCE = f'''
"""Module documentation. {LONG.format(0)}"""
raise RuntimeError("collecting docstrings must not run this")
if True:
    def conditional():
        """Conditional function. {LONG.format(1)}"""
try:
    class Outer:
        """Outer class.

        {LONG.format(2)}
        """
        def method(self):
            """A method. {LONG.format(3)}"""
            def local():
                """A local function is nobody's interface. {LONG.format(4)}"""
        async def later(self):
            """An asynchronous method. {LONG.format(5)}"""
        def __call__(self):
            """Calling it. {LONG.format(6)}"""
except ImportError:
    def fallback():
        """In a handler. {LONG.format(7)}"""
def _private():
    """Private. {LONG.format(8)}"""
add_newdoc("pkg.core", "fast", """A C function. {LONG.format(9)}""")
add_newdoc("pkg.core", "ndarray", ("shape", """Its shape. {LONG.format(10)}"""))
add_newdoc("pkg.core", name_of_it, """No literal name. {LONG.format(11)}""")
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "madeup_library"
    for name, text in {
        "__init__.py": f'"""The package. {LONG.format(20)}"""', "_impl.py": SOURCE, "tests/test_it.py": SOURCE,
        "conftest.py": SOURCE, "broken.py": "def (:\n", "sub/copy.py": SOURCE, "sub/escape.py": f'"""\\d {LONG}"""',
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "latin.py").write_bytes(f'# -*- coding: latin-1 -*-\n"""Caf\u00e9. {LONG.format(21)}"""'.encode("latin-1"))
    monkeypatch.syspath_prepend(str(tmp_path))
    return root


def test_docstrings_are_found_where_they_are_public(package: Path) -> None:
    found = {d.qualified_name: d.kind for d in docstrings_below(package, "madeup_library") if ".sub." not in d.qualified_name}
    base = "madeup_library._impl"
    assert found == {
        "madeup_library": "module", "madeup_library.latin": "module", base: "module", f"{base}.conditional": "function",
        f"{base}.Outer": "class", f"{base}.Outer.method": "method", f"{base}.Outer.later": "method",
        f"{base}.Outer.__call__": "method", f"{base}.fallback": "function", "pkg.core.fast": "function",
        "pkg.core.ndarray.shape": "method",
    }
    assert "madeup_library" not in sys.modules
    latin = next(d for d in docstrings_below(package, "madeup_library") if d.name == "" and d.module.endswith("latin"))
    assert latin.text.startswith("Caf\u00e9.")


def test_cleaning_keeps_the_words() -> None:
    raw = """Return a :class:`~collections.abc.Mapping` as :ref:`a dict <label>`.   \r
        %(parameters)s

        Uses ``x % (y)s`` and :math:`a < b` in text.
            >>> f(1)  # doctest: +SKIP


        {see_also}
        End.\x00"""
    assert clean_docstring(raw) == (
        "Return a collections.abc.Mapping as a dict.\n\nUses ``x % (y)s`` and :math:`a < b` in text.\n    >>> f(1)\n\nEnd."
    )


def test_symbols_say_nothing() -> None:
    assert says_something(LONG, 100) and not says_something(LONG, 1000)
    assert not says_something("+-----+=====+ " * 20, 100)


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("Return one.\n\nMore.", "Return one."), ("Return\none. Then more.", "Return one."), ("See e.g. this", "See e.g. this"),
        ("=====\nTitle\n=====\n\nBody.", "Title"),
        ("Title\n-----\nBody.", "Title"), ("x" * 300, ""), ("", ""),
    ],
)
def test_summaries(text: str, summary: str) -> None:
    assert first_sentence(text) == summary


def test_sections_and_markup_of_a_topic() -> None:
    page = 'Title\n*****\n\nIntro *emphasised* and **PEP 1** with "*args", *x* ** 2.\n\n\nEmpty\n=====\n\n\n'
    page += 'Part\n====\n\n   a ::= "*" b *c*\n\nEnd\n---'
    assert [heading for heading, _ in sections(page)] == ["Title", "Part"]
    assert plain_topic(sections(page)[0][1]) == 'Intro emphasised and PEP 1 with "*args", x ** 2.'
    assert plain_topic('a ::= "*" b *c*') == 'a ::= "*" b *c*'


def test_the_language_reference_is_whole() -> None:
    rows = list(language_reference())
    titles, text = {row["title"] for row in rows}, "\n".join(row["text"] for row in rows)
    assert len({row["doc_id"] for row in rows}) == len(rows) > 100
    assert {'The "assert" statement', "Emulating numeric types", "Format String Syntax"} <= titles
    assert not [row["doc_id"] for row in rows if "\n****" in row["text"]]
    assert "Assert statements are a convenient way to insert debugging assertions\ninto a program" in text
    assert {row["kind"] for row in rows} == {"topic"} and {row["source"] for row in rows} == {"language-reference"}


def test_c_docstrings_hold_the_builtins() -> None:
    found = {d.qualified_name: d for d in pydocs._c_docstrings()}
    assert found["builtins.str.split"].kind == "method" and "sep" in found["builtins.str.split"].text
    assert found["builtins.open"].kind == "function" and found["collections.deque"].kind == "class"
    assert not [name for name in found if "._" in name]


def test_the_corpus_is_bounded_deduplicated_and_the_same_twice(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydocs, "_stdlib", lambda: docstrings_below(package / "sub", "sub"))
    settings = CorporaSettings(libraries=("madeup_library",), library_characters=100_000, maximum_characters=2_000)
    table = pydocs.collect_pydocs(settings)
    assert list(table.columns) == COLUMNS and table["doc_id"].is_unique and table["digest"].is_unique
    assert table["text"].str.len().between(120, 2_000).all()
    assert {"stdlib", "language-reference", "madeup_library"} == set(table["source"])
    assert "stdlib/sub.copy.conditional" in set(table["doc_id"])
    repeated = table["doc_id"].str.startswith("madeup_library/madeup_library._impl")
    assert not repeated.any(), "the same text stands in the standard library already"
    assert pydocs.collect_pydocs(settings).equals(table)
    bounded = pydocs.collect_pydocs(settings.model_copy(update={"library_characters": 300}))
    assert bounded.loc[bounded["source"] == "madeup_library", "text"].str.len().sum() <= 300


def test_a_budget_cuts_depth_and_not_breadth() -> None:
    found = [pydocs.Docstring(module, name, "function", "t") for module in ("b.deep", "a") for name in ("", "f", "g")]
    assert [d.qualified_name for d in pydocs._breadth_first(found)] == ["a", "b.deep", "a.f", "b.deep.f", "a.g", "b.deep.g"]


@pytest.mark.parametrize("library", ["not_installed_anywhere", "math", "os.path", ""])
def test_a_library_that_is_no_package_is_named(library: str) -> None:
    with pytest.raises(SourceError, match=rf"corpora.libraries names '{library}'"):
        pydocs.library_folder(library)
