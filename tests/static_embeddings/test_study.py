"""Test sets read, scores, and the study from end to end on the made text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from curriculum.cells import Cells
from curriculum.errors import DataError
from curriculum.results import StudyResult
from curriculum.sources import dataset_folder, local_sources
from curriculum.static_embeddings.models import MODELS
from curriculum.static_embeddings.scoring import analogy_hits, neighbours, similarity_bootstrap, spearman
from curriculum.static_embeddings.sets import read_analogies, read_similarity
from curriculum.static_embeddings.settings import StaticEmbeddingsSettings
from curriculum.static_embeddings.study import static_embeddings_study
from curriculum.static_embeddings.unseen import choose_unseen, stem_chance
from curriculum.static_embeddings.words import build_corpus, words_of
from tests.static_embeddings.small import SETTINGS, analogies, pairs, texts


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, Path]:
    folder = tmp_path_factory.mktemp("cells")
    return static_embeddings_study(texts(), pairs(), analogies(), SETTINGS, seed=0, cells=Cells(folder)), folder


def test_the_study(study: tuple[StudyResult, Path]) -> None:
    result, _ = study
    assert result.seeds == [0, 1] and result.value("coverage__analogies") == pytest.approx(2 / 3)
    for model in MODELS:
        metric = result.metric(f"spearman__{model}")
        assert metric is not None and metric.n == 276 and 0.2 < metric.low <= metric.value <= metric.high
        assert 0 <= result.value(f"analogy_accuracy__{model}") <= 1
    control = result.metric("spearman__shuffled_text")
    assert control is not None and control.value < 0.15
    assert result.value("spearman_over_shuffled_low__skipgram") > 0.2
    assert result.value("unseen_nonzero__fasttext") == 1.0 and result.value("unseen_stem__chance") < 0.25
    assert result.value("unseen_meaning__fasttext") > result.value("unseen_meaning__chance")
    assert result.value("gram_mismatches") == 0 and result.value("glove_gradient_error") < 1e-5
    assert all(png.startswith(b"\x89PNG") and len(png) < 50_000 for png in result.plots.values())
    assert result.per_example["example_id"].is_unique and set(result.per_example["kind"]) == {"pair", "analogy", "unseen"}
    shown = result.tables["neighbours"]
    assert set(shown["word"]) == {"harbours"} and "harbour" in " ".join(shown["nearest"])


def test_every_claim_names_a_metric(study: tuple[StudyResult, Path]) -> None:
    from curriculum.syllabus import load_syllabus

    claims = [claim for claim in load_syllabus().claims if claim.asset == "static_embeddings_study"]
    assert {claim.topic for claim in claims} == {"word2vec", "glove", "fasttext"} and all(claim.deep for claim in claims)
    assert [claim.metric for claim in claims if study[0].metric(claim.metric) is None] == []


def test_a_second_run_trains_nothing_and_a_change_of_the_text_everything(study: tuple[StudyResult, Path]) -> None:
    result, folder = study
    said: list[str] = []
    again = static_embeddings_study(texts(), pairs(), analogies(), SETTINGS, seed=0, cells=Cells(folder, said.append))
    assert said and all(line.endswith("kept from before") for line in said)
    assert again.metrics == result.metrics

    class Trained(Exception):
        """Raised by the first training that ends."""

    def stop(line: str) -> None:
        raise Trained(line)

    with pytest.raises(Trained, match="1/11 skipgram, seed 0: trained and scored"):
        static_embeddings_study(texts(seed=1), pairs(), analogies(), SETTINGS, seed=0, cells=Cells(folder, stop))


def test_too_few_known_pairs(tmp_path: Path) -> None:
    few = pd.DataFrame({"set": "few", "word1": ["harbour"] * 30, "word2": ["nowhere"] * 30, "grade": range(30)})
    with pytest.raises(DataError, match="pairs of known words"):
        static_embeddings_study(texts(60), few, analogies(), SETTINGS.model_copy(update={"epochs": 1, "seeds": 1}), seed=0, cells=Cells(tmp_path))


def test_spearman_is_scipys_ties_included() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (3, 40)).astype(float), rng.normal(size=(3, 40))
    assert spearman(x, y) == pytest.approx([spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)])


def test_the_bootstrap_leaves_out_small_and_unknown_sets() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"set": ["big"] * 60 + ["small"] * 10, "word1": "a", "word2": "b", "grade": rng.normal(size=70)})
    good = table["grade"].to_numpy() + 0.3 * rng.normal(size=70)
    good[:5] = np.nan
    draws, by_set = similarity_bootstrap(table, {"good": good[None], "random": rng.normal(size=(2, 70))}, 200, 0)
    assert draws["good"][0] == pytest.approx(spearmanr(table["grade"][5:60], good[5:60]).statistic)
    assert np.percentile(draws["good"], 2.5) > 0.8 and abs(draws["random"][0]) < 0.4
    assert list(by_set["covered"]) == [55, 55, 10, 10] and by_set["spearman"].isna().tolist() == [False, False, True, True]


def test_3cosadd_excludes_the_words_given() -> None:
    words = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1], [-1, 0, 0]])
    questions = np.array([[0, 1, 2, 3], [0, 1, 2, 1], [0, 1, 2, -1]])
    assert analogy_hits(words, questions).tolist() == [True, False, False]
    assert neighbours(words[:1], words, 2, [[0]]).tolist() == [[1, 2]]


def test_sets_in_the_published_layouts(tmp_path: Path) -> None:
    (tmp_path / "ws.txt").write_text("# a comment\nTiger\tcat\t7.35\nbook\tpaper\t7.46\n")
    (tmp_path / "ru.csv").write_text("word1,word2,sim\nмаг,волшебник,0.95\n")
    (tmp_path / "README.md").write_text("not a set")
    table = read_similarity(tmp_path)
    assert table.to_dict("list") == {
        "set": ["ru", "ws", "ws"], "word1": ["маг", "tiger", "book"], "word2": ["волшебник", "cat", "paper"], "grade": [0.95, 7.35, 7.46],
    }
    (tmp_path / "ws.txt").write_text("tiger\tcat\t7.35\ntiger cat\n")
    with pytest.raises(DataError, match=r"ws.txt, line 2: expected two words and a grade"):
        read_similarity(tmp_path)
    google, msr = tmp_path / "google.txt", tmp_path / "msr.csv"
    google.write_text(": capitals\nAthens Greece Oslo Norway\n")
    msr.write_text(",type,word1,word2,word3,target\n0,JJ_JJR,good,better,rough,rougher\n")
    rows = [*read_analogies(google).to_dict("records"), *read_analogies(msr).to_dict("records")]
    assert rows == [
        {"set": "google", "section": "capitals", "a": "athens", "b": "greece", "c": "oslo", "d": "norway"},
        {"set": "msr", "section": "JJ_JJR", "a": "good", "b": "better", "c": "rough", "d": "rougher"},
    ]
    google.write_text("one two three\n")
    with pytest.raises(DataError, match="line 1: expected four words"):
        read_analogies(google)
    msr.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="header lacks"):
        read_analogies(msr)


def test_the_packaged_sets() -> None:
    settings = StaticEmbeddingsSettings()
    graded, questions = read_similarity(dataset_folder(settings.similarity)), read_analogies(dataset_folder(settings.analogies))
    assert len(graded) >= 100 and graded["grade"].between(0, 10).all() and not graded.duplicated(["word1", "word2"]).any()
    assert (graded["grade"] < 3).sum() >= 30 and (graded["grade"] > 7).sum() >= 30
    assert len(questions) >= 100 and not questions.duplicated(list("abcd")).any()
    assert (questions[list("abcd")].nunique(axis=1) == 4).all()
    assert local_sources(settings.model_dump(mode="json")) == {settings.similarity, settings.analogies}


def test_words_taken_out_leave_their_stem_behind() -> None:
    corpus = build_corpus([words_of(text) for text in texts()], 2)
    out = choose_unseen(corpus, 100, frozenset({"harbour", "harbours"}), 0)
    assert len(out) >= 15 and not {"harbour", "harbours"} & set(out) and len(choose_unseen(corpus, 3, frozenset(), 0)) == 3
    left = build_corpus([words_of(text) for text in texts()], 2, frozenset(out))
    assert not set(out) & set(left.words) and 0 < stem_chance(out, left, 5) < 0.5


def test_settings_out_of_order() -> None:
    with pytest.raises(ValueError, match="minimum_gram"):
        StaticEmbeddingsSettings(minimum_gram=5, maximum_gram=4)
