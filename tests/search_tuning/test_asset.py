"""The asset materialised over small notes by tiny models: every claim has its number, and a second run reads the test questions no more."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
import torch

from curriculum.artifacts import ModelArtifact
from curriculum.corpora.documents import document, documents_table
from curriculum.results import StudyResult
from curriculum.storage import ArtifactStore
from tests.crossencoder.tiny import tiny_bert

torch.set_num_threads(1)
ANIMALS = ["cat", "dog", "horse", "mouse", "sheep", "goat", "duck", "bear"]
BODY = (
    "# {n}\n\n## Coat\n\nThe coat of the {n} is {c} all over, and some are paler in winter.\n\nIt is brushed by the river every day.\n\n"
    "## Home\n\nThe {n} lives in the {c} house. It is near the mill and the garden of the town."
)


def corpus() -> dict[str, pd.DataFrame]:
    colours = ["red", "blue", "green", "grey"]
    rows = [document(n, n, BODY.format(n=n, c=colours[i % 4]), source="notes") for i, n in enumerate(ANIMALS)]
    asked = [
        {"question_id": f"{n}-{part}", "note_id": n, "question": f"{part} of the {n}", "phrasings": [], "kind": "answerable",
         "answers": [answer.format(n=n)], "difficulty": "easy", "split": "test" if i >= 5 else "dev"}
        for i, n in enumerate(ANIMALS) for part, answer in (("coat", "coat of the {n} is"), ("house", "The {n} lives in"))
    ]  # fmt: skip
    docs = [document(f"f{i}", f"f{i}", f"Function {i} returns the value of a list.", source="stdlib", kind="function", summary="") for i in range(3)]
    two_hop = pd.DataFrame(columns=["question_id", "question", "phrasings", "kind", "answers", "note_ids", "spans", "difficulty", "split"], dtype=str)
    return {
        "notes_corpus": documents_table(rows, "notes"), "pydocs_corpus": documents_table(docs, "docs"), "notes_questions": pd.DataFrame(asked),
        "two_hop_questions": two_hop,
    }  # fmt: skip


def encoder(folder: Path) -> Path:
    tiny_bert(folder, " ".join([*ANIMALS, BODY.lower()]).replace(".", " ").split())
    parts = [("0", "", "sentence_transformers.models.Transformer"), ("1", "1_Pooling", "sentence_transformers.models.Pooling")]
    (folder / "modules.json").write_text(json.dumps([{"idx": int(n), "name": n, "path": p, "type": kind} for n, p, kind in parts]))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}))
    return folder


def test_the_asset_reads_the_test_questions_once_and_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from assets.lineage import Lab, lineage_asset
    from assets.search import bm25_index, dense_index, passage_embeddings, passages, retrieval_tracks
    from assets.search_tuning import search_tuning_study
    from curriculum.crossencoder.model import CrossEncoder
    from curriculum.reranking.reranker import Reranker
    from curriculum.search_tuning.held_out import HeldOut
    from curriculum.syllabus import load_syllabus
    from resources.build import build_resources
    from tests.lineage import claims_on

    given, folder, readings = corpus(), tmp_path / "bert", []
    folder.mkdir()
    bert = encoder(folder)

    def table(name: str) -> dg.AssetsDefinition:
        def body(lab: Lab) -> pd.DataFrame:
            """Given."""
            return given[name]

        return lineage_asset(group="test", name=name)(body)

    @lineage_asset(group="test")
    def reranker(lab: Lab) -> ModelArtifact:
        """A cross-encoder that was never trained."""
        Reranker(CrossEncoder.start(bert, max_length=64, seed=0), weight=0.2).save(lab.out)
        return ModelArtifact(lab.out)

    read = HeldOut.read
    monkeypatch.setattr(HeldOut, "read", lambda self, settings: readings.append(settings) or read(self, settings))
    overrides = {
        "retrieval": {"encoder": f"path:{bert}", "passage_words": 20, "known_items": 0, "max_tokens": 64, "depth": 20},
        "reranker": {"depth": 4, "model": f"path:{bert}"},
        "search_tuning": {"trials": 4, "startup": 2, "passage_words": [14, 20], "depth": [20], "rerank_depth": [0, 4]},
    }
    made = [*map(table, given), passages, retrieval_tracks, bm25_index, passage_embeddings, dense_index, reranker, search_tuning_study]
    checks = claims_on("search_tuning_study")
    instance = dg.DagsterInstance.ephemeral()

    def run() -> dg.ExecuteInProcessResult:
        made_by = build_resources("starter", tmp_path, overrides=overrides, journal=False)
        return dg.materialize([*made, *checks], instance=instance, raise_on_error=False, resources=made_by)

    done = run()
    manifest = done.output_for_node("search_tuning_study").manifest
    result = StudyResult.load(ArtifactStore(str(tmp_path / "artifacts" / "starter")).path(manifest))
    held = {e.check_name.removeprefix("claim_search_tuning_study_"): e.passed for e in done.get_asset_check_evaluations()}
    assert set(held) == {bar.metric for bar in load_syllabus().claims if bar.asset == "search_tuning_study"}
    assert held["default_mismatches"] and held["settings_read_on_test"] and len(readings) == 1
    trials = result.tables["trials"]
    assert len(trials) == 4 and {14, 20} >= set(trials["passage_words"]) and len(result.per_example) == 6
    assert {identity.role for identity in result.identities} == {"encoder", "model"}
    assert run().output_for_node("search_tuning_study").reused and len(readings) == 1
