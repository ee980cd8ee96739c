"""A row: the dev split chooses, a killed row goes on, the batches are the same for all, and the memory meter measures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import curriculum.tuning.row as row_module
from curriculum.results import StudyResult
from curriculum.rows.comparison import comparison
from curriculum.tuning.meter import PeakRequest, measure_peak
from curriculum.tuning.methods import weights_of
from curriculum.tuning.row import choose, peft_row
from curriculum.tuning.settings import METHODS, TuningSettings
from curriculum.tuning.training import Setting, batch_plan, fit, new_head, schedule
from tests.adaptation.tiny_llama import save_tiny
from tests.tuning.tiny import SETTINGS, domain, labelled, save_encoder, save_language_model

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    return save_language_model(tmp_path_factory.mktemp("lm")), save_encoder(tmp_path_factory.mktemp("enc"))


def make(folders: tuple[Path, Path], checkpoints: Path, method: Any, monkeypatch, progress=lambda line: None, **changes: Any) -> StudyResult:
    monkeypatch.setattr(row_module, "_peak", lambda setting, base: {"whole_peak": 2**30, "step_peak": 2**29})  # measured in its own test
    return peft_row(
        method, domain(), labelled(), SETTINGS.model_copy(update=changes), base=folders[0], encoder=folders[1], device="cpu",
        precision="float32", seed=0, identities=[], checkpoints=checkpoints, progress=progress,
    )  # fmt: skip


def test_rows_learn_the_same_task_and_stand_in_one_table(folders, tmp_path, monkeypatch) -> None:
    rates = {"learning_rates": {**TuningSettings().learning_rates, "full": (1e-6, 3e-3), "lora": (0.01, 0.03)}}
    rows = {m: make(folders, tmp_path / m, m, monkeypatch, **rates) for m in ("none", "full", "lora")}
    table = comparison("peft_table", {**rows, "ia3": None}, by="perplexity", score="score")
    assert rows["full"].settings["rate"] == 3e-3  # the dev split tells a rate that learns from one that does not
    assert rows["full"].value("perplexity") < rows["none"].value("perplexity")
    assert rows["full"].value("accuracy") == 1.0
    assert rows["lora"].value("merge_difference") < 1e-5 and rows["lora"].seeds == [0, 1]
    assert table.value("frozen_changed__lora") == 0 and table.value("trainable_share__full") == 1.0 and table.value("rows_not_run") == 1
    assert table.value("trainable_parameters__none") == 0 and rows["none"].metric("peak_memory_gb") is None
    paired = table.tables["paired"]
    assert set(paired["track"]) == {"generation", "classification"}
    assert (paired.loc[(paired["track"] == "generation") & (paired["row"] == "none"), "difference"] < 0).all()


def test_a_killed_row_goes_on_with_the_next_run(folders, tmp_path, monkeypatch) -> None:
    whole = make(folders, tmp_path / "whole", "ia3", monkeypatch)
    real, calls = row_module.tune_classifier, []

    def cut(*args: Any, **kwargs: Any) -> Any:
        calls.append("cut")
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(row_module, "tune_classifier", cut)
    with pytest.raises(KeyboardInterrupt):
        make(folders, tmp_path / "cut", "ia3", monkeypatch)
    lines: list[str] = []
    resumed = make(folders, tmp_path / "cut", "ia3", monkeypatch, lines.append)
    assert len(calls) == 2 + 3  # two rates and a second seed of the four runs were left
    assert sum("kept from before" in line for line in lines) == 4 + 1
    names = ("perplexity", "accuracy", "macro_f1")
    assert [resumed.value(n) for n in names] == [whole.value(n) for n in names]


def test_the_lowest_finite_dev_loss_chooses_and_the_other_seeds_follow() -> None:
    asked: list[tuple[float, int]] = []

    def run(rate: float, seed: int) -> dict[str, Any]:
        asked.append((rate, seed))
        return {"dev_loss": {1.0: 2.0, 2.0: 1.0, 3.0: math.nan}[rate]}

    chosen = choose(run, TuningSettings(seeds=3), (3.0, 1.0, 2.0), 7, lambda line: None)
    assert chosen.rate == 2.0 and len(chosen.runs) == 3
    assert asked == [(3.0, 7), (1.0, 7), (2.0, 7), (2.0, 8), (2.0, 9)]


def test_every_method_sees_the_same_batches_and_the_same_head() -> None:
    assert batch_plan(10, 4, 5, seed=1) == batch_plan(10, 4, 5, seed=1) != batch_plan(10, 4, 5, seed=2)
    assert sorted(i for batch in batch_plan(10, 5, 2, seed=0) for i in batch) == list(range(10))
    first, state = new_head(8, 3, 0), torch.random.get_rng_state()
    torch.randn(5)
    assert torch.equal(new_head(8, 3, 0).weight, first.weight) and not torch.equal(new_head(8, 3, 1).weight, first.weight)
    torch.random.set_rng_state(state)
    rates = [schedule(step, 10, 0.2) for step in range(10)]
    assert rates[2] == max(rates) == 1.0 and 0 < rates[-1] < rates[5] and rates[0] < rates[1] < 1


def test_a_run_that_diverges_stops_and_says_so() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    values = [1.0, math.inf, 1.0]
    losses, _ = fit(
        torch.nn.Module(), [{"params": [weight], "peak": 1.0}], lambda step: weight.sum() * values[step],
        Setting("full", SETTINGS, "cpu", "float32"), 3,
    )  # fmt: skip
    assert len(losses) == 2 and math.isinf(losses[-1])


def test_the_memory_of_a_step_is_that_of_what_is_trained(tmp_path) -> None:
    """All of a model of 100 MB: its weights, their gradients and two moments are four times that, and little comes on top."""
    folder = save_tiny(tmp_path, hidden_size=512, intermediate_size=2048, num_hidden_layers=6)
    request = PeakRequest(folder=str(folder), method="full", settings=SETTINGS, device="cpu", precision="float32", threads=1)
    reading, weights = measure_peak(request), 4 * weights_of(_load(folder))
    assert 4 * weights < reading.step_peak < 5.5 * weights and reading.whole_peak >= reading.before + reading.step_peak


def _load(folder: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def test_a_grid_without_rates_is_refused_and_a_row_reads_its_own_only() -> None:
    with pytest.raises(ValueError, match="no learning rate for lora"):
        TuningSettings(learning_rates={"lora": ()})
    own = TuningSettings(learning_rates={"lora": (0.5,)})
    assert set(own.learning_rates) == set(METHODS)
    assert own.of("lora").learning_rates == {"lora": (0.5,)} and own.of("ia3") == TuningSettings().of("ia3")
