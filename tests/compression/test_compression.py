"""Context compression: budgets are kept, surprise is the model's own loss, and a way that never reads the question is seen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given as holds
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.feature_extraction.text import HashingVectorizer

from curriculum.artifacts import IndexArtifact, ModelArtifact
from curriculum.cells import Cells
from curriculum.compression.pieces import plain, sentence_pieces, word_pieces
from curriculum.compression.settings import CompressionSettings
from curriculum.compression.study import context_compression_study, contexts
from curriculum.compression.surprise import Surprise
from curriculum.compression.systems import SYSTEMS, Judges
from curriculum.crossencoder.model import CrossEncoder
from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge_value
from curriculum.rag.answerers import ReaderAnswerer
from curriculum.reranking.reranker import Reranker
from curriculum.results import StudyResult
from curriculum.storage import ArtifactStore
from curriculum.syllabus import load_syllabus
from tests.adaptation.tiny_llama import save_tiny
from tests.crossencoder.tiny import tiny_bert

torch.set_num_threads(1)
SETTINGS = CompressionSettings(contexts=2, shares=(0.25, 0.5), questions=12)
CLAIMS = {bar.metric: bar for bar in load_syllabus().claims if bar.asset == "context_compression_study"}
ROLES = ["capital", "river", "mountain", "museum", "mayor", "harbour"]
CITIES = ["Arden", "Belmar", "Corvin", "Dunmore", "Elstow"]
TEXT = "The first one is here. The second, which is longer, is there! Is this the third? It is."


def answer_of(city: str, role: str) -> str:
    return f"{city[:3]}{role[:3]}ium".title()


def passages() -> pd.DataFrame:
    """A passage a city, of a sentence a role."""
    texts = {city: " ".join(f"The {role} of {city} is {answer_of(city, role)}." for role in ROLES) for city in CITIES}
    rows = [
        {"passage_id": f"{c}#0", "collection": "project", "doc_id": c, "title": c, "section": "", "text": t, "position": 0} for c, t in texts.items()
    ]
    return pd.DataFrame(rows)


def questions(split: str = "test") -> pd.DataFrame:
    rows = [(f"{c}-{r}", c, f"What is the {r} of {c}?", "answerable", [answer_of(c, r)], split) for c in CITIES for r in ROLES]
    return pd.DataFrame(rows, columns=["question_id", "note_id", "question", "kind", "answers", "split"])


class ByCity:
    """Finds the passage of the city that a question names, then another one."""

    def legs(self, queries: list[str], k: int, collection: str = "project") -> dict[str, list[list[tuple[str, float]]]]:
        return {"city": self.search(queries, k, collection)}

    def search(self, queries: list[str], k: int, collection: str = "project") -> list[list[tuple[str, float]]]:
        order = [sorted(CITIES, key=lambda city: city not in query) for query in queries]
        return [[(f"{city}#0", -float(place)) for place, city in enumerate(cities[:k])] for cities in order]


class Words:
    """Vectors of words that are not counted in order; ``deaf``: every question is the same to it."""

    def __init__(self, deaf: bool = False) -> None:
        self.deaf, self._hashed = deaf, HashingVectorizer(n_features=512, alternate_sign=False)

    def passages(self, texts: list[str]) -> np.ndarray:
        return self._hashed.transform(texts).toarray()

    def queries(self, texts: list[str]) -> np.ndarray:
        return self.passages(["What is it?" if self.deaf else text for text in texts])


def read(pairs: list[tuple[str, str]]) -> list[tuple[str, float]]:
    """The word after "The ROLE of CITY is", where that stands."""
    spans = []
    for question, text in pairs:
        asked = re.search(r"the (\w+) of (\w+)", question)
        assert asked is not None
        found = re.search(rf"The {asked[1]} of {asked[2]} is (\w+)", text)
        spans.append((found[1], 1.0) if found else ("", 0.0))
    return spans


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def study(llama: Path, bert: Path, cells: Path, encoder: Words | None = None, lines: list[str] | None = None) -> StudyResult:
    judges = Judges(encoder or Words(), CrossEncoder.start(bert, max_length=64, seed=0), Surprise(llama))
    return context_compression_study(
        questions(), passages(), ByCity(), judges, ReaderAnswerer(read), SETTINGS, collection="project", seed=0, identities=[],
        cells=Cells(cells, (lines if lines is not None else []).append),
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(llama: Path, bert: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    return study(llama, bert, tmp_path_factory.mktemp("cells"))


@holds(
    st.lists(st.text("ab. \n", max_size=40), min_size=1, max_size=3), st.floats(0, 1), st.integers(0, 5), st.sampled_from([sentence_pieces, word_pieces])
)
def test_what_is_kept_fits_its_budget_and_all_of_it_is_the_text(texts: list[str], share: float, seed: int, cut: Any) -> None:
    pieces = cut(texts, lambda text: len(text.split()))
    everything = np.ones(len(pieces.texts), dtype=bool)
    assert pieces.joined(everything) == "\n".join(filter(None, map(plain, texts)))
    total, scores = int(pieces.tokens.sum()), np.random.default_rng(seed).random(len(pieces.texts))
    chosen = pieces.kept(scores, share * total)
    assert pieces.tokens[chosen].sum() <= share * total and pieces.kept(scores, total).all()
    left = share * total - pieces.tokens[chosen].sum()
    assert all(pieces.tokens[place] > left for place in np.flatnonzero(~chosen))  # nothing that would still fit is left out


def test_the_best_scored_pieces_are_kept_in_their_order() -> None:
    pieces = sentence_pieces([TEXT, "Another passage."], lambda text: len(text.split()))
    assert pieces.texts == ["The first one is here.", "The second, which is longer, is there!", "Is this the third?", "It is.", "Another passage."]
    chosen = pieces.kept(np.array([1, 0, 3, 2, 4]), 8)
    assert pieces.joined(chosen) == "Is this the third? It is.\nAnother passage."


def test_surprise_is_the_models_own_loss(llama: Path) -> None:
    one = Surprise(llama)
    bits, spans = one.bits(TEXT)
    ids = torch.tensor([[one.tokenizer.eos_token_id, *one.tokenizer(TEXT, add_special_tokens=False)["input_ids"]]])
    loss = one.model(ids, labels=ids).loss.item()  # transformers' own mean, in nats
    assert bits.mean() * np.log(2) == pytest.approx(loss, abs=1e-5) and len(bits) == len(spans) == ids.shape[1] - 1
    after, _ = one.bits(TEXT, "Which one is here?\n")
    assert after.shape == bits.shape and not np.allclose(after, bits, atol=1e-3)


def test_each_word_has_the_surprise_of_its_own_tokens(llama: Path) -> None:
    one, texts = Surprise(llama), [f"  {TEXT}\n\nMore  of it.", "Another passage."]
    words, found = word_pieces(texts, one.count).texts, one.words(texts)
    assert len(found) == len(words) and (found > 0).all()
    bits, spans = one.bits("\n".join(map(plain, texts)))
    starts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])])  # one space or line end between two
    for start, word, value in zip(starts, words, found, strict=True):
        own = [b for b, (begin, end) in zip(bits, spans, strict=True) if start - 1 <= begin and end <= start + len(word)]
        assert value == pytest.approx(np.mean(own), rel=1e-6)


def test_what_reads_the_question_keeps_the_answer(result: StudyResult) -> None:
    assert result.value("f1__whole") == 1.0 and result.value("contexts_with_answer") == 1.0
    assert result.value("evidence__dense_50") == 1.0 == result.value("f1__dense_50") and result.value("evidence__lead_25") < 0.7
    gain = result.metric("own_gain")
    assert gain is not None and gain.sign() == 1 and gain.n == 12
    for name in SYSTEMS:
        assert 0 < result.value(f"kept__{name}_25") <= 0.25 and 0.25 < result.value(f"kept__{name}_50") <= 0.5
    assert {m: judge_value(CLAIMS[m], result).verdict for m in ("tokens_over_budget", "own_gain_low", "evidence_gain_low__dense")} == dict.fromkeys(
        ("tokens_over_budget", "own_gain_low", "evidence_gain_low__dense"), Verdict.PASSED
    )


def test_the_numbers_follow_from_the_questions(result: StudyResult) -> None:
    rows, curve = result.per_example, result.tables["curve"].set_index(["system", "share"])
    assert len(rows) == 12 and rows["example_id"].is_unique
    change = result.metric("f1_change__surprise")
    assert change is not None and change.value == pytest.approx((rows["f1__surprise"] - rows["f1__whole"]).mean())
    assert curve.loc[("random", 0.5), "evidence"] == pytest.approx(result.value("evidence__random_50"))
    assert result.value("evidence_gain_low__dense") == result.metric("evidence_gain__dense").low  # type: ignore[union-attr]
    assert all(png.startswith(b"\x89PNG") and len(png) < 50_000 for png in result.plots.values()) and set(result.plots) == {"f1", "evidence"}


def test_an_encoder_that_is_deaf_to_the_question_turns_the_claim_red(llama: Path, bert: Path, tmp_path: Path) -> None:
    broken = study(llama, bert, tmp_path, Words(deaf=True))
    assert broken.value("own_gain_low") == 0.0 and judge_value(CLAIMS["own_gain_low"], broken).verdict is Verdict.FAILED


def test_a_killed_study_goes_on_with_the_next_question(result: StudyResult, llama: Path, bert: Path, tmp_path: Path) -> None:
    class Cut(Words):
        asked = 0

        def queries(self, texts: list[str]) -> np.ndarray:
            self.asked += 1
            if self.asked == 9:  # twice a question: near it, and near a stranger's
                raise KeyboardInterrupt
            return super().queries(texts)

    with pytest.raises(KeyboardInterrupt):
        study(llama, bert, tmp_path, Cut())
    lines: list[str] = []
    again = study(llama, bert, tmp_path, lines=lines)
    assert sum("kept from before" in line for line in lines) == 4
    pd.testing.assert_frame_equal(again.per_example, result.per_example)


def test_contexts_without_the_answer_are_left_out_and_none_is_an_error() -> None:
    asked = questions()
    asked.loc[asked["note_id"] != "Arden", "answers"] = asked["answers"].map(lambda given: ["nowhere"])
    asked.loc[0, "kind"] = "unanswerable"
    found, tried = contexts(asked, passages(), ByCity(), SETTINGS, "project")
    assert {one.question_id.split("-")[0] for one in found} == {"Arden"} and len(found) == 5 and tried == 29 > 2 * SETTINGS.questions
    assert contexts(asked, passages(), ByCity(), SETTINGS.model_copy(update={"questions": 2}), "project")[1] < 29
    with pytest.raises(DataError, match="0 of 0 test questions on 'project'.*raise compression.contexts"):
        contexts(questions("dev"), passages(), ByCity(), SETTINGS, "project")


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"shares": (0.5, 1.0)}, "between 0 and 1"), ({"shares": (0.5, 0.5)}, "different"), ({"compared_at": 0.3}, r"must be one of compression.shares")],
)
def test_impossible_shares_are_one_clear_error(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CompressionSettings(**changed)


def test_the_asset_compresses_what_the_promoted_index_finds(bert: Path, llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    from assets.compression import context_compression_study as asset
    from resources.build import build_resources
    from tests.expansion.small import ASKED, TEXTS, build_small
    from tests.expansion.small import passages as themes
    from tests.lineage import claims_on, given, held

    small, folders = build_small(tmp_path / "small"), {name: tmp_path / name for name in ("index", "reranker", "reader")}
    folders["index"].mkdir()
    small.bm25.path.rename(folders["index"] / "bm25")
    small.dense.path.rename(folders["index"] / "dense")
    Reranker(CrossEncoder.start(bert, max_length=64, seed=0)).save(folders["reranker"])
    AutoModelForQuestionAnswering.from_pretrained(bert).save_pretrained(folders["reader"])
    AutoTokenizer.from_pretrained(bert).save_pretrained(folders["reader"])
    (folders["reader"] / "reader.json").write_text(json.dumps({"max_length": 64, "stride": 16, "n_best": 5, "max_tokens": 8}))
    asked = [(q, f"p{i}", text, "answerable", [TEXTS[f"p{i}"].split()[2]], "test") for i, (q, text) in enumerate(ASKED.items())]
    inputs = {
        "promoted_index": IndexArtifact(folders["index"], {"bm25": small.bm25.facts, "dense": small.dense.facts}), "passages": themes(),
        "promoted_reranker": ModelArtifact(folders["reranker"]), "promoted_reader": ModelArtifact(folders["reader"]),
        "notes_questions": pd.DataFrame(asked, columns=list(questions().columns)),
    }  # fmt: skip
    overrides = {"compression": {"model": f"path:{llama}", "contexts": 30, "questions": 2}, "retrieval": small.retrieval.model_dump(mode="json")}
    done = dg.materialize(
        [*given(inputs), asset, *claims_on("context_compression_study")], instance=dg.DagsterInstance.ephemeral(),
        resources=build_resources("starter", tmp_path / "home", overrides=overrides, journal=False), raise_on_error=False,
    )  # fmt: skip
    judged = held(done, "context_compression_study")
    assert set(judged) == set(CLAIMS) and judged["tokens_over_budget"]
    store = ArtifactStore(str(tmp_path / "home" / "artifacts" / "starter"))
    found = StudyResult.load(store.path(done.output_for_node("context_compression_study").manifest))
    assert all(np.isfinite(found.value(metric)) for metric in CLAIMS) and {i.role for i in found.identities} == {"model of surprise", "encoder"}
