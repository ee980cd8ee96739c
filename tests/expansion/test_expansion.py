"""Query expansion: RM3 is BM25 without feedback and by hand with it, HyDE's vectors, and a study that sees passages of strangers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from curriculum.artifacts import IndexArtifact
from curriculum.cells import Cells
from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge, judge_value
from curriculum.expansion.hyde import CHUNK, mean_vectors, strangers, write_passages
from curriculum.expansion.rm3 import Rm3Index, build_feedback_index, parity
from curriculum.expansion.settings import ExpansionSettings
from curriculum.expansion.study import feedback_on, query_expansion_study, sample_of
from curriculum.expansion.systems import vectors_of
from curriculum.generation.base import Generation, Messages
from curriculum.results import StudyResult
from curriculum.retrieval.bm25 import Bm25Index, build_bm25
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.storage import ArtifactStore
from curriculum.syllabus import load_syllabus
from tests.expansion.small import ANSWERS, SETTINGS, TEXTS, Small, build_small, passages, save_generator, tracks

torch.set_num_threads(1)
ANIMALS = {"d1": "zebra zebra quagga kudu", "d2": "zebra eland", "d3": "quagga okapi"} | {f"f{i}": f"filler{i} word{i}" for i in range(30)}


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The searched index, and the one with term vectors."""
    plain, vectors = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("vectors")
    build_bm25(passages(ANIMALS), RetrievalSettings(), plain)
    return plain, build_feedback_index(passages(ANIMALS), vectors)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return build_small(tmp_path_factory.mktemp("small"))


def rm3(path: Path, documents: int = 10, weight: float = 0.5, terms: int = 10) -> Rm3Index:
    return Rm3Index(path, "project", documents=documents, terms=terms, weight=weight)


def test_rm3_without_feedback_ranks_as_bm25_and_with_it_does_not(animals: tuple[Path, Path]) -> None:
    asked = ["zebra", "quagga zebra quagga", "word3 okapi kudu", "the of", "", "unknown"]
    plain, off = Bm25Index(animals[0]).search(asked, 10), rm3(animals[1], documents=0, weight=1.0)
    found, lengths = off.search(asked, 10), [off.length(query) for query in asked]
    assert [[pid for pid, _ in hits] for hits in found] == [[pid for pid, _ in hits] for hits in plain] and lengths == [1, 3, 3, 0, 0, 1]
    assert parity(found, plain, lengths, 10) == [True] * 6
    assert [new * 3 for _, new in found[1]] == pytest.approx([old for _, old in plain[1]], abs=4e-4)
    assert parity(rm3(animals[1]).search(asked, 10), plain, lengths, 10)[0] is False


def test_only_passages_of_equal_score_may_change_places() -> None:
    plain = [[("a", 2.0), ("b", 1.00005), ("c", 1.0)]]
    assert parity([[("a", 2.0), ("c", 1.0), ("b", 1.0)]], plain, [1], 3) == [True]
    assert parity([[("a", 2.0), ("b", 1.0), ("z", 1.0)]], plain, [1], 3) == [True]  # z is as near as c, which the list's end left in
    for wrong in ([("b", 2.0), ("a", 1.0), ("c", 1.0)], [("a", 2.0), ("b", 1.0)], [("z", 2.0), ("b", 1.0), ("c", 1.0)]):
        assert parity([wrong], plain, [1], 3) == [False]
    assert parity([[("a", 2.0), ("b", 1.0), ("z", 1.0)]], plain, [1], 10) == [False]  # the list had room for all that has the words


def test_feedback_weighs_terms_as_the_relevance_model_says(animals: tuple[Path, Path]) -> None:
    (hits,) = Bm25Index(animals[0]).search(["zebra"], 10)
    model: dict[str, float] = {}
    for pid, score in hits:  # p(term | passage), by the passage's score
        words = ANIMALS[pid].split()
        for word in words:
            model[word] = model.get(word, 0.0) + score / len(words)
    expected = {word: 0.5 * weight / sum(model.values()) + 0.5 * (word == "zebra") for word, weight in model.items()}
    index = rm3(animals[1])
    assert index.weights("zebra") == pytest.approx(expected, abs=1e-4) and set(expected) == {"zebra", "quagga", "kudu", "eland"}
    assert list(index.added("zebra")) == sorted(set(expected) - {"zebra"}, key=lambda word: (-expected[word], word))
    assert [pid for pid, _ in hits] == ["d1", "d2"] or [pid for pid, _ in hits] == ["d2", "d1"]
    assert "d3" in [pid for pid, _ in index.search(["zebra"], 10)[0]]  # it does not hold the query's word
    assert index.added("the of") == rm3(animals[1], weight=1.0).added("zebra") == {}


def test_the_searched_index_cannot_give_feedback(animals: tuple[Path, Path]) -> None:
    with pytest.raises(TypeError, match="without document vectors"):
        rm3(animals[0])


