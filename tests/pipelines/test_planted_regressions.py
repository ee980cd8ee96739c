"""Regressions planted in the generator and in the data: each stopped in a real run by the guardrail meant for it.

The assets, checks and promotions are the project's own; only what is upstream of them is small. Each is run well first, its scores
are accepted as the baseline, and then run again with the fault.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import yaml

from assets.corpora import labelled_claims, notes_corpus, notes_questions, notes_study, two_hop_questions
from assets.lineage import Lab, lineage_asset
from assets.prompting import prompt_cases
from assets.rag import rag_answers, rag_report
from curriculum.evaluation.baselines import Baselines
from curriculum.evaluation.gate import active_bars
from curriculum.profile import load_profile
from curriculum.results import StudyResult
from curriculum.syllabus import load_syllabus
from pipelines.definitions import TABLE_IDS
from pipelines.guardrails import bar_check, regression_check, table_check
from pipelines.sensors import failed_checks
from resources.build import build_resources
from tests.crossencoder.tiny import tiny_bert
from tests.http_server import answering, completion
from tests.rag.test_rag import passages as city_passages
from tests.rag.test_rag import questions as city_questions

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import IndexArtifact, ModelArtifact

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
NOTES = Path(__file__).parents[2] / "notes"
SYLLABUS, PROFILE = load_syllabus(), load_profile("starter")
given: dict[str, Any] = {}


@lineage_asset(group="test")
def passages(lab: Lab) -> pd.DataFrame:
    """What is searched."""
    import pandas as pd

    from curriculum.retrieval.passages import COLUMNS

    columns = dict.fromkeys(COLUMNS, "") | {"position": 0}
    return pd.DataFrame([columns | row for row in given["passages"].to_dict("records")])


def guardrails(*assets: str) -> list[dg.AssetChecksDefinition]:
    """Every check that the project has on these assets."""
    bars = [bar_check(name, bar) for name, bar in active_bars(SYLLABUS, PROFILE).items() if bar.asset in assets]
    regressions = [regression_check(r) for r in SYLLABUS.regressions if r.asset in assets]
    return [*bars, *regressions, *(table_check(a, TABLE_IDS[a]) for a in assets if a in TABLE_IDS)]


class Guarded:
    """An instance, a store and baselines of its own, and the runs of one set of assets and checks in them."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, *definitions: Any) -> None:
        self.folder, self.instance, self.definitions = folder, instance, definitions

    def run(self, **overrides: Any) -> tuple[bool, dict[str, str]]:
        """Whether the run succeeded, and the checks in its events that did not pass, by name: severity and what was said."""
        resources = build_resources("starter", self.folder, overrides=overrides, journal=False)
        done = dg.materialize(list(self.definitions), resources=resources, instance=self.instance, run_config=QUIET, raise_on_error=False)
        told = failed_checks(self.instance, done.run_id)
        return done.success, {check["check"]: f"{check['severity']}: {check['said']}" for check in told}

    @property
    def store(self) -> Any:
        return build_resources("starter", self.folder, journal=False)["artifacts"].store()

    def accept(self, asset: str) -> None:
        Baselines("starter").accept(SYLLABUS.regressions, self.store, asset, "the healthy one")


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("CURRICULUM_BASELINES", str(tmp_path / "baselines"))
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def errors(found: dict[str, str]) -> set[str]:
    return {name for name, said in found.items() if said.startswith("ERROR")}


@lineage_asset(group="test")
def promoted_index(lab: Lab, passages: pd.DataFrame) -> IndexArtifact:
    """Both indexes of the cities."""
    from curriculum.artifacts import IndexArtifact
    from curriculum.retrieval.bm25 import build_bm25
    from curriculum.retrieval.dense import Encoder, build_dense, embed_passages

    search = lab.profile.retrieval
    build_bm25(passages, search, lab.out / "bm25")
    (lab.checkpoints / "vectors").mkdir()
    (lab.out / "dense").mkdir()
    made = embed_passages(passages, Encoder(lab.model(search.encoder), search), search, lab.checkpoints / "vectors", lab.checkpoints, lab.progress)
    return IndexArtifact(lab.out, {"dense": build_dense(made, lab.out / "dense").facts})


def encoder(lab: Lab) -> Any:
    from curriculum.crossencoder.model import CrossEncoder

    (lab.checkpoints / "bert").mkdir(exist_ok=True)
    return CrossEncoder.start(tiny_bert(lab.checkpoints / "bert"), max_length=32, seed=0)


