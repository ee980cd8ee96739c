"""The objectives: what they hide and ask for, and that the loop resumes exactly whatever it asks and whatever it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curriculum.transformer import training
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.experts import balance_loss, load_entropy, z_loss
from curriculum.transformer.model import Transformer
from curriculum.transformer.objectives import MaskedToken, NextToken, Objective, SpanCorruption, block_nats, token_nats
from curriculum.transformer.settings import TrainingSettings
from curriculum.transformer.training import TrainedRun, router_loss, train_config, train_step

torch.set_num_threads(1)
VOCAB, MASK, SENTINEL = 50, 50, 51
SHAPE = {"vocab_size": 60, "layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "hidden": 32}
BLOCKS = torch.randint(VOCAB, (20, 25), generator=torch.Generator().manual_seed(0))
BUDGET = TrainingSettings(steps=8, batch_size=2, accumulate=2, warmup_steps=2, checkpoint_every=3, validate_every=3)
FAMILIES = {
    "decoder": (ModelConfig(**SHAPE), NextToken()),
    "encoder": (ModelConfig(**SHAPE, stack="encoder"), MaskedToken(VOCAB, MASK)),
    "encoder-decoder": (ModelConfig(**SHAPE, stack="encoder-decoder"), SpanCorruption(SENTINEL)),
    "experts, dropout": (ModelConfig(**SHAPE, experts=4, dropout=0.1), NextToken()),
}


def run(name: str, folder: Path, settings: TrainingSettings = BUDGET) -> TrainedRun:
    config, objective = FAMILIES[name]
    return train_config(
        config, BLOCKS[:16], settings, seed=3, checkpoints=folder, progress=lambda _: None, objective=objective, validation=BLOCKS[16:]
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_stopped_run_goes_on_to_the_same_losses_and_weights(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, real = run(name, tmp_path / "whole"), train_step

    def stopped(model: Transformer, optimizer: torch.optim.Optimizer, micro: list, step: int, settings: TrainingSettings) -> tuple[float, float]:
        if step == 5:
            raise KeyboardInterrupt
        return real(model, optimizer, micro, step, settings)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training, "train_step", stopped)
        run(name, tmp_path / "stopped")
    resumed = run(name, tmp_path / "stopped")
    assert (resumed.losses, resumed.grad_norms, resumed.validation) == (whole.losses, whole.grad_norms, whole.validation)
    assert [done for done, _ in whole.validation] == [3, 6, 8] and len(whole.losses) == len(whole.grad_norms) == 8
    assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))


def test_a_checkpoint_of_another_objective_or_shape_is_not_resumed(tmp_path: Path) -> None:
    lines: list[str] = []
    config, objective = FAMILIES["encoder"]
    for shape, asked in ((config, objective), (config, MaskedToken(VOCAB, MASK, rate=0.3)), (ModelConfig(**{**SHAPE, "hidden": 48}), NextToken())):
        train_config(shape, BLOCKS, BUDGET, seed=0, checkpoints=tmp_path, progress=lines.append, objective=asked)
    assert not [line for line in lines if "resumed" in line]
    train_config(shape, BLOCKS, BUDGET, seed=0, checkpoints=tmp_path, progress=lines.append, objective=asked)
    assert lines[-2].startswith("resumed at step 6/8")


@given(length=st.integers(4, 60), rate=st.floats(0.05, 0.6), span=st.floats(1, 5), seed=st.integers(0, 9))
def test_spans_put_back_at_their_sentinels_give_the_text(length: int, rate: float, span: float, seed: int) -> None:
    blocks = torch.randint(VOCAB, (3, length + 1), generator=torch.Generator().manual_seed(seed))
    objective = SpanCorruption(SENTINEL, rate, span)
    batch = objective.batch(blocks, seed, 0)
    removed, spans = objective.counts(length)
    for text, source, read, asked in zip(blocks[:, 1:].tolist(), batch.source_BS.tolist(), batch.ids_BT.tolist(), batch.targets_BT.tolist(), strict=True):
        assert read[1:] == asked[:-1] and read[0] == SENTINEL and asked[-1] == SENTINEL + spans
        assert len(source) == length - removed + spans and len(asked) == removed + spans
        pieces, target = {}, [read[0], *asked]
        for number in range(spans):
            pieces[SENTINEL + number] = target[target.index(SENTINEL + number) + 1 : target.index(SENTINEL + number + 1)]
        back = [token for place in source for token in pieces.get(place, [place])]
        assert back == text and all(pieces.values()) and sum(map(len, pieces.values())) == removed


def test_both_ends_of_a_block_are_removed_too() -> None:
    text = torch.arange(40).repeat(4000, 1)
    batch = SpanCorruption(100, rate=0.25, mean_span=2.0).batch(torch.cat((text[:, :1], text), 1), 0, 0)
    rates = torch.bincount(batch.targets_BT[batch.targets_BT < 100], minlength=40) / 4000
    assert float(rates[0]) > 0.1 and float(rates[-1]) > 0.1 and float(rates.mean()) == pytest.approx(0.25)


def test_sentinels_are_asked_in_training_and_not_on_held_out_text() -> None:
    objective = SpanCorruption(SENTINEL)
    assert objective.batch(BLOCKS, 0, 0).asked_BT is None
    held_out = objective.held_out().batch(BLOCKS, 0, 0)
    removed, spans = objective.counts(24)
    assert held_out.asked_BT.sum(1).tolist() == [removed] * 20 and held_out.asked_BT.shape[1] == removed + spans
    assert int(held_out.targets_BT[held_out.asked_BT].max()) < VOCAB


def test_masking_takes_15_percent_and_treats_them_as_bert_does() -> None:
    text = torch.randint(VOCAB, (400, 101), generator=torch.Generator().manual_seed(1))
    batch = MaskedToken(VOCAB, MASK).batch(text, 0, 0)
    chosen, ids = batch.asked_BT, batch.ids_BT
    assert chosen.sum(1).tolist() == [15] * 400 and torch.equal(batch.targets_BT, text[:, 1:])
    assert torch.equal(ids[~chosen], text[:, 1:][~chosen])
    shares = [(ids[chosen] == MASK).float().mean(), (ids[chosen] == batch.targets_BT[chosen]).float().mean()]
    assert shares[0] == pytest.approx(0.8, abs=0.02) and shares[1] == pytest.approx(0.1 + 0.1 / VOCAB, abs=0.02)
    held_out = MaskedToken(VOCAB, MASK).held_out().batch(text, 0, 0)
    assert (held_out.ids_BT[held_out.asked_BT] == MASK).all() and torch.equal(held_out.asked_BT, chosen)


@pytest.mark.parametrize("objective", [MaskedToken(VOCAB, MASK), SpanCorruption(SENTINEL)], ids=["masked", "spans"])
def test_what_is_hidden_is_a_function_of_seed_and_step(objective: Objective) -> None:
    first = objective.batch(BLOCKS, 0, 4)
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(first, objective.batch(BLOCKS, 0, 4), strict=True))
    for other in (objective.batch(BLOCKS, 1, 4), objective.batch(BLOCKS, 0, 5)):
        assert not torch.equal(first.ids_BT, other.ids_BT)


def test_the_losses_of_blocks_are_those_of_the_whole_logits() -> None:
    torch.manual_seed(0)
    model = Transformer(FAMILIES["encoder"][0])
    objective = MaskedToken(VOCAB, MASK).held_out()
    batch = objective.batch(BLOCKS, 0, 0)
    nats = torch.nn.functional.cross_entropy(model(batch.ids_BT).transpose(1, 2), batch.targets_BT, reduction="none")
    torch.testing.assert_close(token_nats(model, batch), nats[batch.asked_BT])
    expected = [float(row[asked].mean()) for row, asked in zip(nats.detach(), batch.asked_BT, strict=True)]
    assert block_nats(model, BLOCKS, objective, size=7) == pytest.approx(np.array(expected), abs=1e-6) and model.training


def test_router_losses_are_added_and_keep_the_load_even(tmp_path: Path) -> None:
    logits = [torch.randn(30, 4, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    weights = TrainingSettings(balance_weight=0.5, z_weight=0.25)
    expected = sum(0.5 * float(balance_loss(x, 2)) + 0.25 * float(z_loss(x)) for x in logits) / 2
    assert float(router_loss(logits, 2, weights)) == pytest.approx(expected) and router_loss([], 2, weights) == 0.0
    entropies = []
    for weight in (0.0, 1.0):
        budget = BUDGET.model_copy(update={"steps": 60, "learning_rate": 2e-2, "balance_weight": weight})
        model = run("experts, dropout", tmp_path / str(weight), budget).model.eval()
        routes: list[torch.Tensor] = []
        model(BLOCKS, routes=routes)
        entropies.append(load_entropy(routes[0], 2))
    assert entropies[1] > 0.95 and entropies[1] > entropies[0]


@pytest.mark.parametrize("name", ["decoder", "encoder", "encoder-decoder"])
def test_nats_among_the_texts_tokens_are_those_given_that_it_is_one(name: str) -> None:
    torch.manual_seed(0)
    config, objective = FAMILIES[name]
    model, batch = Transformer(config).eval(), objective.held_out().batch(BLOCKS[:3], 0, 0)
    with torch.no_grad():
        logits = model(batch.ids_BT, source_BS=batch.source_BS)
        asked = torch.ones_like(batch.targets_BT, dtype=torch.bool) if batch.asked_BT is None else batch.asked_BT
        chosen, targets = logits[asked], batch.targets_BT[asked]
        given_text = chosen.log_softmax(-1) - chosen.log_softmax(-1)[:, :VOCAB].logsumexp(-1, keepdim=True)
        expected = -given_text.gather(1, targets[:, None])[:, 0]
        assert torch.allclose(token_nats(model, batch, among=VOCAB), expected, atol=1e-5)
        assert (token_nats(model, batch, among=VOCAB) < token_nats(model, batch)).all()
        assert torch.equal(token_nats(model, batch, among=config.vocab_size), token_nats(model, batch))
