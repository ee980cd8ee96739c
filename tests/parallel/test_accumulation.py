"""Accumulation and checkpointing in one process; each broken on purpose to see its claim go red."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from curriculum.losses import IGNORED
from curriculum.parallel import pipeline
from curriculum.parallel.accumulation_study import _model, cost_cell, equality_cell, relative_error, step_gradient, unequal_batch
from curriculum.transformer.model import Transformer
from tests.parallel.tiny import BLOCKS, TINY, VOCABULARY, passes

torch.set_num_threads(1)


@pytest.fixture
def model() -> Transformer:
    return _model(TINY, VOCABULARY, 0, torch.float64)


def test_a_stage_of_all_layers_is_the_whole_model(model: Transformer) -> None:
    ids = BLOCKS[:2, :-1]
    for recompute in (False, True):
        assert torch.equal(pipeline.Stage(model, 0, 2, recompute=recompute)(ids), model(ids))


def test_the_claims_hold_and_by_means_is_another_gradient() -> None:
    found = equality_cell(BLOCKS, VOCABULARY, TINY, 0)
    claimed = ("by_tokens__float64", "by_tokens__float32", "by_means__float64", "recomputed__float64")
    assert all(passes("accumulation_study", name, found[name]) for name in claimed), found


def test_parts_of_equal_length_may_be_averaged(model: Transformer) -> None:
    ids, targets = BLOCKS[:8, :-1], BLOCKS[:8, 1:]
    whole = step_gradient(model, ids, targets, parts=1)
    assert relative_error(step_gradient(model, ids, targets, parts=4, by_tokens=False), whole) < 1e-12


def test_unequal_lengths_are_unequal_between_the_parts() -> None:
    asked = [int((part != IGNORED).sum()) for part in unequal_batch(BLOCKS[:8], 0)[1].chunk(4)]
    assert max(asked) > 2 * min(asked) > 0


@pytest.mark.parametrize("change", [lambda grads: {n: 4 * g for n, g in grads.items()}, lambda grads: dict(list(grads.items())[1:])])
def test_a_loss_that_is_not_divided_and_a_lost_parameter_are_red(model: Transformer, change: Callable[..., dict[str, torch.Tensor]]) -> None:
    ids, targets = unequal_batch(BLOCKS[:8], 0)
    whole = step_gradient(model, ids, targets, parts=1)
    assert not passes("accumulation_study", "by_tokens__float64", relative_error(change(step_gradient(model, ids, targets, parts=4)), whole))


def test_checkpointing_that_keeps_everything_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    def ratio() -> float:
        rows = {(r["micro_batches"], r["recomputed"]): r["peak_bytes"] for r in cost_cell(BLOCKS, VOCABULARY, deep, 0)["rows"]}
        assert passes("accumulation_study", "accumulation_memory", rows[4, False] / rows[1, False])
        return rows[1, True] / rows[1, False]

    deep = TINY.model_copy(update={"layers": 6, "length": 16})
    monkeypatch.setattr("curriculum.parallel.accumulation_study.REPEATS", 1)
    assert passes("accumulation_study", "checkpoint_memory", ratio())
    monkeypatch.setattr(pipeline, "checkpoint", lambda call, *given, **more: call(*given))
    assert not passes("accumulation_study", "checkpoint_memory", ratio())