def test_the_vector_is_the_mean_with_the_passages_that_hold_text() -> None:
    query_QD, passages_SQD = np.eye(2, 3, dtype=np.float32), np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    made = mean_vectors(query_QD, passages_SQD, np.array([[True, True], [True, False]]))
    assert made[0] == pytest.approx((query_QD[0] + passages_SQD[0, 0] + passages_SQD[1, 0]) / 3)
    assert made[1] == pytest.approx((query_QD[1] + passages_SQD[0, 1]) / 2)
    assert (mean_vectors(query_QD, passages_SQD, np.zeros((2, 2), dtype=bool)) == query_QD).all()


def test_a_stranger_is_of_another_question() -> None:
    groups = ["a", "a", "b", "c", "c", "c"]
    for seed in range(5):
        assert all(groups[other] != own for own, other in zip(groups, strangers(groups, seed), strict=True))
    with pytest.raises(DataError, match="only one"):
        strangers(["a", "a"], 0)


def test_every_question_is_asked_once_before_one_is_asked_twice() -> None:
    assert sample_of(tracks(), 6)["group"].nunique() == 6
    assert len(sample_of(tracks(), 100)) == 12 and sample_of(tracks(), 7)["group"].nunique() == 6
    assert sample_of(tracks().iloc[::-1], 6)["query_id"].tolist() == sample_of(tracks(), 6)["query_id"].tolist()


class Writer:
    """Writes ``answers`` of the question in a prompt; it fails once ``limit`` prompts were answered."""

    name = "writer"

    def __init__(self, answers: dict[str, str], limit: int = 10**6) -> None:
        self.answers, self.limit, self.asked = answers, limit, list[str]()

    def generate(
        self, prompts: list[Messages], *, max_new_tokens: int, stop: tuple[str, ...] = (), temperature: float = 0.0, seed: int = 0
    ) -> list[Generation]:
        if len(self.asked) + len(prompts) > self.limit:
            raise RuntimeError("killed")
        questions = [prompt[0]["content"].split("Question: ")[1].split("\n")[0] for prompt in prompts]
        self.asked += questions
        return [Generation(self.answers[q], 10, 3, 0.5, "stop") for q in questions]


def test_a_killed_run_writes_only_what_is_missing(tmp_path: Path) -> None:
    cells, how = Cells(tmp_path), {"seed": 0, "progress": lambda line: None}
    killed = Writer(ANSWERS, limit=CHUNK)
    with pytest.raises(RuntimeError, match="killed"):
        write_passages(tracks(), SETTINGS, generator=lambda: killed, cells=cells, **how)
    again = Writer(ANSWERS)
    written = write_passages(tracks(), SETTINGS, generator=lambda: again, cells=cells, **how)
    assert killed.asked + again.asked == tracks()["query"].tolist() and len(again.asked) == 12 - CHUNK
    assert written["passage"].tolist() == [ANSWERS[q] for q in tracks()["query"]] and written["tokens"].eq(3).all()
    whole = write_passages(tracks(), SETTINGS, generator=lambda: Writer({}, limit=0), cells=cells, **how)
    assert whole.equals(written)
    sampled = SETTINGS.model_copy(update={"samples": 2, "temperature": 0.7})
    twice = write_passages(tracks(), sampled, generator=lambda: Writer(ANSWERS), cells=cells, **how)
    assert twice.groupby("query_id")["sample"].apply(list).tolist() == [[0, 1]] * 12


