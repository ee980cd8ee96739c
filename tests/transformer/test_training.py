"""Training: it learns, it resumes exactly after kill -9, and its report is red when the mask leaks."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import torch

from curriculum.artifacts import DirectoryArtifact
from curriculum.corpora.documents import document, documents_table
from curriculum.tokenization.packing import TokenBlocks, build_tokenized_corpus
from curriculum.tokenization.settings import TokenizationSettings
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.model import Transformer
from curriculum.transformer.objectives import NextToken, token_nats
from curriculum.transformer.report import mini_transformer_report
from curriculum.transformer.settings import TransformerSettings
from curriculum.transformer.training import (
    batch_rows,
    learning_rate,
    make_optimizer,
    train_mini_transformer,
    train_step,
)
from tests.forked import outcomes

torch.set_num_threads(1)
TINY = TransformerSettings(
    layers=1, width=16, heads=2, kv_heads=1, hidden=32, steps=12, batch_size=4, warmup_steps=2, checkpoint_every=4, sample_prompts=("The",)
)


def tiny_corpus(folder: Path) -> DirectoryArtifact:
    rng = np.random.default_rng(0)
    words = ["alpha", "beta", "gamma", "delta", "return", "value", "the", "list"]
    rows = [document(f"d{i}", f"d{i}", " ".join(rng.choice(words, 60)) + f" {i}.") for i in range(120)]
    folder.mkdir(parents=True, exist_ok=True)
    settings = TokenizationSettings(vocab_size=300, block_size=16, train_tokens=4000, held_out_tokens=400)
    return build_tokenized_corpus(documents_table(rows, "test"), settings, folder, threshold=0.9, progress=lambda _: None)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DirectoryArtifact:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


def train(corpus: DirectoryArtifact, folder: Path, settings: TransformerSettings = TINY) -> Any:
    for name in ("out", "checkpoints"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return train_mini_transformer(
        corpus, settings, seed=0, out=folder / "out", checkpoints=folder / "checkpoints", progress=lambda _: None
    )


def losses(folder: Path) -> list[float]:
    return json.loads((folder / "out" / "history.json").read_text())["loss"]


def test_it_learns(corpus: DirectoryArtifact, tmp_path: Path) -> None:
    train(corpus, tmp_path, TINY.model_copy(update={"steps": 40, "learning_rate": 1e-2}))
    found = losses(tmp_path)
    assert found[-1] < found[0] - 1.0


RUN = """
import signal
import torch
torch.set_num_threads(1)
from tests.transformer.test_training import TINY, train
from curriculum.artifacts import DirectoryArtifact
from curriculum.transformer import training
real = training.train_step
def run(folder, dies_at):
    def counted(model, optimizer, micro, step, settings):
        if step == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(model, optimizer, micro, step, settings)
    training.train_step = counted
    train(DirectoryArtifact(folder.parent / "corpus"), folder)
"""


def test_kill_9_and_resume_end_with_the_losses_and_weights_of_an_uninterrupted_run(corpus: DirectoryArtifact, tmp_path: Path) -> None:
    (tmp_path / "corpus").symlink_to(corpus.path)
    whole, killed, resumed = outcomes(RUN, [(tmp_path / "whole", -1), (tmp_path / "killed", 9), (tmp_path / "killed", -1)])
    assert (whole[0], killed[0], resumed[0]) == (0, -signal.SIGKILL, 0)
    assert any(name.startswith("checkpoints/") for name in killed[1]) and "out/model.safetensors" not in killed[1]
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    first, second = ((tmp_path / n / "out" / "model.safetensors").read_bytes() for n in ("whole", "killed"))
    assert first == second


def test_accumulated_gradients_equal_the_big_batchs() -> None:
    blocks = torch.randint(50, (8, 17), generator=torch.Generator().manual_seed(0))
    weights = []
    for micro in ([blocks], [blocks[:4], blocks[4:]]):
        torch.manual_seed(0)
        model = Transformer(ModelConfig(50, 1, 16, 2, 1, 32)).double()
        train_step(model, make_optimizer(model, TINY), [NextToken().batch(part) for part in micro], 0, TINY)
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*weights, atol=1e-9, rtol=0)


def test_every_block_is_read_once_an_epoch() -> None:
    rows = np.concatenate([batch_rows(step, 20, 5, seed=3) for step in range(8)])
    assert sorted(rows[:20]) == list(range(20)) == sorted(rows[20:])
    assert list(rows[:20]) != list(rows[20:])


def test_the_schedule_warms_up_and_ends_at_its_minimum() -> None:
    rates = [learning_rate(step, TINY) for step in range(TINY.steps + 1)]
    peak = TINY.warmup_steps - 1
    assert rates[peak] == TINY.learning_rate and rates[-1] == pytest.approx(TINY.minimum_learning_rate)
    assert all(a < b for a, b in itertools.pairwise(rates[: peak + 1]))
    assert all(a >= b for a, b in itertools.pairwise(rates[peak:]))


def test_norms_are_not_decayed() -> None:
    model = Transformer(ModelConfig(50, 1, 16, 2, 1, 32))
    groups = make_optimizer(model, TINY).param_groups
    assert {p.dim() for p in groups[1]["params"]} == {1} and groups[1]["weight_decay"] == 0.0
    nats = token_nats(model, NextToken().batch(torch.zeros(2, 5, dtype=torch.long)))
    assert nats.shape == (8,) and float(nats.detach().min()) > 0


def test_the_report_compares_with_ngrams_on_unseen_text(corpus: DirectoryArtifact, tmp_path: Path) -> None:
    model = train(corpus, tmp_path)
    result = mini_transformer_report(model, corpus, TINY, seed=0)
    assert result.value("mask_leak") <= 1e-5
    assert 0 < result.value("bits_per_byte__5gram") <= result.value("bits_per_byte__unigram") + 0.2
    assert len(result.per_example) == len(TokenBlocks(corpus.path, "test").blocks)
    assert isinstance(result.tables["samples"], pd.DataFrame)


def test_a_leaking_mask_turns_its_check_red(
    corpus: DirectoryArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from assets.lineage import lineage_asset
    from curriculum.transformer import blocks as subject
    from resources.build import build_resources
    from tests.lineage import claims_on

    trained = train(corpus, tmp_path / "trained")

    @lineage_asset(group="test", name="mini_transformer_report", settings="transformer")
    def report(lab: Any) -> Any:
        """The real report on the tiny model."""
        return mini_transformer_report(trained, corpus, TINY, seed=0)

    checks = claims_on("mini_transformer_report")
    assert checks
    assert dg.materialize([report, *checks], resources=build_resources("starter", tmp_path, journal=False)).success
    real = subject.fused_attention
    monkeypatch.setattr(subject, "fused_attention", lambda q, k, v, mask=None, causal=False, dropout=0.0: real(q, k, v))
    fresh = build_resources("starter", tmp_path, journal=False, fresh=True)
    result = dg.materialize([report, *checks], resources=fresh, raise_on_error=False)
    red = [e.check_name for e in result.get_asset_check_evaluations() if not e.passed]
    assert red == ["claim_mini_transformer_report_mask_leak"] and not result.success
