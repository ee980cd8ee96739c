"""A user's folder is all that is read of a user's disk, and nothing in it is run or written elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from curriculum.corpora.readers import read_beir, read_documents, read_squad
from curriculum.errors import SourceError
from curriculum.profile import load_profile
from curriculum.report.card import write_card
from curriculum.results import Identity, Metric, StudyResult
from curriculum.retrieval.passages import beir_passages
from curriculum.sources import dataset_folder, model_folder, refuse_links_out, stamp
from curriculum.storage import ArtifactStore, FileRecord, Manifest
from curriculum.syllabus import load_syllabus

TAG = "<script>alert('x')</script>"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a document, beside a secret that is not in it."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.txt").write_text("the secret")
    (tmp_path / "own" / "deep").mkdir(parents=True)
    (tmp_path / "own" / "page.md").write_text("a page")
    return tmp_path / "own"


def link_file(own: Path) -> Path:
    (own / "deep" / "link.md").symlink_to("../../secret/key.txt")
    return own / "deep" / "link.md"


def link_folder(own: Path) -> Path:
    (own / "more").symlink_to(own.parent / "secret")
    return own / "more"


def link_by_two(own: Path) -> Path:
    (own / "first").symlink_to("deep/second")
    (own / "deep" / "second").symlink_to(own.parent / "secret" / "key.txt")
    return own / "deep" / "second"


def link_to_nothing(own: Path) -> Path:
    (own / "gone.md").symlink_to("/nowhere/at/all")
    return own / "gone.md"


def link_in_a_circle(own: Path) -> Path:
    (own / "round.md").symlink_to("round.md")
    return own / "round.md"


def sibling_with_its_name_as_prefix(own: Path) -> Path:
    (own.parent / "own-not").mkdir()
    (own / "link").symlink_to("../own-not")
    return own / "link"


@pytest.mark.parametrize(
    "make", [link_file, link_folder, link_by_two, link_to_nothing, link_in_a_circle, sibling_with_its_name_as_prefix]
)
def test_a_link_out_of_the_folder_is_refused_by_name(own: Path, make: object) -> None:
    link = make(own)  # type: ignore[operator]
    for read in (
        lambda: dataset_folder(f"path:{own}"), lambda: model_folder(f"path:{own}", own), lambda: stamp(f"path:{own}"),
        lambda: read_documents(own), lambda: read_beir(own), lambda: read_squad(own),
    ):  # fmt: skip
        with pytest.raises(SourceError, match="is a symbolic link to .*, outside .*; copy there what it points at, or remove it") as refused:
            read()
    assert str(link) in str(refused.value) or make is link_by_two


def test_links_within_the_folder_and_a_folder_named_by_a_link_are_read(own: Path) -> None:
    (own / "deep" / "again.md").symlink_to("../page.md")
    (own.parent / "named").symlink_to(own)
    assert list(read_documents(dataset_folder(f"path:{own.parent / 'named'}"))["doc_id"]) == ["deep/again.md", "page.md"]
    (own.parent / "one.md").symlink_to(own / "page.md")
    assert dataset_folder(f"path:{own.parent / 'one.md'}").read_text() == "a page"  # the user named this very link


def beir(folder: Path, key: str) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": key, "title": TAG, "text": f"first text {TAG}"}) + "\n")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": key, "text": "what"}) + "\n")
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{key}\t{key}\t1\n")
    return folder


@pytest.mark.parametrize("key", ["../../escaped", "/etc/passwd", TAG])
def test_ids_that_look_like_paths_name_nothing_on_disk(tmp_path: Path, key: str) -> None:
    from curriculum.artifacts import DirectoryArtifact
    from curriculum.retrieval.dense import build_dense, embed_passages
    from curriculum.retrieval.settings import RetrievalSettings

    class Ones:
        dimension = 2

        def passages(self, texts: list[str]) -> object:
            import numpy as np

            return np.ones((len(texts), 2), dtype=np.float32)

    found = beir_passages([read_beir(beir(tmp_path / "set", key))])
    before = {p for p in tmp_path.rglob("*") if "out" not in p.parts}
    (tmp_path / "out" / "a" / "b").mkdir(parents=True)
    (tmp_path / "out" / "kept").mkdir()
    made: DirectoryArtifact = embed_passages(found, Ones(), RetrievalSettings(), tmp_path / "out" / "a" / "b", tmp_path / "out" / "kept", print)  # type: ignore[arg-type]
    (tmp_path / "out" / "dense").mkdir()
    build_dense(made, tmp_path / "out" / "dense")
    assert {p for p in tmp_path.rglob("*") if "out" not in p.parts} == before
    assert {p.name for p in (tmp_path / "out").rglob("*") if p.is_file()} == {"vectors.safetensors", "ids.json", "index.faiss", "set-000000000.safetensors"}


def test_a_folder_named_by_dots_does_not_name_its_collection_so(tmp_path: Path) -> None:
    folder = beir(tmp_path / "set", "a")
    (folder / "sub").mkdir()
    assert read_beir(dataset_folder(f"path:{folder}/sub/..")).name == "set"


def test_a_manifest_names_no_file_outside_its_artifact() -> None:
    record = FileRecord(bytes=1, sha256="0")
    for name in ("../LATEST.json", "a/../../b", "/etc/cron.d/x"):
        with pytest.raises(ValidationError, match="is outside the artifact"):
            Manifest(asset="a", version="v", key="k", kind="table", files={name: record})
    assert Manifest(asset="a", version="v", key="k", kind="table", files={"deep/table.parquet": record}).files


def test_what_a_document_says_is_text_on_the_report_card(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"))
    table = pd.DataFrame({"doc_id": [TAG], TAG: ["<img src=x onerror=alert(1)>"]})
    result = StudyResult(
        study="s", metrics=[Metric(name=TAG, value=1.0)], remarks=[TAG], tables={"largest": table}, plots={},
        identities=[Identity(role=TAG, source=f"path:{TAG}", digest="d")],
    )  # fmt: skip
    with store.staging("study") as staged:
        result.save(staged)
        store.publish(staged, Manifest(asset="study", version="v", key="v", kind="result"))
    page = write_card(load_syllabus(), load_profile("starter"), store, tmp_path / "card.html").read_text()
    assert "<script" not in page and "<img src=x" not in page and page.count("&lt;script&gt;") >= 5


def test_the_check_follows_no_link(own: Path) -> None:
    deep = own
    for _ in range(3):  # a link to its own parent: a walk that followed it would not end
        (deep / "up").symlink_to(own)
        deep = deep / "deep"
        deep.mkdir(exist_ok=True)
    refuse_links_out(own)
    assert len(read_documents(own)) == 1 and os.path.islink(own / "up")