@pytest.mark.parametrize("wrong", [{"prompt": "Write a passage."}, {"samples": 8}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="expansion"):
        ExpansionSettings(**wrong)  # type: ignore[arg-type]


def study(small: Small, folder: Path, answers: dict[str, str]) -> StudyResult:
    return query_expansion_study(
        passages(), tracks(), small.bm25, small.dense, SETTINGS, small.retrieval, encoder=small.encode(), generator=lambda: Writer(answers),
        seed=0, identities=[], cells=Cells(folder),
    )  # fmt: skip


def verdict(result: StudyResult, metric: str) -> Verdict:
    bar = next(c for c in load_syllabus().claims if (c.asset, c.metric) == ("query_expansion_study", metric))
    return judge_value(bar, result).verdict


def test_one_who_knows_helps_and_passages_of_strangers_turn_the_claim_red(small: Small, tmp_path: Path) -> None:
    sound = study(small, tmp_path / "sound", ANSWERS)
    assert verdict(sound, "ndcg_gain_low__hyde_own") is verdict(sound, "ndcg_gain_low__hyde") is Verdict.PASSED
    assert sound.value("ndcg_at_10__dense_hyde") == sound.value("ndcg_at_10__hyde_alone") == 1.0 > sound.value("ndcg_at_10__hyde_shuffled")
    assert sound.value("ndcg_gain__hyde") == pytest.approx(sound.value("ndcg_at_10__dense_hyde") - sound.value("ndcg_at_10__dense"))
    assert sound.metric("ndcg_gain__hyde").n == 6 and sound.value("tokens_a_query") == 3.0  # type: ignore[union-attr]  # questions, not phrasings
    assert "HyDE on the dense leg helps in nDCG@10" in " ".join(sound.remarks)
    questions = list(ANSWERS)
    mixed = {q: ANSWERS[questions[(i + 2) % 12]] for i, q in enumerate(questions)}
    wrong = study(small, tmp_path / "wrong", mixed)
    assert verdict(wrong, "ndcg_gain_low__hyde_own") is verdict(wrong, "ndcg_gain_low__hyde") is Verdict.FAILED


def test_a_generator_that_writes_nothing_changes_nothing(small: Small) -> None:
    written = tracks()[["query_id"]].assign(sample=0, passage="")
    made = vectors_of(tracks(), written, small.encode(), 0)
    assert (made.hyde == made.plain).all() and (made.alone == made.plain).all() and (made.shuffled == made.plain).all()
    bar = next(c for c in load_syllabus().claims if (c.asset, c.metric) == ("query_expansion_study", "ndcg_gain_low__hyde_own"))
    assert judge(bar, 0.0).verdict is Verdict.FAILED  # no difference is no success


def test_texts_shuffled_against_their_ids_are_not_the_ranking_of_the_searched_index(small: Small, tmp_path: Path) -> None:
    table = passages()
    for name, texts in (("sound", list(table["text"])), ("shuffled", [*table["text"][1:], table["text"][0]])):
        index = build_feedback_index(table.assign(text=texts), tmp_path / name)
        _, feedback = feedback_on(tracks(), small.bm25.path, index, SETTINGS, small.retrieval, 100)
        assert feedback["same"].all() if name == "sound" else not feedback["same"].any()


@pytest.fixture(scope="module")
def made(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, dict[str, bool]]:
    """The asset's result by a generator of random weights, and which of its claims held, by metric."""
    from assets.expansion import query_expansion_study as asset
    from assets.lineage import Lab, lineage_asset
    from resources.build import build_resources
    from tests.lineage import claims_on

    def copied(name: str, index: IndexArtifact) -> dg.AssetsDefinition:
        @lineage_asset(group="test", name=name)
        def make(lab: Lab) -> IndexArtifact:
            """A small index."""
            shutil.copytree(index.path, lab.out, dirs_exist_ok=True)
            return IndexArtifact(lab.out, index.facts)

        return make

    def table(name: str, made: Callable[[], pd.DataFrame]) -> dg.AssetsDefinition:
        @lineage_asset(group="test", name=name)
        def make(lab: Lab) -> pd.DataFrame:
            """A small table."""
            return made()

        return make

    home, generator = tmp_path_factory.mktemp("home"), save_generator(tmp_path_factory.mktemp("llama"))
    overrides = {
        "expansion": SETTINGS.model_dump(mode="json"), "retrieval": {"encoder": f"path:{small.encoder}"},
        "generator": {"model": f"path:{generator}"},
    }  # fmt: skip
    upstream = [
        copied("bm25_index", small.bm25), copied("dense_index", small.dense), table("passages", passages), table("retrieval_tracks", tracks)
    ]
    checks = claims_on("query_expansion_study")
    done = dg.materialize(
        [*upstream, asset, *checks], instance=dg.DagsterInstance.ephemeral(), raise_on_error=False,
        resources=build_resources("starter", home, overrides=overrides, journal=False),
    )  # fmt: skip
    manifest = done.output_for_node("query_expansion_study").manifest
    held = {e.check_name.removeprefix("claim_query_expansion_study_"): e.passed for e in done.get_asset_check_evaluations()}
    return StudyResult.load(ArtifactStore(str(home / "artifacts" / "starter")).path(manifest)), held


def test_the_asset_measures_every_claim(made: tuple[StudyResult, dict[str, bool]]) -> None:
    result, held = made
    assert set(held) == {claim.metric for claim in load_syllabus().claims if claim.asset == "query_expansion_study"}
    assert held["rm3_parity"] and held["rm3_expanded"] and result.value("rm3_parity") == 1.0
    assert not held["ndcg_gain_low__hyde_own"], "a model of random weights wrote something that helps"
    assert {i.role for i in result.identities} == {"encoder", "model"}


def test_what_was_written_can_be_read(made: tuple[StudyResult, dict[str, bool]]) -> None:
    result = made[0]
    texts = result.tables["passages"]
    assert set(texts["query_id"]) == set(result.per_example["example_id"]) == {f"q{i}" for i in range(12)}
    assert texts["tokens"].between(1, 4).all() and (texts["passage"].str.len() > 0).any()
    terms = result.tables["terms"].set_index("example_id")["added"]
    named = set(" ".join(TEXTS.values()).split())
    assert all(term in named for added in terms for term in added.split(", "))
    assert list(result.tables["costs"]["expansion"]) == ["rm3", "hyde"] and result.value("tokens_a_query") == texts["tokens"].mean()
    assert result.plots["gains"].startswith(b"\x89PNG") and len(result.plots["gains"]) < 50_000
