"""The step at a model's shape: the folder that is written is a model of that shape, and what is measured of it is what was asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from benchmarks.qlora_step import SHAPES, race, write_model
from benchmarks.record import page
from curriculum.adaptation.ledger import LLAMA3_8B, ModelShape

TINY = ModelShape(300, 64, 96, 2, 4, 2, 16, tied=False)


@pytest.mark.parametrize("tied", [True, False])
def test_the_folder_is_a_model_of_that_shape(tied: bool, tmp_path: Path) -> None:
    shape = replace(TINY, tied=tied)
    write_model(shape, tmp_path)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert ModelShape.of(model.config) == shape and not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    whole = shape.vocabulary * shape.hidden * (1 if tied else 2) + (2 * shape.layers + 1) * shape.hidden
    assert sum(p.numel() for p in model.parameters()) == whole + shape.layers * sum(a * b for a, b in shape.matrices().values())
    assert 0.018 < float(model.model.layers[1].mlp.up_proj.weight.detach().float().std()) < 0.022


def test_every_length_and_batch_is_measured_on_its_own() -> None:
    found = race(TINY, "cpu", [16, 32], [1, 2], 1, {"rank": 2, "logit_chunk": 16})
    names = ["16x1", "16x2", "32x1", "32x2"]
    assert [name for name in found if "x" in name] == names
    assert all(found[name]["tokens_per_second"] > 0 and found[name]["peak_gb"] >= found[name]["step_gb"] > 0 for name in names)
    predicted = [found[name]["predicted_step_gb"] for name in names]
    assert predicted[0] < predicted[1] == predicted[2] < predicted[3], "activations grow with the tokens"
    assert found["highest_peak_gb"] == max(found[name]["peak_gb"] for name in names)
    assert SHAPES["llama3-8b"] == LLAMA3_8B


def test_a_smaller_shape_meets_no_bar_of_the_larger(tmp_path: Path) -> None:
    found = {"highest_peak_gb": 1.0, "highest_ledger_error": 0.01}
    for shape, met in (("smollm2-135m", False), ("llama3-8b", True)):
        kept = {"command": "benchmarks/qlora_step.py", "found": {"hardware": "a machine", "threads": 1, shape: found}}
        (tmp_path / "qlora_step.json").write_text(json.dumps(kept))
        assert ("| highest peak | 1 GB | <= 12 | met |" in page(tmp_path)) is met
