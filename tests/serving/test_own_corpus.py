"""A user's own corpus from its folder to an answered search: promoted past its gate, served, exchanged and rolled back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.own_corpus import ASSETS
from curriculum.crossencoder.model import CrossEncoder
from curriculum.errors import UserError
from curriculum.evaluation.gate import active_bars
from curriculum.evaluation.rollback import roll_back
from curriculum.grounding.verifier import SupportVerifier
from curriculum.profile import Profile, load_profile
from curriculum.reranking.reranker import Reranker
from curriculum.retrieval import dense
from curriculum.serving.answers import Clock, find
from curriculum.serving.bundle import Bundles
from curriculum.serving.promoted import OWN_INDEX
from curriculum.serving.served import Served
from curriculum.sources import model_folder
from curriculum.storage import ArtifactStore
from curriculum.syllabus import load_syllabus
from tests.crossencoder.tiny import tiny_bert
from tests.ingest.files import BIRDS, birds, story
from tests.serving.small import CALIBRATION, promote

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Corpus:
    """A folder of birds under a profile that names it, run as the job ``corpus`` runs it, on one instance."""

    def __init__(self, tmp_path: Path, encoder: Path) -> None:
        from pipelines.guardrails import bar_checks
        from pipelines.promotions import promotions
        from resources.build import build_resources

        self.folder = birds(tmp_path / "birds")
        sections = {
            "corpus": {"path": str(self.folder)}, "compute": {"threads": 1}, "rag": {"collection": "project"},
            "retrieval": {"encoder": f"path:{encoder}", "passage_words": 60, "max_queries": 8, "max_tokens": 64, "depth": 20},
            "generator": {"kind": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "none", "retries": 0},
        }  # fmt: skip
        self.profile: Profile = load_profile("starter", sections)
        self._resources = lambda: build_resources("starter", tmp_path, overrides=sections, journal=False)
        syllabus = load_syllabus()
        checks = [c for c in bar_checks(syllabus, self.profile) if all(k.asset_key.path == ["own_corpus_report"] for k in c.check_keys)]
        (promoted,) = (p for p in promotions(syllabus, self.profile) if p.key.path == [OWN_INDEX])
        self.job, self.instance = [*ASSETS, *checks, promoted], dg.DagsterInstance.ephemeral()
        self.store: ArtifactStore = self._resources()["artifacts"].store()
        self.models = tmp_path

    def run(self) -> tuple[bool, str]:
        """Whether the job succeeded, and what failed in it."""
        done = dg.materialize(self.job, resources=self._resources(), instance=self.instance, run_config=QUIET, raise_on_error=False)
        failed = {e.check_name: e.description for e in done.get_asset_check_evaluations() if not e.passed}
        return done.success, json.dumps(failed)

    def promote_models(self) -> None:
        bert = tiny_bert(self.models)
        promote(self.store, "reranker", "r1", Reranker(CrossEncoder.start(bert, max_length=48, seed=0), weight=0.0))
        verifier = SupportVerifier(CrossEncoder.start(bert, max_length=48, seed=1), window_words=40, calibration=CALIBRATION)
        promote(self.store, "support_verifier", "v1", verifier)

    def bundles(self) -> Bundles:
        return Bundles(self.store, self.profile, lambda uri: model_folder(uri, self.models))


@pytest.fixture
def corpus(tmp_path: Path, encoder_folder: Path) -> Corpus:
    return Corpus(tmp_path, encoder_folder)


def first(served: Served, query: str) -> Any:
    return find(served.bundle, query, 3, clock=Clock())[0]


def test_a_folder_is_promoted_and_answers_and_an_edit_is_exchanged_and_rolled_back(corpus: Corpus) -> None:
    corpus.promote_models()
    assert corpus.run() == (True, "{}")
    served = Served(corpus.bundles())
    assert set(served.bundle.versions) == {OWN_INDEX, "promoted_reranker", "promoted_verifier"} and served.bundle.collection == "birds"
    found = first(served, "The barn owl hears a vole under the snow")
    assert (found.path, found.place, found.doc_id) == ("owl.md", "line 3", "owl.md") and BIRDS["owl"] in found.text
    assert served.bundle.texts[found.passage_id].startswith("Owl. The barn owl") and len(served.bundle.texts) == 8

    edited = story("owl").replace("The barn owl hears", "\nThe tawny owl ignores a zeppelin; the barn owl hears")
    (corpus.folder / "owl.md").write_text(edited, encoding="utf-8")
    before = served.bundle
    assert corpus.run() == (True, "{}") and served.refresh() and served.swaps == 1
    found = first(served, "zeppelin")
    assert (found.path, found.place) == ("owl.md", "line 4") and "zeppelin" in found.text
    assert "zeppelin" not in before.passages["birds/owl.md#0"]["text"]  # a request that began before keeps the passages of its index
    assert served.bundle.reranker is before.reranker

    assert roll_back(corpus.store, OWN_INDEX)[1] == before.versions[OWN_INDEX]
    assert served.refresh() and served.bundle.versions == before.versions
    assert all("zeppelin" not in row["text"] for row in served.bundle.passages.values())


def test_an_index_that_files_vectors_under_other_passages_is_not_promoted(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    write = dense.json.dumps
    monkeypatch.setattr(dense.json, "dumps", lambda value, **more: write(value[1:] + value[:1] if isinstance(value, list) else value, **more))
    well, failed = corpus.run()
    assert not well and "found_again__dense" in failed and "found_again__bm25" not in failed
    assert corpus.store.manifest("own_corpus_index") is not None and corpus.store.manifest(OWN_INDEX) is None


def test_what_was_never_promoted_is_one_line_that_says_what_to_run(corpus: Corpus) -> None:
    with pytest.raises(UserError, match=r"holds no promoted_own_corpus_index and no promoted_reranker .* run `curriculum run --profile starter` first"):
        corpus.bundles().promoted()
    corpus.promote_models()
    with pytest.raises(UserError, match=r"holds no promoted_own_corpus_index: run `curriculum run --profile starter --job corpus` first"):
        corpus.bundles().promoted()


def test_the_gate_is_in_force_only_where_a_corpus_is_named(corpus: Corpus) -> None:
    syllabus = load_syllabus()
    there, elsewhere = (active_bars(syllabus, profile) for profile in (corpus.profile, load_profile("starter")))
    named = {name: bar for name, bar in there.items() if bar.asset == "own_corpus_report"}
    assert set(there) - set(elsewhere) == set(named) and len(named) == len(syllabus.own_corpus) > 0
    assert all(bar.blocking and name.startswith("gate_own_corpus_report_") for name, bar in named.items())
