"""The cross-encoder: learns a separable task, scores in order whatever the batch, resumes bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from curriculum.crossencoder.model import CrossEncoder, sigmoid
from curriculum.crossencoder.settings import CrossEncoderSettings
from curriculum.crossencoder.training import Group, batches, schedule, train
from curriculum.errors import DataError, SourceError
from tests.crossencoder.tiny import tiny_bert

torch.set_num_threads(1)
FAST = CrossEncoderSettings(max_length=24, steps=60, batch_size=8, learning_rate=3e-3, head_learning_rate=3e-3,
                            dropout=0.1, checkpoint_every=5)  # fmt: skip


def silent(line: str) -> None:
    assert line


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def colour_groups(n: int, listwise: bool) -> list[Group]:
    """A pair is positive when the second text names red: learnable by any encoder."""
    rng = np.random.default_rng(3)
    nouns = ["cat", "dog", "house", "river"]
    groups = []
    for _ in range(n):
        noun = str(rng.choice(nouns))
        positive, negative = (noun, f"the {noun} is red"), (noun, f"the {noun} is blue")
        if listwise:
            groups.append(Group((positive, negative, negative), (1.0, 0.0, 0.0)))
        else:
            groups += [Group.single(*positive, True), Group.single(*negative, False)]
    return groups


@pytest.mark.parametrize("loss", ["binary", "listwise"])
def test_learns_a_separable_task(bert: Path, tmp_path: Path, loss: str) -> None:
    encoder = CrossEncoder.start(bert, max_length=24, seed=0)
    losses = train(encoder, colour_groups(40, loss == "listwise"), FAST, loss=loss, seed=0, checkpoints=tmp_path, progress=silent)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    red, blue = encoder.score([("cat", "the cat is red"), ("cat", "the cat is blue")])
    assert red > blue


class Killed(Exception):
    """Stands for a kill in the middle of training."""


@pytest.mark.parametrize("loss", ["binary", "listwise"])
def test_resume_is_bit_equal(bert: Path, tmp_path: Path, loss: str) -> None:
    plan = FAST.model_copy(update={"steps": 45, "checkpoint_every": 10})
    groups = colour_groups(30, loss == "listwise")

    def fit(folder: Path, progress) -> tuple[CrossEncoder, list[float]]:
        encoder = CrossEncoder.start(bert, max_length=24, seed=1)
        return encoder, train(encoder, groups, plan, loss=loss, seed=5, checkpoints=folder, progress=progress)

    whole, whole_losses = fit(tmp_path / "whole", silent)

    def killer(line: str) -> None:
        if line.startswith("step 40"):
            raise Killed

    with pytest.raises(Killed):
        fit(tmp_path / "cut", killer)
    lines: list[str] = []
    resumed, resumed_losses = fit(tmp_path / "cut", lines.append)
    assert lines[0] == "resumed at step 40/45"
    assert resumed_losses == whole_losses
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name


def test_checkpoint_of_other_data_is_not_resumed(bert: Path, tmp_path: Path) -> None:
    plan = FAST.model_copy(update={"steps": 12})
    lines: list[str] = []
    for groups in (colour_groups(10, False), colour_groups(11, False)):
        lines.clear()
        encoder = CrossEncoder.start(bert, max_length=24, seed=1)
        train(encoder, groups, plan, loss="binary", seed=5, checkpoints=tmp_path, progress=lines.append)
    assert not any(line.startswith("resumed") for line in lines)


def test_damaged_checkpoint_is_not_resumed(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x00" * 40)
    lines: list[str] = []
    encoder = CrossEncoder.start(bert, max_length=24, seed=1)
    plan = FAST.model_copy(update={"steps": 2})
    losses = train(encoder, colour_groups(4, False), plan, loss="binary", seed=0, checkpoints=tmp_path, progress=lines.append)
    assert len(losses) == 2
    assert not any(line.startswith("resumed") for line in lines)


def test_score_does_not_depend_on_batching_and_survives_saving(bert: Path, tmp_path: Path) -> None:
    encoder = CrossEncoder.start(bert, max_length=24, seed=2)
    pairs = [("cat", "the cat is red " * n) for n in (4, 1, 3, 2, 1)]
    alone = np.concatenate([encoder.score([pair]) for pair in pairs])
    np.testing.assert_allclose(encoder.score(pairs, batch_size=2), alone, atol=1e-5)
    encoder.save(tmp_path)
    np.testing.assert_allclose(CrossEncoder.load(tmp_path).score(pairs), alone, atol=1e-5)
    assert encoder.score([]).shape == (0,)


def test_bfloat16_rounds_a_score_and_no_more(bert: Path) -> None:
    encoder = CrossEncoder.start(bert, max_length=24, seed=2)
    pairs = [("cat", "the cat is red " * n) for n in (4, 1, 3, 2, 1)]
    exact = encoder.score(pairs)
    encoder.precision = "bfloat16"
    rounded = encoder.score(pairs)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()


def test_frozen_layers_keep_their_weights(bert: Path, tmp_path: Path) -> None:
    encoder = CrossEncoder.start(bert, max_length=24, seed=2)
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    plan = FAST.model_copy(update={"steps": 3, "frozen_layers": 1})
    train(encoder, colour_groups(8, False), plan, loss="binary", seed=0, checkpoints=tmp_path, progress=silent)
    after = encoder.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("embeddings" in name or "layer.0." in name for name in changed)
    assert any("layer.1." in name for name in changed)


def test_bad_groups_and_directories_are_named(bert: Path, tmp_path: Path) -> None:
    encoder = CrossEncoder.start(bert, max_length=24, seed=0)
    wrong_order = Group((("a", "b"), ("a", "c")), (0.0, 1.0))
    for groups, loss in (([], "binary"), ([wrong_order], "listwise"), ([wrong_order, Group.single("a", "b", True)], "binary")):
        with pytest.raises(DataError):
            train(encoder, groups, FAST, loss=loss, seed=0, checkpoints=tmp_path, progress=silent)
    with pytest.raises(SourceError, match=r"cross_encoder\.json"):
        CrossEncoder.load(bert)
    with pytest.raises(SourceError):
        CrossEncoder.start(tmp_path / "nothing", max_length=24, seed=0)


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=80), size=st.integers(1, 7), seed=st.integers(0, 9))
@hypothesis_settings(max_examples=50, deadline=None)
def test_batches_cover_every_epoch_once(lengths: list[int], size: int, seed: int) -> None:
    windows = [min(16 * size, len(lengths) - start) for start in range(0, len(lengths), 16 * size)]
    steps = sum(-(-w // size) for w in windows)
    seen = sorted(i for batch in batches(lengths, size, steps, seed) for i in batch)
    assert seen == list(range(len(lengths)))
    assert batches(lengths, size, steps, seed) == batches(lengths, size, steps, seed)


@given(st.integers(1, 300), st.floats(0, 1))
def test_schedule_rises_then_falls(steps: int, share: float) -> None:
    rates = [schedule(step, steps, share) for step in range(steps)]
    peak = rates.index(max(rates))
    assert 0 < max(rates) <= 1 and min(rates) >= 0
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)


def test_sigmoid_is_exact_and_does_not_overflow() -> None:
    np.testing.assert_allclose(sigmoid(np.array([-1e4, 0.0, 1e4, 2.0])), [0.0, 0.5, 1.0, 1 / (1 + np.exp(-2.0))])
