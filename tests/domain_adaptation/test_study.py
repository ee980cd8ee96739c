"""Arms that read what they say, each from where it should begin; held-out text that was read is caught; a killed run goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import curriculum.domain_adaptation.study as study_module
from curriculum.adaptation.model import load_tokenizer
from curriculum.corpora.sides import Sides
from curriculum.domain_adaptation.runs import ARMS, Bench, run_chain
from curriculum.domain_adaptation.settings import DomainAdaptationSettings
from curriculum.domain_adaptation.study import domain_adaptation_study, outer_change
from curriculum.domain_adaptation.texts import material, notes_sides
from curriculum.errors import DataError
from curriculum.results import StudyResult
from curriculum.syllabus import load_syllabus
from tests.adaptation.tiny_llama import TEXTS, save_tiny
from tests.tuning.tiny import labelled

torch.set_num_threads(1)
SETTINGS = DomainAdaptationSettings(
    seeds=3, domain_steps=12, task_steps=12, batch_size=4, block_size=24, learning_rate=5e-3, rank=4, alpha=8, test_blocks=3, train_texts=30,
    dev_texts=10, test_texts=12, penalties=(0.1, 1.0),
)  # fmt: skip
DOMAIN = Sides(TEXTS[:40], TEXTS[40:])
SEA = [f"Ship {i} sailed on a calm sea towards the {i * 5} islands while its crew of old sailors slept below the deck." for i in range(40)]
GENERAL = Sides(SEA[:30], SEA[30:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def study(folder: Path, checkpoints: Path, progress=lambda line: None) -> StudyResult:
    return domain_adaptation_study(
        DOMAIN, labelled(), GENERAL, SETTINGS, folder=folder, identities=[], device="cpu", precision="float32", seed=0, checkpoints=checkpoints,
        progress=progress,
    )  # fmt: skip


def bench(folder: Path, checkpoints: Path, **changes) -> Bench:
    settings = SETTINGS.model_copy(update=changes)
    texts = material(DOMAIN, labelled(), GENERAL, load_tokenizer(folder), settings)
    return Bench(folder, texts, settings, "cpu", "float32", checkpoints, lambda line: None)


def test_two_processes_find_what_one_does(folder, tmp_path, monkeypatch) -> None:
    alone = study(folder, tmp_path / "alone")
    monkeypatch.setattr(study_module, "side_by_side", lambda gib, device: 2)
    together = study(folder, tmp_path / "together")
    assert together.per_example.equals(alone.per_example) and together.tables["arms"].drop(columns="seconds").equals(
        alone.tables["arms"].drop(columns="seconds")
    )


def test_a_killed_study_goes_on_and_each_arm_learns_what_it_reads(folder, tmp_path, monkeypatch) -> None:
    real, calls = study_module.run_chain, []

    def cut(*args):
        calls.append(args[1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(study_module, "run_chain", cut)
    with pytest.raises(KeyboardInterrupt):
        study(folder, tmp_path)
    lines: list[str] = []
    result = study(folder, tmp_path, lines.append)
    assert calls[:3] == [("none",), ("dapt", "both"), ("tapt",)] and len(calls) == 3 + 8  # three seeds of four chains, the base once
    bars = [claim for claim in load_syllabus().claims if claim.asset == "domain_adaptation_study"]
    assert len(bars) >= 5 and all(result.metric(bar.metric) is not None for bar in bars)
    for name in ("domain_change_high__dapt", "task_change_high__tapt", "domain_change_high__both", "task_change_high__both", "domain_over_control"):
        assert result.value(name) < 0, name
    assert result.value("text_overlap") <= next(bar.max for bar in bars if bar.metric == "text_overlap")
    arms = result.tables["arms"].set_index("arm")
    assert list(arms.index) == list(ARMS) and arms.loc["control", "general_perplexity"] < arms.loc["none", "general_perplexity"]
    assert result.value("accuracy__both") > result.value("accuracy__majority") == 0.5  # one word gives the label away
    assert len(result.per_example) == 3 * 3 + 12


def test_both_goes_on_from_dapt_and_never_from_a_checkpoint_of_tapt(folder, tmp_path) -> None:
    long = {"domain_steps": 7, "task_steps": 7}  # more steps than lie between two checkpoints
    run_chain(bench(folder, tmp_path / "used", **long), ("tapt",), 0)
    after, alone = (run_chain(bench(folder, tmp_path / name, **long), ("dapt", "both"), 0) for name in ("used", "fresh"))
    assert after["both"]["losses"] == alone["both"]["losses"] and len(alone["both"]["train_losses"]) == 7
    with pytest.raises(ValueError, match="cannot go on"):
        run_chain(bench(folder, tmp_path / "order"), ("tapt", "dapt"), 0)


def test_a_held_out_text_that_was_read_is_caught(folder) -> None:
    tokenizer = load_tokenizer(folder)
    with pytest.raises(DataError, match="stands in the training text too"):
        material(Sides([*DOMAIN.train, DOMAIN.test[0]], DOMAIN.test), labelled(), GENERAL, tokenizer, SETTINGS)
    table = labelled()
    question = table.loc[table["split"] == "test", "text"].iloc[0]
    with pytest.raises(DataError, match="stands in the training text too"):
        material(Sides([*DOMAIN.train, question], DOMAIN.test), table, GENERAL, tokenizer, SETTINGS)
    within = [f"Before it. {DOMAIN.test[0]} And after it."]  # a part of a longer text is no repeat; its runs of words say it
    bar = next(c for c in load_syllabus().claims if c.asset == "domain_adaptation_study" and c.metric == "text_overlap")
    clean, leaking = (material(Sides(train, DOMAIN.test), table, GENERAL, tokenizer, SETTINGS) for train in (DOMAIN.train, DOMAIN.train + within))
    assert clean.overlap <= bar.max < leaking.overlap


def test_notes_stand_on_the_side_of_their_questions() -> None:
    notes = pd.DataFrame({"doc_id": ["a", "b", "c"], "text": ["A", "B", "C"]})
    questions = pd.DataFrame({"note_id": ["a", "b", "c"], "split": ["train", "dev", "test"]})
    assert notes_sides(notes, questions) == Sides(["A"], ["C"])


def test_features_are_means_over_a_text_s_own_tokens(folder, tmp_path) -> None:
    given = bench(folder, tmp_path)
    model, texts = given.model(0), ["A bird", "The sum of 3 and 4 is returned by the function number 7"]
    alone = [given.features(model, [text])[0] for text in texts]
    assert np.allclose(given.features(model, texts), alone, atol=1e-5)  # padding changes nothing


def test_a_change_is_as_wide_as_the_wider_of_its_two_intervals() -> None:
    rng = np.random.default_rng(0)
    old = rng.normal(size=(3, 40))
    even, odd = old - 0.5, old - np.array([[0.0], [0.5], [1.0]])
    assert outer_change(even, old) == pytest.approx((-0.5, -0.5, -0.5))
    value, low, high = outer_change(odd, old)  # the seeds disagree: the interval over blocks alone would be a point
    assert value == pytest.approx(-0.5) and low < -1 and high > 0
    assert outer_change(even[:1], old[:1])[0] == pytest.approx(-0.5)  # one seed: the blocks' interval alone
    balanced = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 0]]), np.array([[0, 1, 0], [1, 0, 1], [1, 0, 1]])
    assert outer_change(*(side.astype(float) for side in balanced))[0] == 0  # as many right: zero, and not a rounding error of thirds
