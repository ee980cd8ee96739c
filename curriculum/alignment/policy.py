"""Policy optimisation by GRPO: sample, let the reward model judge, push towards what beat its group, held back by a KL penalty."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel

from curriculum.alignment.losses import group_advantages, grpo_loss, per_answer, token_divergence
from curriculum.alignment.model import Group, adapter, answer_logits, chosen_log_probabilities, decode, rows_of
from curriculum.alignment.settings import AlignmentSettings
from curriculum.alignment.training import Record, answer_rewards, stepper

Judge = Callable[[PeftModel, Sequence[Group]], list[list[float]]]


@dataclass(frozen=True)
class Tokens:
    """The end token, which closes an answer, and the one rows are padded with."""

    end: int
    pad: int


def reward_judge(head: torch.Tensor, tokens: Tokens, device: str = "cpu") -> Judge:
    """Rewards by the adapter ``reward`` and ``head``. An answer that was cut is judged as if it ended there, as trained answers do."""

    def judge(model: PeftModel, groups: Sequence[Group]) -> list[list[float]]:
        ended = [(p, [a if a[-1] == tokens.end else [*a, tokens.end] for a in answers]) for p, answers in groups]
        active = model.active_adapter
        model.set_adapter("reward")
        try:
            return answer_rewards(model, head, ended, pad=tokens.pad, device=device)
        finally:
            model.set_adapter(active)

    return judge


def optimise(
    model: PeftModel, role: str, prompts: Sequence[list[int]], judge: Judge, settings: AlignmentSettings,
    *, beta: float, tokens: Tokens, seed: int, report: Callable[[str], None], device: str = "cpu",
) -> list[Record]:  # fmt: skip
    """Train the active adapter ``role`` on ``prompts``; a record a step. The model without the adapter is the reference.

    ``kl`` is the divergence of whole answers in nats, measured on the step's samples before its update: zero at the first step.
    Answers are sampled at temperature 1 from all tokens, since the penalty is about that distribution and no other.
    """
    generator = torch.Generator(device).manual_seed(seed)
    order, rng = list(prompts), random.Random(seed)
    step_with = stepper(list(adapter(model, role).values()), settings, rate=settings.policy_rate, steps=settings.policy_steps)
    records: list[Record] = []
    for number in range(settings.policy_steps):
        start = number * settings.prompts_a_step % len(order)
        if start < settings.prompts_a_step:
            rng.shuffle(order)
        groups = _sampled(model, order[start : start + settings.prompts_a_step], settings, tokens, generator, device)
        rewards = torch.tensor(judge(model, groups), device=device)
        loss, kl = _loss(model, groups, group_advantages(rewards).flatten(), settings, beta, tokens, device)
        step_with(loss)
        answers = [answer for _, some in groups for answer in some]
        records.append(
            {
                "step": number + 1, "reward": float(rewards.mean()), "kl": kl, "tokens": sum(map(len, answers)) / len(answers),
                "ended": sum(a[-1] == tokens.end for a in answers) / len(answers),
            }
        )  # fmt: skip
        report(f"step {number + 1}/{settings.policy_steps} reward {float(rewards.mean()):.3f} KL {kl:.3f} nats an answer")
    return records


def _sampled(model: PeftModel, prompts: Sequence[list[int]], settings: AlignmentSettings, tokens: Tokens, generator: torch.Generator,
             device: str) -> list[Group]:  # fmt: skip
    size = settings.group
    answers = decode(
        model, prompts, end=tokens.end, pad=tokens.pad, limit=settings.max_new_tokens, each=size, generator=generator, device=device
    )
    return [(prompt, answers[i * size : (i + 1) * size]) for i, prompt in enumerate(prompts)]


def _loss(model: PeftModel, groups: Sequence[Group], advantages: torch.Tensor, settings: AlignmentSettings, beta: float, tokens: Tokens,
          device: str) -> tuple[torch.Tensor, float]:  # fmt: skip
    rows = rows_of(groups, pad=tokens.pad, device=device)
    with torch.no_grad(), model.disable_adapter():
        reference_logits = answer_logits(model, rows)
    logits = answer_logits(model, rows)
    ours, reference = chosen_log_probabilities(logits, rows), chosen_log_probabilities(reference_logits, rows)
    loss = grpo_loss(ours, ours.detach(), reference, advantages, rows.owner, beta=beta, clip=settings.clip)
    with torch.no_grad():
        kl = per_answer(token_divergence(logits, reference_logits), rows.owner, len(rows.last))
    return loss, float(kl.mean())


@torch.no_grad()
def divergences(model: PeftModel, groups: Sequence[Group], *, tokens: Tokens, device: str = "cpu", at_once: int = 8) -> list[float]:
    """KL of the active adapter's model from the model without it, in nats, along each answer that it sampled: one number an answer."""
    found: list[float] = []
    for start in range(0, len(groups), at_once):
        rows = rows_of(groups[start : start + at_once], pad=tokens.pad, device=device)
        logits = answer_logits(model, rows)
        with model.disable_adapter():
            reference = answer_logits(model, rows)
        found += per_answer(token_divergence(logits, reference), rows.owner, len(rows.last)).tolist()
    return found
