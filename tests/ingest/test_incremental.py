"""Only what changed is parsed, cut, encoded and indexed, and the result is what making it all again would give."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from curriculum.artifacts import DirectoryArtifact, IndexArtifact
from curriculum.errors import DataError, SourceError
from curriculum.ingest import corpus, index, vectors
from curriculum.ingest.corpus import build_documents, build_passages
from curriculum.ingest.index import build_index
from curriculum.ingest.parts import read_batches
from curriculum.ingest.settings import CorpusSettings
from curriculum.ingest.vectors import embed_corpus
from curriculum.retrieval.bm25 import Bm25Index
from curriculum.retrieval.dense import DenseIndex, build_dense
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.vector_search.settings import VectorSearchSettings
from tests.ingest.files import birds, docx, parquet, pdf, story

WORDS, SETTINGS = 30, RetrievalSettings()


class Letters:
    """Texts as counts of their letters; it remembers what it was asked to encode."""

    dimension = 26

    def __init__(self) -> None:
        self.asked: list[str] = []

    def passages(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        return np.array([[text.lower().count(letter) for letter in string.ascii_lowercase] for text in texts], dtype=np.float32)


@dataclass
class Shelf:
    """Versions of the four artifacts of a folder, each made from the one before."""

    folder: Path
    work: Path
    limits: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    latest: dict[str, DirectoryArtifact] = field(default_factory=dict)
    number: int = 0

    def _previous(self, asset: str) -> Callable[[str], Path | None]:
        made = self.latest.get(asset)
        return lambda how: made.path if made and made.facts["how"] == how else None

    def _new(self, asset: str, *, checkpoints: str = "") -> dict[str, Any]:
        kept = self.work / "kept" / (checkpoints or f"{asset}-{self.number}")
        kept.mkdir(parents=True, exist_ok=True)
        return {"previous": self._previous(asset), "checkpoints": kept, "progress": self.said.append}

    def documents(self, *, checkpoints: str = "") -> DirectoryArtifact:
        self.number += 1
        settings, out = CorpusSettings(path=str(self.folder), **self.limits), self.work / f"documents-{self.number}"
        self.latest["documents"] = build_documents(self.folder, settings, out, **self._new("documents", checkpoints=checkpoints))
        return self.latest["documents"]

    def all(self, encoder: Any) -> dict[str, DirectoryArtifact]:
        out, documents = self.work, self.documents()
        passages = build_passages(documents, WORDS, out / f"passages-{self.number}", **self._new("passages"))
        made = embed_corpus(passages, encoder, SETTINGS, out / f"vectors-{self.number}", identity="letters", **self._new("vectors"))
        index = build_index(passages, made, VectorSearchSettings(), out / f"index-{self.number}", **self._new("index"))
        self.latest |= {"passages": passages, "vectors": made, "index": index}
        return dict(self.latest)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(birds(tmp_path / "birds"), tmp_path / "work")


def table(artifact: DirectoryArtifact) -> pd.DataFrame:
    return pd.concat(read_batches(artifact.path), ignore_index=True)


def units(artifact: DirectoryArtifact) -> pd.DataFrame:
    return pd.read_parquet(artifact.path / "units.parquet").set_index("key")


def counts(made: dict[str, DirectoryArtifact]) -> tuple[int, ...]:
    """Files parsed, documents cut, passages encoded, added to BM25 and removed from it."""
    lexical = made["index"].facts["bm25"]
    return made["documents"].facts["parsed"], made["passages"].facts["cut"], made["vectors"].facts["encoded"], lexical["added"], lexical["removed"]


def contents_of(index: IndexArtifact) -> Any:
    """What both indexes answer to queries about every bird."""
    asked = ["heron shallow water", "swift wing", "cuckoo nest", "bittern reed bed", "owl vole snow", "field books counted"]
    dense = DenseIndex(index.path / "dense", "birds").search(Letters().passages(asked), 5)
    return Bm25Index(index.path / "bm25", "birds").search(asked, 10), [sorted(hits) for hits in dense]


def test_only_what_changed_is_done_again_and_the_answers_are_those_of_a_new_index(shelf: Shelf) -> None:
    first = Letters()
    made = shelf.all(first)
    passages = len(table(made["passages"]))
    assert counts(made) == (8, 8, passages, passages, 0) and len(first.asked) == passages > 8
    same = Letters()
    assert counts(shelf.all(same)) == (0, 0, 0, 0, 0) and same.asked == []

    heron = shelf.folder / "heron.md"
    heron.write_text(story("heron") + "\n\nNow it flies away over the long reeds and far out of sight, to come back in March.\n")
    edited = Letters()
    made = shelf.all(edited)
    changed = table(made["passages"]).query("doc_id == 'heron.md'")
    assert counts(made) == (1, 1, 1, 1, 0) and len(changed) == 3  # the first two of its passages are as they were
    assert len(edited.asked) == 1 and "flies away" in edited.asked[0]

    heron.unlink()
    gone = shelf.all(Letters())
    assert counts(gone) == (0, 0, 0, 0, len(changed))
    assert "heron.md" not in set(table(gone["passages"])["doc_id"]) and "heron.md" not in units(gone["documents"]).index
    lexical, _ = contents_of(gone["index"])
    assert not any("heron" in pid for hits in lexical for pid, _ in hits)

    (shelf.folder / "deep").mkdir()
    (shelf.folder / "owl.md").rename(shelf.folder / "deep" / "owl.md")
    moved = Letters()
    made = shelf.all(moved)
    assert counts(made)[:3] == (1, 1, 0) and moved.asked == [] and made["vectors"].facts["reused"] == len(table(made["passages"]))

    anew = Shelf(shelf.folder, shelf.work / "anew").all(Letters())
    for name in ("documents", "passages"):
        files = {p.relative_to(made[name].path): p.read_bytes() for p in made[name].path.rglob("*.parquet")}
        assert files == {p.relative_to(anew[name].path): p.read_bytes() for p in anew[name].path.rglob("*.parquet")}
    ours, theirs = contents_of(made["index"]), contents_of(anew["index"])
    for legs in zip(ours, theirs, strict=True):
        for old, new_hits in zip(*legs, strict=True):
            assert [pid for pid, _ in old] == [pid for pid, _ in new_hits]
            assert np.allclose([score for _, score in old], [score for _, score in new_hits], atol=1e-5)


def test_another_encoder_another_length_or_other_limits_reuse_nothing(shelf: Shelf) -> None:
    made = shelf.all(Letters())
    out = shelf.work / "other"
    again = embed_corpus(made["passages"], Letters(), SETTINGS, out, identity="another", **shelf._new("vectors", checkpoints="other"))
    assert again.facts["encoded"] == len(table(made["passages"])) and again.facts["reused"] == 0
    shorter = build_passages(made["documents"], WORDS // 2, shelf.work / "shorter", **shelf._new("passages", checkpoints="shorter"))
    assert shorter.facts["cut"] == 8
    shelf.limits = {"max_pages": 7}
    assert shelf.documents().facts["parsed"] == 8


def test_every_kind_of_file_is_a_document_with_its_place(tmp_path: Path) -> None:
    folder = birds(tmp_path / "mixed")
    (folder / "page.html").write_text("<h1>Page</h1><p>text</p>")
    (folder / "rows.jsonl").write_text('{"id": "a", "text": "one"}\n{"text": "two"}\n')
    (folder / "rows.csv").write_text("text\nthree\n")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.md").write_text("hidden")
    parquet(folder / "rows.parquet", id=["x"], text=["four"]), pdf(folder / "paper.pdf", ["five"]), docx(folder / "letter.docx")
    made = Shelf(folder, tmp_path / "work").documents()
    rows = table(made).set_index("doc_id")
    assert set(rows.index) - {f"{name}.md" for name in ("heron", "swift", "cuckoo", "bittern", "dipper", "curlew", "wren", "owl")} == {
        "page.html", "rows.jsonl#a", "rows.jsonl#2", "rows.csv#1", "rows.parquet#x", "paper.pdf", "letter.docx",
    }  # fmt: skip
    assert rows.loc["rows.jsonl#2", "place"] == "line 2" and rows.loc["paper.pdf", "kind"] == "pdf" and list(rows.loc["paper.pdf", "pages"]) == [0]
    assert made.facts["left_out"] == {"no parser for .png": 1} and made.facts["documents"] == 15
    assert units(made).loc["picture.png", "note"] == "no parser for .png"


def test_broken_files_are_listed_and_one_too_many_is_one_error_that_names_them(shelf: Shelf) -> None:
    (shelf.folder / "bad.pdf").write_bytes(b"%PDF-1.7 nothing")
    (shelf.folder / "bad.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    shelf.limits = {"max_broken": 2}
    made = shelf.documents()
    assert made.facts["broken_count"] == 2 and made.facts["documents"] == 9
    listed = units(made)
    assert list(listed.loc["bad.jsonl", "problems"]) == ["line 2: malformed JSON (Expecting value at column 9)"]
    assert listed.loc["bad.pdf", "problems"][0].startswith("Pdf") and listed.loc["bad.pdf", "rows"] == 0
    assert shelf.documents().facts["broken_count"] == 2 and shelf.latest["documents"].facts["parsed"] == 0  # a broken file is not tried again
    (shelf.folder / "zoo.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"more than corpus\.max_broken=2 .*bad\.jsonl: line 2.*bad\.pdf: Pdf.*zoo\.csv: no column 'text'.* or raise corpus\.max_broken"):
        shelf.documents()


def test_a_folder_without_documents_and_one_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no files"):
        Shelf(tmp_path / "empty", tmp_path / "work").documents()
    (tmp_path / "empty" / "a.txt").write_text("")
    with pytest.raises(DataError, match="holds no documents; a.txt: no text"):
        Shelf(tmp_path / "empty", tmp_path / "again").documents()
    with pytest.raises(DataError, match="is no folder"):
        Shelf(tmp_path / "empty" / "a.txt", tmp_path / "third").documents()


def test_a_link_out_is_refused_and_one_inside_is_read(shelf: Shelf) -> None:
    (shelf.folder / "again.md").symlink_to("owl.md")
    assert shelf.documents().facts["documents"] == 9
    (shelf.folder / "passwd.txt").symlink_to("/etc/passwd")
    with pytest.raises(SourceError, match="passwd.txt is a symbolic link to /etc/passwd"):
        shelf.documents()


def test_a_killed_run_goes_on_where_it_was(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_FILES_A_PART", 3)
    real, read = corpus.parsed, list[str]()

    def killed(folder: Path, unit: Any, *rest: Any) -> Any:
        read.append(unit.key)
        if len(read) == 5:
            raise KeyboardInterrupt
        return real(folder, unit, *rest)

    monkeypatch.setattr(corpus, "code_version", lambda _: "same")
    monkeypatch.setattr(corpus, "parsed", killed)
    with pytest.raises(KeyboardInterrupt):
        shelf.documents(checkpoints="run")
    made = shelf.documents(checkpoints="run")
    assert made.facts["resumed"] == 3 and made.facts["parsed"] == 5 and len(read) == 10  # the part of three was whole
    assert len(table(made)) == 8 and not any("part-" in p.name for p in (shelf.work / "kept" / "run").iterdir())
    assert shelf.said[-1] == "files 8 of 8: 5 made, 0 unchanged, 3 from before, 0 broken"


def test_a_killed_encoding_goes_on_at_the_shard_where_it_was(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "SHARD", 4)
    passages = build_passages(shelf.documents(), WORDS, shelf.work / "passages", **shelf._new("passages"))
    killed, whole = Letters(), Letters()
    real = killed.passages

    def stop_at_the_third(texts: list[str]) -> np.ndarray:
        if len(killed.asked) >= 8:
            raise KeyboardInterrupt
        return real(texts)

    killed.passages = stop_at_the_third  # type: ignore[method-assign]
    said = shelf._new("vectors", checkpoints="run")
    with pytest.raises(KeyboardInterrupt):
        embed_corpus(passages, killed, SETTINGS, shelf.work / "killed", identity="letters", **said)
    made = embed_corpus(passages, whole, SETTINGS, shelf.work / "whole", identity="letters", **said)
    assert len(killed.asked) == 8 and len(whole.asked) == len(table(passages)) - 8
    build_dense(made, shelf.work / "dense")
    (best,) = DenseIndex(shelf.work / "dense", "birds").search(real([table(passages)["text"].iloc[0]]), 1)
    assert best[0][0].startswith("birds/")


def test_a_killed_index_goes_on_where_it_was(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "COMMIT", 4)
    monkeypatch.setattr(index, "read_batches", lambda folder, columns=None: read_batches(folder, columns, 2))
    given, removed, real = list[str](), list[str](), (index.add_passages, index.remove_passages)

    def add(folder: Path, batches: Any, **how: Any) -> int:
        rows = list(batches)
        given.extend(pid for batch in rows for pid in batch["passage_id"])
        return real[0](folder, rows, **how)

    monkeypatch.setattr(index, "add_passages", add)
    monkeypatch.setattr(index, "remove_passages", lambda folder, ids: (removed.extend(ids), real[1](folder, ids)))
    monkeypatch.setattr(index, "code_version", lambda _: "same")

    def killed_after(count: int, made: dict[str, Any], number: str) -> IndexArtifact:
        """The index of ``made``, killed when so many passages are added, and then gone on with."""
        how = shelf._new("index", checkpoints=number) | {"progress": lambda line: dead(line)}

        def dead(line: str) -> None:
            if f" {count} of " in line and "BM25" in line:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build_index(made["passages"], made["vectors"], VectorSearchSettings(), shelf.work / f"killed-{number}", **how)
        before, told = len(given), how | {"progress": shelf.said.append}
        assert before == count
        vectors_made = shelf.work / "kept" / number
        file = next(vectors_made.rglob("index.faiss"))
        stamp = file.stat().st_mtime_ns
        found = build_index(made["passages"], made["vectors"], VectorSearchSettings(), shelf.work / f"whole-{number}", **told)
        assert (found.path / "dense" / "birds" / "index.faiss").stat().st_mtime_ns == stamp  # the vectors were indexed before
        return found

    made = shelf.all(Letters())
    everything = list(table(made["passages"])["passage_id"])
    del shelf.latest["index"]
    given.clear()
    whole = killed_after(8, made, "first")
    assert given == everything and removed == [] and contents_of(whole) == contents_of(made["index"])

    shelf.latest["index"] = whole
    for bird in ("owl", "wren", "swift", "heron", "curlew"):  # half of the passages, each with a sentence more
        (shelf.folder / f"{bird}.md").write_text(story(bird) + f"\n\nThe {bird} was seen once more in May, by two of us, and then not again until the first frost.\n")
    (shelf.folder / "cuckoo.md").unlink()
    given.clear()
    passages = build_passages(shelf.documents(), WORDS, shelf.work / "changed", **shelf._new("passages", checkpoints="changed"))
    encoded = embed_corpus(passages, Letters(), SETTINGS, shelf.work / "encoded", identity="letters", **shelf._new("vectors", checkpoints="changed"))
    changed = killed_after(4, {"passages": passages, "vectors": encoded}, "second")
    assert len(given) == changed.facts["bm25"]["added"] == 5 and len(removed) == changed.facts["bm25"]["removed"] > 0
    assert len(set(given)) == 5  # none was added twice
    del shelf.latest["index"]
    anew = build_index(passages, encoded, VectorSearchSettings(), shelf.work / "anew", **shelf._new("index", checkpoints="anew"))
    for ours, theirs in zip(contents_of(changed)[0], contents_of(anew)[0], strict=True):
        assert [pid for pid, _ in ours] == [pid for pid, _ in theirs] and np.allclose([s for _, s in ours], [s for _, s in theirs], atol=1e-5)


def test_a_beir_folder_keeps_its_ids_and_its_documents_whole(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    long = "A sentence of the document. " * 40
    (folder / "corpus.jsonl").write_text("\n".join(json.dumps({"_id": f"d{n}", "title": f"T{n}", "text": long + str(n)}) for n in range(3)))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "what"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    shelf = Shelf(folder, tmp_path / "work")
    documents = shelf.documents()
    passages = build_passages(documents, WORDS, tmp_path / "passages", **shelf._new("passages"))
    assert documents.facts["beir"] and list(table(documents)["doc_id"]) == ["d0", "d1", "d2"]
    assert list(table(passages)["passage_id"]) == ["set/d0#0", "set/d1#0", "set/d2#0"]
    assert documents.facts["left_out"] == {"the queries and judgements of the corpus": 2}
