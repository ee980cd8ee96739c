"""The losses against numbers worked by hand, against enumeration, and against trl's trainers."""

from __future__ import annotations

import math

import pytest
import torch

from curriculum.adaptation.model import load_tokenizer
from curriculum.alignment import parity
from curriculum.alignment.losses import bradley_terry_loss, dpo_loss, group_advantages, grpo_loss, penalty, per_answer, token_divergence
from curriculum.alignment.model import group_of
from tests.adaptation.tiny_llama import save_tiny

PAIRS = [
    {"prompt": "What is the sum?\nAnswer:", "chosen": " 7", "rejected": " none of its arguments"},
    {"prompt": "Which function returns it, of all the ones above?\nAnswer:", "chosen": " number 14", "rejected": " 0"},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(save_tiny(tmp_path_factory.mktemp("tiny")))


def test_dpo_gives_the_number_of_the_study_note():
    better, worse, base_better, base_worse = (torch.tensor([v]) for v in (-40.0, -55.0, -42.0, -52.0))
    assert dpo_loss(better, worse, base_better, base_worse, beta=0.1).item() == pytest.approx(0.474, abs=5e-4)
    assert dpo_loss(better, worse, better, worse, beta=0.1).item() == pytest.approx(math.log(2))


def test_a_margin_of_one_means_seventy_three_percent():
    assert (-bradley_terry_loss(torch.tensor([3.0]), torch.tensor([2.0]))).exp().item() == pytest.approx(0.731, abs=1e-3)


def test_advantages_are_relative_to_their_own_prompt():
    advantages = group_advantages(torch.tensor([[1.0, 3.0, 5.0], [100.0, 100.0, 100.0]]))
    assert advantages[0].tolist() == pytest.approx([-1, 0, 1], abs=1e-3) and advantages[1].tolist() == [0, 0, 0]


def test_the_penalty_is_unbiased_for_the_divergence_and_never_negative():
    pi, reference = torch.randn(2, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_pi, log_reference = pi.log_softmax(0), reference.log_softmax(0)
    each = penalty(log_pi, log_reference)
    exact = token_divergence(pi[None], reference[None])[0]
    assert (each >= 0).all() and (log_pi.exp() * each).sum().item() == pytest.approx(exact.item(), rel=1e-9)
    assert token_divergence(pi[None], pi[None]).item() == 0 and exact > 0


def test_without_a_penalty_the_gradient_is_that_of_reinforce():
    scores = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    owner, advantages = torch.tensor([0, 0, 1]), torch.tensor([2.0, -1.0])
    grpo_loss(scores, scores.detach(), scores.detach(), advantages, owner, beta=0.0, clip=0.2).backward()
    assert scores.grad.tolist() == pytest.approx([-2 / 2 / 2, -2 / 2 / 2, 1 / 2])
    assert per_answer(torch.ones(3), owner, 2).tolist() == [2, 1]


def test_dpo_equals_trls_trainer_and_a_planted_error_does_not(tokenizer, monkeypatch):
    found = parity.dpo_parity(tokenizer, PAIRS)
    assert found["trl_loss_error"] <= 1e-5 and found["trl_gradient_error"] <= 1e-5
    monkeypatch.setattr(parity, "dpo_loss", lambda better, worse, a, b, *, beta: dpo_loss(worse, better, a, b, beta=beta))
    swapped = parity.dpo_parity(tokenizer, PAIRS)
    assert swapped["trl_loss_error"] > 1e-3 and swapped["trl_gradient_error"] > 1e-3


def test_grpo_equals_trls_trainer_and_a_planted_error_does_not(tokenizer, monkeypatch):
    groups = [group_of(tokenizer, pair["prompt"], [pair["chosen"], pair["rejected"]]) for pair in PAIRS]
    found = parity.grpo_parity(tokenizer, groups)
    assert found["trl_grpo_loss_error"] <= 1e-5 and found["trl_grpo_gradient_error"] <= 1e-5
    monkeypatch.setattr(parity, "grpo_loss", lambda *values, beta, clip: grpo_loss(*values, beta=beta, clip=0.9))
    assert parity.grpo_parity(tokenizer, groups)["trl_grpo_loss_error"] > 1e-3
