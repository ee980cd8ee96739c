"""The assets of a corpus of one's own, materialised: there only where the profile names one, measured, and brought up to date."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets.own_corpus import ASSETS, own_corpus_assets
from curriculum.errors import DataError
from curriculum.ingest.known_items import choose_items, judgements, overlap
from curriculum.ingest.parts import read_batches
from curriculum.profile import load_profile
from curriculum.results import StudyResult
from resources.artifact_store import read_value
from tests.ingest.files import BIRDS, birds, story

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
NAMES = [asset.key.path[-1] for asset in ASSETS]
JOB = {*NAMES, "promoted_own_corpus_index"}


def materialise(made: dict[str, Any]) -> dict[str, Any]:
    """The values of every asset of the corpus, after a run of them."""
    assert dg.materialize(list(ASSETS), resources=made, run_config=QUIET, instance=dg.DagsterInstance.ephemeral()).success
    store = made["artifacts"].store()
    return {name: read_value(store.manifest(name), store.path(store.manifest(name))) for name in NAMES}


def overrides(folder: Path, encoder: Path, **corpus: Any) -> dict[str, Any]:
    small = {"encoder": f"path:{encoder}", "passage_words": 60, "max_queries": 8, "max_tokens": 64, "depth": 20}
    return {"corpus": {"path": str(folder), **corpus}, "retrieval": small, "compute": {"threads": 1}}


def test_a_folder_is_searched_measured_and_brought_up_to_date(
    resources: Callable[..., dict[str, Any]], tmp_path: Path, encoder_folder: Path
) -> None:
    folder = birds(tmp_path / "birds")
    (folder / "scan.pdf").write_bytes(b"%PDF-1.7 nothing")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    made = resources(**overrides(folder, encoder_folder))
    values = materialise(made)
    report: StudyResult = values["own_corpus_report"]
    assert report.value("documents") == 8 and report.value("broken") == 1 and set(report.per_example["track"]) == {"birds"}
    assert report.value("bm25_ndcg_at_10") > 0.5 and report.value("mteb_difference") < 1e-4
    assert report.value("known_item_share") == 1.0 and 0 < report.value("known_item_overlap") < 1 and report.value("detectable_difference") > 0
    assert "8 known items stand in" in report.remarks[0] and set(report.tables["trust"]["measure"]) == {"detectable_difference", "known_item_overlap", "known_item_share"}
    files = report.tables["files"]
    assert list(files["path"]) == ["scan.pdf", "photo.jpg"] and files.iloc[1]["reason"] == "no parser for .jpg"
    passages = pd.concat(read_batches(values["own_corpus_passages"].path))
    assert any("stands still in shallow water" in text for text in passages["text"])  # what is served keeps the sentence that was asked for

    (folder / "wren.md").write_text(story("wren") + "\nIt is the smallest.\n")
    again = materialise(made)
    assert [again[name].facts[fact] for name, fact in zip(NAMES[:3], ("parsed", "cut", "encoded"), strict=True)] == [1, 1, 1]
    assert again["own_corpus_index"].facts["bm25"] == {"added": 1, "removed": 1, "passages": {"birds": 8}}
    store = made["artifacts"].store()
    unchanged = materialise(made)
    assert unchanged["own_corpus"].path == again["own_corpus"].path and len(store.versions("own_corpus")) == 2


def test_judgements_in_beirs_layout_are_used(resources: Callable[..., dict[str, Any]], tmp_path: Path, encoder_folder: Path) -> None:
    folder, names = tmp_path / "judged", list(BIRDS)
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"_id": n, "title": n, "text": BIRDS[n]}) + "\n" for n in names))
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": f"q{n}", "text": " ".join(BIRDS[n].split()[-4:])}) + "\n" for n in names))
    lines = {split: "".join(f"q{n}\t{n}\t1\n" for n in part) for split, part in (("dev", names[:3]), ("test", names[3:]))}
    for split, text in lines.items():
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + text)
    report = materialise(resources(**overrides(folder, encoder_folder)))["own_corpus_report"]
    assert len(report.per_example) == 5 and report.value("bm25_ndcg_at_10") > 0.8
    assert "judgements are the folder's own" in report.remarks[0] and report.metric("known_item_share") is None


def test_an_index_that_is_not_scanned_is_measured_exactly_and_its_own_loss_beside_it(
    resources: Callable[..., dict[str, Any]], tmp_path: Path, encoder_folder: Path
) -> None:
    few = {"scan_ms": 1e-9, "links": 4}
    values = materialise(resources(**overrides(birds(tmp_path / "birds"), encoder_folder), vector_search=few))
    index, report = values["own_corpus_index"], values["own_corpus_report"]
    assert index.facts["dense"]["kinds"] == {"birds": "hnsw"}
    recall = report.metric("vector_recall")
    assert recall.n == len(BIRDS) and 0.9 <= recall.value <= 1.0
    assert report.value("bm25_ndcg_at_10") > 0.5 and report.value("mteb_difference") < 1e-4 and report.value("passages_missing") == 0


def test_a_corpus_that_gives_no_known_items_says_what_to_add(resources: Callable[..., dict[str, Any]], tmp_path: Path, encoder_folder: Path) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    (folder / "a.md").write_text(story("owl"))
    made = resources(**overrides(folder, encoder_folder))
    with pytest.raises(DataError, match="the corpus 'few' gives 1 known items, . of them for the test, and needs 4 and 1: .* in BEIR's layout. The index itself is made"):
        materialise(made)
    assert made["artifacts"].store().manifest("own_corpus_index") is not None


def test_the_assets_exist_only_under_a_profile_that_names_a_corpus(tmp_path: Path) -> None:
    from pipelines.definitions import build_definitions

    path = tmp_path / "mine.yaml"
    for text, names in (("{}", set()), (f"corpus: {{path: {tmp_path}}}", JOB)):
        path.write_text(text)
        defs = build_definitions(str(path))
        keys = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
        assert keys & JOB == names and "passages" in keys
        jobs = {job.name for job in defs.resolve_all_job_defs()}
        assert ("corpus" in jobs) == bool(names)
        selected = {key.to_user_string() for key in defs.resolve_job_def("lineage").asset_layer.selected_asset_keys}
        assert selected & JOB == names
    assert {key.to_user_string() for key in defs.resolve_job_def("corpus").asset_layer.selected_asset_keys} == JOB
    assert own_corpus_assets(load_profile("starter")) == []


def test_a_changed_document_starts_the_corpus_job_and_not_the_lineage(tmp_path: Path) -> None:
    from pipelines.sensors import changed_documents, changed_files

    folder = birds(tmp_path / "birds")
    profile = load_profile("starter", {"corpus": {"path": str(folder)}})
    (sensor,), files = changed_documents(profile), changed_files(profile, "lineage")
    assert sensor.job_name == "corpus" and changed_documents(load_profile("starter")) == []
    contexts = dg.build_sensor_context(), dg.build_sensor_context()
    assert isinstance(sensor(contexts[0]), dg.SkipReason) and isinstance(files(contexts[1]), dg.SkipReason)
    (folder / "wren.md").unlink()
    assert isinstance(sensor(contexts[0]), dg.RunRequest) and isinstance(files(contexts[1]), dg.SkipReason)


def test_the_setting_is_a_folder_and_nothing_else(tmp_path: Path) -> None:
    assert load_profile("starter", {"corpus": {"path": "docs"}}).corpus.path == "path:docs"
    assert load_profile("starter", {"corpus": {"path": f"path:{tmp_path}/a/.."}}).corpus.name == tmp_path.name
    with pytest.raises(ValueError, match="a corpus is a folder: write DIR or path:DIR"):
        load_profile("starter", {"corpus": {"path": "hub:org/set@1"}})


def batches(texts: dict[str, str], title: str = "") -> Callable[[], Any]:
    rows = [
        {"passage_id": f"c/{d}#0", "collection": "c", "doc_id": d, "title": title, "section": "", "text": t, "position": 0} for d, t in texts.items()
    ]
    return lambda: iter([pd.DataFrame(rows[:2]), pd.DataFrame(rows[2:])])


def test_a_known_item_may_come_from_any_passage_and_is_prose() -> None:
    table = "# The crane's table of weights\n\n| a | b of the six words here. |\n\nx = [1, 2, 3]\n" + "one two three four five six seven\n" * 9
    told = f"{table}\nThe crane dances in the marsh\nat first light. {'Left to be found by those who ask for it ' * 4}"
    rows = [{"passage_id": f"c/crane#{n}", "collection": "c", "doc_id": "crane", "title": "", "section": "", "text": text, "position": n}
            for n, text in enumerate([table, told])]  # fmt: skip
    (item,) = choose_items(lambda: iter([pd.DataFrame(rows)]), 10).items
    assert item.query == "The crane dances in the marsh at first light." and item.passage["passage_id"] == "c/crane#1"
    assert "dances" not in item.passage["text"] and item.passage["text"].startswith("# The crane's") and item.passage["text"].endswith("ask for it")


def test_a_known_item_is_a_sentence_that_stands_nowhere_else() -> None:
    rest = "More is said of it in a hundred characters or so, which is what is left to be found by those who ask. " * 2
    texts = {
        "good": f"The heron stands still in shallow water. {rest}", "twin": f"It sleeps on the wing for two years. {rest}",
        "other": f"Someone wrote: it sleeps  on the wing\nfor two years. {rest}", "short": f"Too short this. {rest}",
        "bare": "A sentence with nothing at all after it.",
    }  # fmt: skip
    known = choose_items(batches(texts), 10)
    assert {item.doc_id for item in known.items} == {"good", "other"} and (known.fit, known.documents) == (4, 5)  # "short" offers what the others hold too
    item = next(item for item in known.items if item.doc_id == "good")
    assert item.query == "The heron stands still in shallow water." and item.passage["text"] == rest.strip() and 0 <= overlap(item) < 0.2
    named = choose_items(batches(texts, title="The heron stands still in shallow water."), 10)  # the title would give it away
    assert [item.doc_id for item in named.items] == ["other"]
    queries, qrels = judgements([item])
    assert list(queries["query_id"]) == list(qrels["doc_id"]) == ["good"] and set(qrels["split"]) <= {"dev", "test"}
