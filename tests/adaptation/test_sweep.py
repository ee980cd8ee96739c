"""The sweep: its cross of rows, parameters by the arithmetic, a killed run that goes on, and text that must not stand on both sides."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

import curriculum.adaptation.sweep as sweep_module
from curriculum.adaptation.sweep import Row, adapter_sweep, rows_of
from curriculum.adaptation.sweep_settings import SweepSettings
from curriculum.corpora.sides import Sides, overlap, refuse_repeats, sides_of
from curriculum.errors import DataError
from curriculum.results import StudyResult
from curriculum.syllabus import load_syllabus
from tests.adaptation.tiny_llama import TEXTS, save_tiny

torch.set_num_threads(1)
SETTINGS = SweepSettings(ranks=(2, 4), reference_rank=4, steps=12, batch_size=4, block_size=24, learning_rate=5e-3, test_blocks=4)
OTHER = [f"A bird number {i} with a long blue feather sings over the {i * 3} hills until the evening comes again." for i in range(40)]
DOMAINS = {"code": Sides(TEXTS[:40], TEXTS[40:]), "birds": Sides(OTHER[:30], OTHER[30:])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def sweep(folder: Path, checkpoints: Path, progress=lambda line: None, **changes) -> StudyResult:
    given = {"domains": DOMAINS, "general": None} | {name: changes.pop(name) for name in ("domains", "general") if name in changes}
    return adapter_sweep(
        **given, settings=SETTINGS.model_copy(update=changes), folder=folder, identities=[], device="cpu", precision="float32", seed=0,
        checkpoints=checkpoints, progress=progress,
    )  # fmt: skip


def test_ranks_and_places_are_varied_one_at_a_time() -> None:
    rows, reference = rows_of(SweepSettings())
    assert reference == Row(8, "all") and set(rows) == {Row(2, "all"), reference, Row(32, "all"), Row(8, "attention"), Row(8, "mlp")}
    with pytest.raises(ValueError, match="reference_rank must be one of ranks"):
        SweepSettings(ranks=(2, 4))


def test_two_processes_find_what_one_does(folder, tmp_path, monkeypatch) -> None:
    alone = sweep(folder, tmp_path / "alone")
    monkeypatch.setattr(sweep_module, "side_by_side", lambda gib, device: 2)
    assert sweep(folder, tmp_path / "together").per_example.equals(alone.per_example)


def test_a_killed_sweep_goes_on_with_the_next_fit_and_every_row_learns(folder, tmp_path, monkeypatch) -> None:
    real, calls = sweep_module.train, []

    def cut(*args, **kwargs):
        calls.append("fit")
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(sweep_module, "train", cut)
    with pytest.raises(KeyboardInterrupt):
        sweep(folder, tmp_path)
    lines: list[str] = []
    result = sweep(folder, tmp_path, lines.append)
    assert len(calls) == 4 + (2 * (4 + 1) - 3) and sum("kept from before" in line for line in lines) == 1 + 3  # the base, three fits
    bars = [claim for claim in load_syllabus().claims if claim.asset == "adapter_sweep"]
    assert len(bars) >= 5 and all(result.metric(bar.metric) is not None for bar in bars)
    assert result.value("parameter_mismatch") == 0 and result.value("worst_change_high") < 0
    rows, matrix = result.tables["rows"], result.tables["trained_on"].set_index("trained_on")
    assert list(rows.loc[rows["domain"] == "code", "row"]) == ["r2_all", "r4_all", "r4_attention", "r4_mlp"]
    parameters = rows.drop_duplicates("row").set_index("row")["parameters"]
    assert parameters["r4_all"] == 2 * parameters["r2_all"] == parameters["r4_attention"] + parameters["r4_mlp"]
    assert matrix.loc["code", "code"] < matrix.loc["code", "birds"] and matrix.loc["birds", "birds"] < matrix.loc["birds", "code"]
    assert result.value("general_change__code") == pytest.approx(matrix.loc["code", "birds"])
    assert result.value("seed_spread") > 0 and len(result.per_example) == 8


def test_a_general_text_takes_the_place_of_the_other_domains(folder, tmp_path) -> None:
    prose = ["The sea was calm and nobody on the old ship spoke a word while the sun went down behind the far islands. " * 8]
    small = {"ranks": (2, 4), "targets": {"all": ("q_proj",)}, "reference_seeds": 1, "steps": 1, "test_blocks": 2}
    result = sweep(folder, tmp_path, general=prose, **small)
    matrix = result.tables["trained_on"].set_index("trained_on")
    assert result.value("general_change__code") == pytest.approx(matrix.loc["code", "general"])
    leaking = sweep(folder, tmp_path, general=TEXTS[:20], **small)  # "general" text that was trained on
    bar = next(c for c in load_syllabus().claims if c.asset == "adapter_sweep" and c.metric == "text_overlap")
    assert result.value("text_overlap") <= bar.max < leaking.value("text_overlap")


def test_a_wrong_count_of_parameters_is_seen(folder, tmp_path, monkeypatch) -> None:
    real = sweep_module.add_adapter
    monkeypatch.setattr(sweep_module, "add_adapter", lambda model, s, seed: real(model, s.model_copy(update={"rank": s.rank + 1}), seed=seed))
    assert sweep(folder, tmp_path, reference_seeds=1, steps=1, test_blocks=2, targets={"all": ("q_proj",)}).value("parameter_mismatch") > 0


def test_documents_are_split_once_and_a_text_on_both_sides_is_refused() -> None:
    table = pd.DataFrame({"text": [f"{text} {other}" for text, other in zip(TEXTS[:40], OTHER, strict=True)]})
    sides = sides_of(table, near_duplicate=0.9)
    assert sides == sides_of(table.iloc[::-1], near_duplicate=0.9) and len(sides.train) > len(sides.test) > 0
    assert set(sides.train) | set(sides.test) == set(table["text"])
    given = pd.DataFrame({"text": ["One text.", "Another text."], "split": ["train", "test"]})
    assert sides_of(given, near_duplicate=0.9) == Sides(["One text."], ["Another text."])
    with pytest.raises(DataError, match="stands in the training text too"):
        sides_of(pd.concat([given, pd.DataFrame({"text": ["one  TEXT"], "split": ["test"]})]), near_duplicate=0.9)
    with pytest.raises(DataError, match="none for its test side"):
        sides_of(given[:1], near_duplicate=0.9)


def test_a_test_text_that_shares_paragraphs_is_dropped() -> None:
    shared = " ".join(f"word{i}" for i in range(40))
    table = pd.DataFrame({"text": [f"{shared} and so it ends.", f"{shared} but otherwise.", OTHER[0]], "split": ["train", "test", "test"]})
    sides = sides_of(table, near_duplicate=0.9)
    assert (sides.test, sides.dropped) == ([OTHER[0]], 1) and overlap(sides.train, sides.test) == 0
    with pytest.raises(DataError, match="none for its test side"):
        sides_of(table[:2], near_duplicate=0.9)


def test_overlap_counts_runs_of_thirteen_words() -> None:
    words = [f"word{i}" for i in range(30)]
    train = [" ".join(words)]
    assert overlap(train, [" ".join(words[5:25])]) == 1.0
    assert overlap(train, [" ".join(words[5:17])]) == 0.0  # twelve words: one run, which stands nowhere as a whole
    assert overlap(train, [" ".join([*words[:13], *(f"new{i}" for i in range(13))])]) == pytest.approx(1 / 14)
    refuse_repeats(train, [" ".join(words[1:])])