@lineage_asset(group="test")
def promoted_reranker(lab: Lab) -> ModelArtifact:
    """Leaves the first stage as it is."""
    from curriculum.artifacts import ModelArtifact
    from curriculum.reranking.reranker import Reranker

    Reranker(encoder(lab), weight=0.0).save(lab.out)
    return ModelArtifact(lab.out)


@lineage_asset(group="test")
def promoted_verifier(lab: Lab) -> ModelArtifact:
    """Knows nothing: nothing is withheld here, and the score that stops the run does not ask it."""
    from curriculum.artifacts import ModelArtifact
    from curriculum.grounding.verifier import SupportVerifier

    SupportVerifier(encoder(lab), window_words=40).save(lab.out)
    return ModelArtifact(lab.out)


@lineage_asset(group="test")
def promoted_reader(lab: Lab) -> ModelArtifact:
    """Not asked: a generator answers."""
    from curriculum.artifacts import ModelArtifact

    (lab.out / "none").write_text("")
    return ModelArtifact(lab.out)


@lineage_asset(group="test", name="notes_questions")
def city_notes_questions(lab: Lab) -> pd.DataFrame:
    """Questions on the cities."""
    return city_questions()


def read_out(path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
    """A chat endpoint that reads the answer out of the passages it is shown, and makes one up where they do not have it."""
    shown, _, question = body["messages"][-1]["content"].partition("Question: ")
    thing = re.sub(r"^What is |\?$", "", question)
    said = re.search(rf"{re.escape(thing)} is (\w+)\.", shown, re.IGNORECASE)
    return 200, completion(body["model"], f"{said[1]} [1]." if said else "Bordeaux.")


@pytest.fixture
def endpoint() -> Iterator[str]:
    with answering(read_out) as address:
        yield f"{address}/v1"


def test_dropped_context_in_the_generators_answers_is_stopped_by_the_regression_of_their_f1(
    tmp_path: Path, instance: dg.DagsterInstance, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from curriculum.rag.answerers import GeneratorAnswerer

    given.update(passages=city_passages())
    overrides = {
        "generator": {"kind": "endpoint", "base_url": endpoint, "model": "reads"},
        "rag": {"answerer": "generator", "withhold": False, "max_questions": 40, "depth": 4, "contexts": 2},
    }
    guarded = Guarded(
        tmp_path, instance, passages, promoted_index, promoted_reranker, promoted_verifier, promoted_reader, city_notes_questions,
        rag_answers, rag_report, *guardrails("passages", "notes_questions", "rag_answers", "rag_report"),
    )  # fmt: skip
    well, told = guarded.run(**overrides)
    assert well and errors(told) == set()
    guarded.accept("rag_report")
    messages = GeneratorAnswerer.messages
    monkeypatch.setattr(GeneratorAnswerer, "messages", lambda self, question, contexts: messages(self, question, []))
    overrides["rag"]["max_new_tokens"] = 47  # another setting, so that it answers again
    well, told = guarded.run(**overrides)
    assert not well and errors(told) == {"regression_answer_f1"}


def test_a_leak_between_the_sides_of_the_split_is_stopped_by_the_claim_on_leaked_questions(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    folder = tmp_path / "notes"
    shutil.copytree(NOTES, folder)
    assets = [notes_corpus, notes_questions, two_hop_questions, labelled_claims, prompt_cases, notes_study]
    guarded = Guarded(tmp_path, instance, *assets, *guardrails("notes_corpus", "notes_questions", "labelled_claims", "prompt_cases", "notes_study"))
    well, told = guarded.run(corpora={"notes": f"path:{folder}"})
    assert well and errors(told) == set()
    sides = yaml.safe_load((folder / "splits.yaml").read_text())
    test, train = (next(note for note, side in sides.items() if side == wanted) for wanted in ("test", "train"))
    asked, other = (yaml.safe_load((folder / f"{note}.questions.yaml").read_text()) for note in (test, train))
    words = asked[0]["question"].rstrip("?").split()
    other[0]["phrasings"].append(" ".join([*words[1:], words[0]]))  # a test question among what is trained on, not letter by letter
    (folder / f"{train}.questions.yaml").write_text(yaml.safe_dump(other, allow_unicode=True, sort_keys=False))
    well, told = guarded.run(corpora={"notes": f"path:{folder}"})
    assert not well and errors(told) == {"claim_notes_study_leaked_questions"}
    leaks = StudyResult.load(guarded.store.path(guarded.store.manifest("notes_study"))).tables["leaks"]
    assert repr(asked[0]["question"]) in leaks["leak"][0]
