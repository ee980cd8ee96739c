from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from curriculum.adaptation.ledger import ModelShape, predict, total
from curriculum.adaptation.meter import MeterReading, MeterRequest, measure_step
from curriculum.adaptation.report import cost_metrics, ledger_table, quality_metrics, report_adapter
from curriculum.adaptation.settings import AdapterSettings
from curriculum.adaptation.text import read_general
from curriculum.adaptation.training import train_adapter
from curriculum.corpora.sides import Sides
from curriculum.errors import UserError
from curriculum.results import Identity, StudyResult
from tests.adaptation.tiny_llama import TEXTS, save_tiny

torch.set_num_threads(1)
# wide enough that activations, not the allocator's rounding, are what a step takes
SETTINGS = AdapterSettings(rank=4, block_size=256, batch_size=4, steps=2, logit_chunk=64, domain_blocks=2, general_blocks=2)
SIZES = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4}
BASE = Identity(role="base model", source="path:tiny", digest="abc")


def test_report_of_a_real_run(tmp_path):
    folder, out = save_tiny(tmp_path / "base", **SIZES), tmp_path / "adapter"
    out.mkdir()
    common = {"folder": folder, "base": BASE, "device": "cpu", "precision": "float32", "seed": 0, "progress": lambda line: None}
    adapter = train_adapter(TEXTS, SETTINGS, out=out, checkpoints=tmp_path / "checkpoints", **common)
    other = Identity(role="dataset", source="path:other", digest="def")
    result = report_adapter(adapter, Sides(TEXTS[1:], TEXTS), TEXTS[::-1], SETTINGS, general_identity=other, **common)
    assert result.value("perplexity_after") < result.value("perplexity_before")
    assert result.value("perplexity_change") == pytest.approx(result.value("perplexity_after") / result.value("perplexity_before") - 1)
    assert result.value("trainable_parameters") == adapter.facts["trainable_parameters"]
    assert 0.9 < result.value("text_overlap") < 1  # all of these texts but the first were trained on
    assert result.value("ledger_error") < 0.25  # a tiny step: fixed costs of the allocator weigh more than in a real one
    assert 0 < result.value("ledger_measured_gb") < result.value("peak_memory_gb")
    measured = result.tables["ledger"].set_index("part")["measured_mb"].dropna()
    assert list(measured.index[-3:]) == ["gradients and optimizer", "activations, logits, temporaries", "peak"]
    assert measured[:-1].sum() == pytest.approx(measured["peak"])
    result.save(tmp_path / "saved")
    again = StudyResult.load(tmp_path / "saved")
    assert list(again.per_example.columns) == ["example_id", "text", "loss_before", "loss_after"] and len(again.per_example) == 4
    assert {"ledger", "ledger_llama3_8b", "perplexity", "ranks"} <= set(again.tables)


def scores(before: list[float], after: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"loss_before": np.array(before), "loss_after": np.array(after)})


def test_change_is_relative_and_paired():
    metrics = {m.name: m for m in quality_metrics(scores([3.0, 1.0, 2.0], [2.5, 0.5, 1.5]), scores([1.0, 2.0], [1.1, 2.1]), seed=0)}
    assert metrics["perplexity_change"].value == pytest.approx(np.exp(-0.5) - 1)
    # every block changed alike: the blocks' own spread does not widen a paired interval
    assert metrics["perplexity_change"].low == pytest.approx(metrics["perplexity_change"].high)
    assert metrics["general_perplexity_change"].value == pytest.approx(np.exp(0.1) - 1)
    assert metrics["perplexity_before"].value == pytest.approx(np.exp(2.0)) and metrics["perplexity_before"].n == 3


def test_ledger_error_shows_a_ledger_that_is_wrong():
    shape = ModelShape(300, 64, 128, 2, 4, 2, 16, tied=True)
    rows = predict(shape, SETTINGS)
    reading = MeterReading(before=0, loaded=1, adapted=2, stepped=3, step_peak=total(rows) * 2, whole_peak=total(rows) * 3, seconds_a_step=1.0)
    error = next(m for m in cost_metrics(rows, reading, {}) if m.name == "ledger_error")
    assert error.value == pytest.approx(0.5)
    table = ledger_table(rows, reading)
    assert table.iloc[-1]["part"] == "peak" and table.iloc[-1]["measured_mb"] == pytest.approx(2 * table.iloc[-1]["predicted_mb"])
    assert table["share"].iloc[: len(rows)].sum() == pytest.approx(1.0)
    assert table["predicted_mb"].iloc[len(rows) : -1].sum() == pytest.approx(table.iloc[-1]["predicted_mb"])  # the groups leave no part out
    parts = " ".join(table["part"].iloc[: len(rows)])
    assert all(part in parts for part in ("NF4 codes", "scales", "adapters", "gradients", "optimizer", "activations", "logits"))


def test_a_failed_measurement_says_why(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    request = MeterRequest(folder=str(tmp_path), settings=SETTINGS, device="meta-less", precision="float32", threads=1)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(UserError, match="could not be measured"):
        measure_step(request)


def test_general_text_is_the_notes_without_front_matter_or_a_user_s_folder(tmp_path):
    (tmp_path / "a.txt").write_text("Some prose.\n")
    assert read_general("path:anything", tmp_path) == ["Some prose."]
    (tmp_path / "lora.md").write_text("---\nid: lora\ntitle: LoRA\npart: finetuning\n---\n# LoRA\n\nLow rank.\n")
    assert read_general("packaged:notes", tmp_path) == ["# LoRA\n\nLow rank."]
