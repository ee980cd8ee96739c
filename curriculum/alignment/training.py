"""Training of one adapter on preference pairs: imitation, reward model, DPO. One pass over the questions, in an order fixed by the seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from peft import PeftModel

from curriculum.alignment.losses import bradley_terry_loss, dpo_loss, per_answer
from curriculum.alignment.model import Group, adapter, answer_logits, chosen_log_probabilities, hidden_states, rows_of
from curriculum.alignment.settings import AlignmentSettings

Record = dict[str, float]
_SCORED_AT_ONCE = 8


def train_sft(model: PeftModel, groups: Sequence[Group], settings: AlignmentSettings, *, pad: int, seed: int, report: Callable[[str], None],
              device: str = "cpu") -> list[Record]:  # fmt: skip
    """Imitate the first answer of every group: mean negative log-probability of its tokens, the prompt's left out."""

    def loss(batch: list[Group]) -> tuple[torch.Tensor, Record]:
        rows = rows_of([(prompt, answers[:1]) for prompt, answers in batch], pad=pad, device=device)
        return -chosen_log_probabilities(answer_logits(model, rows), rows).mean(), {}

    return _epoch(list(adapter(model, "sft").values()), groups, loss, settings, rate=settings.sft_rate, seed=seed, report=report)


def train_reward(model: PeftModel, head: torch.nn.Parameter, groups: Sequence[Group], settings: AlignmentSettings, *, pad: int, seed: int,
                 report: Callable[[str], None], device: str = "cpu") -> list[Record]:  # fmt: skip
    """Fit ``head`` [width] times the last token's state, and the adapter below it, to prefer a group's first answer to each other."""

    def loss(batch: list[Group]) -> tuple[torch.Tensor, Record]:
        rows = rows_of(batch, pad=pad, device=device)
        better, worse = pairs_in(batch)
        rewards = hidden_states(model, rows)[rows.last] @ head
        margin = (rewards[better] - rewards[worse]).detach()
        return bradley_terry_loss(rewards[better], rewards[worse]).mean(), {"accuracy": float((margin > 0).float().mean())}

    parameters = [*adapter(model, "reward").values(), head]
    return _epoch(parameters, groups, loss, settings, rate=settings.reward_rate, seed=seed, report=report)


def train_dpo(model: PeftModel, groups: Sequence[Group], settings: AlignmentSettings, *, pad: int, seed: int, report: Callable[[str], None],
              device: str = "cpu") -> list[Record]:  # fmt: skip
    """Raise a group's first answer over each other against the model without the adapter, whose log-probabilities are taken once."""
    with model.disable_adapter():
        found = answer_log_probabilities(model, groups, pad=pad, device=device)
    reference = {id(group): torch.tensor(scores, device=device) for group, scores in zip(groups, found, strict=True)}

    def loss(batch: list[Group]) -> tuple[torch.Tensor, Record]:
        rows = rows_of(batch, pad=pad, device=device)
        better, worse = pairs_in(batch)
        ours = per_answer(chosen_log_probabilities(answer_logits(model, rows), rows), rows.owner, len(rows.last))
        theirs = torch.cat([reference[id(group)] for group in batch])
        losses = dpo_loss(ours[better], ours[worse], theirs[better], theirs[worse], beta=settings.dpo_beta)
        ratio = (ours - theirs).detach()
        return losses.mean(), {"margin": float((ratio[better] - ratio[worse]).mean()), "chosen_ratio": float(ratio[better].mean())}

    return _epoch(list(adapter(model, "dpo").values()), groups, loss, settings, rate=settings.dpo_rate, seed=seed, report=report)


def pairs_in(groups: Sequence[Group]) -> tuple[list[int], list[int]]:
    """Numbers of the better and of the worse answers [pairs]: the first of each group against every other."""
    better: list[int] = []
    worse: list[int] = []
    start = 0
    for _, answers in groups:
        better += [start] * (len(answers) - 1)
        worse += range(start + 1, start + len(answers))
        start += len(answers)
    return better, worse


def _epoch(parameters: list[torch.nn.Parameter], groups: Sequence[Group], loss_of: Callable[[list[Group]], tuple[torch.Tensor, Record]],
           settings: AlignmentSettings, *, rate: float, seed: int, report: Callable[[str], None]) -> list[Record]:  # fmt: skip
    order = list(groups)
    random.Random(seed).shuffle(order)
    batches = [order[i : i + settings.batch_size] for i in range(0, len(order), settings.batch_size)]
    step_with, records = stepper(parameters, settings, rate=rate, steps=len(batches)), []
    for number, batch in enumerate(batches, 1):
        loss, record = loss_of(batch)
        step_with(loss)
        records.append({"step": number, "loss": float(loss.detach()), **record})
        if number % 10 == 0 or number == len(batches):
            report(f"step {number}/{len(batches)} " + " ".join(f"{key} {value:.3f}" for key, value in records[-1].items() if key != "step"))
    return records


def stepper(
    parameters: list[torch.nn.Parameter], settings: AlignmentSettings, *, rate: float, steps: int
) -> Callable[[torch.Tensor], None]:
    """A function that takes one AdamW step down a loss: gradients clipped, the rate warmed up and then lowered in a line to zero."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    warmup = max(1, round(settings.warmup_share * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / warmup, (steps - s) / max(1, steps - warmup + 1), 1.0))

    def step(loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        optimizer.step()
        schedule.step()

    return step


@torch.no_grad()
def answer_log_probabilities(model: torch.nn.Module, groups: Sequence[Group], *, pad: int, device: str = "cpu") -> list[list[float]]:
    """Of every answer of every group the sum of its tokens' log-probabilities, in nats."""
    found: list[list[float]] = []
    for start in range(0, len(groups), _SCORED_AT_ONCE):
        batch = groups[start : start + _SCORED_AT_ONCE]
        rows = rows_of(batch, pad=pad, device=device)
        sums = per_answer(chosen_log_probabilities(answer_logits(model, rows), rows), rows.owner, len(rows.last)).tolist()
        found += _regroup(sums, batch)
    return found


@torch.no_grad()
def answer_rewards(
    model: PeftModel, head: torch.Tensor, groups: Sequence[Group], *, pad: int, device: str = "cpu"
) -> list[list[float]]:
    """The reward of every answer of every group. The adapter ``reward`` must be the active one."""
    found: list[list[float]] = []
    for start in range(0, len(groups), _SCORED_AT_ONCE):
        batch = groups[start : start + _SCORED_AT_ONCE]
        rows = rows_of(batch, pad=pad, device=device)
        found += _regroup((hidden_states(model, rows)[rows.last] @ head).tolist(), batch)
    return found


def _regroup(values: list[float], groups: Sequence[Group]) -> list[list[float]]:
    taken = iter(values)
    return [[next(taken) for _ in answers] for _, answers in groups]
