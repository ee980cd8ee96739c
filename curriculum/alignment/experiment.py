"""The steps in order, each kept when it is done: base, SFT, reward model, policy with and without its penalty, DPO."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from curriculum.alignment.model import Group, adapter, attach, decode, group_of, merged, plain, prompt_text
from curriculum.alignment.pairs import questions_of
from curriculum.alignment.policy import Tokens, divergences, optimise, reward_judge
from curriculum.alignment.settings import AlignmentSettings
from curriculum.alignment.stages import Stages
from curriculum.alignment.training import answer_log_probabilities, train_dpo, train_reward, train_sft
from curriculum.cells import Cells
from curriculum.generation.base import cut_at

COMPARED = {"sft": "base", "policy": "sft", "probe": "sft", "dpo": "sft"}  # a model, and the one it started from
MODELS = ("base", *COMPARED)


@dataclass(frozen=True)
class Questions:
    """The questions of each side, a table of pairs each, and the same as tokens: prompt, grounded answer, ungrounded ones."""

    tables: dict[str, list[pd.DataFrame]]
    groups: dict[str, list[Group]]

    @classmethod
    def of(cls, pairs: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, settings: AlignmentSettings) -> Questions:
        limits = {"sft": settings.sft_questions, "preference": settings.preference_questions, "policy": settings.policy_questions}
        tables = {side: questions_of(pairs, side, limit) for side, limit in (limits | {"test": settings.test_questions}).items()}
        return cls(tables, {side: [_tokens(tokenizer, rows) for rows in some] for side, some in tables.items()})


def _tokens(tokenizer: PreTrainedTokenizerBase, rows: pd.DataFrame) -> Group:
    first = rows.iloc[0]
    return group_of(tokenizer, prompt_text(first["passage"], first["question"]), [first["chosen"], *rows["rejected"]])


@dataclass
class Experiment:
    """What the steps share. ``known`` (JSON) is what a kept step was made from. ``run`` gives JSON for ``report``."""

    tokenizer: PreTrainedTokenizerBase
    questions: Questions
    settings: AlignmentSettings
    stages: Stages
    cells: Cells
    known: Any
    seed: int
    device: str
    progress: Callable[[str], None]

    @property
    def tokens(self) -> Tokens:
        end = int(self.tokenizer.eos_token_id)
        return Tokens(end, end if self.tokenizer.pad_token_id is None else int(self.tokenizer.pad_token_id))

    def run(self, base: torch.nn.Module) -> dict[str, Any]:
        """Train and measure everything, starting from ``base``, whose weights then hold the SFT update.

        Returns curves of the training, what each model answers and how it ranks the held-out pairs, and the reward model's scores.
        """
        models, curves = {"base": self._measured(base, "base")}, {}
        groups = self.questions.groups
        model = attach(base, "sft", self.settings, seed=self.seed)
        curves["sft"] = self._trained(model, "sft", lambda report: train_sft(model, groups["sft"], self.settings, **self._how(report)))
        models["sft"] = self._measured(model, "sft")
        model = attach(merged(model), "reward", self.settings, seed=self.seed)  # from here on the reference is the SFT model
        head = torch.nn.Parameter(torch.zeros(plain(model).config.hidden_size, device=self.device))
        curves["reward"] = self._trained(
            model, "reward", lambda report: train_reward(model, head, groups["preference"], self.settings, **self._how(report)), head=head
        )
        head.requires_grad_(False)
        for role, beta in (("policy", self.settings.policy_beta), ("probe", 0.0)):
            model = attach(model, role, self.settings, seed=self.seed)
            curves[role] = self._trained(model, role, self._optimiser(model, role, head, beta))
            models[role] = self._measured(model, role)
        model = attach(model, "dpo", self.settings, seed=self.seed)
        curves["dpo"] = self._trained(model, "dpo", lambda report: train_dpo(model, groups["preference"], self.settings, **self._how(report)))
        models["dpo"] = self._measured(model, "dpo")
        return {"models": models, "curves": curves, **self._judged(model, head, models)}

    def _how(self, report: Callable[[str], None]) -> dict[str, Any]:
        return {"pad": self.tokens.pad, "seed": self.seed, "report": report, "device": self.device}

    def _optimiser(self, model: PeftModel, role: str, head: torch.Tensor, beta: float) -> Callable[[Callable[[str], None]], list]:
        prompts, judge = [prompt for prompt, _ in self.questions.groups["policy"]], reward_judge(head, self.tokens, self.device)
        own = {"beta": beta, "tokens": self.tokens, "seed": self.seed, "device": self.device}
        return lambda report: optimise(model, role, prompts, judge, self.settings, report=report, **own)

    def _trained(self, model: PeftModel, role: str, train: Callable[[Callable[[str], None]], list], **more: torch.nn.Parameter) -> dict:
        def timed() -> dict[str, Any]:
            begun = time.perf_counter()
            records = train(lambda line: self.progress(f"{role}: {line}"))
            return {"records": records, "seconds": time.perf_counter() - begun}

        return self.stages.get(role, self.known, {**adapter(model, role), **more}, timed)

    def _measured(self, model: torch.nn.Module, name: str) -> dict[str, Any]:
        return self.cells.get(f"measured {name}", self.known, lambda: self._measure(model, name))

    def _measure(self, model: torch.nn.Module, name: str) -> dict[str, Any]:
        """Greedy answers to the held-out questions; how the pairs are ranked; KL along one sampled answer a question."""
        self.progress(f"{name}: answers {len(self.questions.groups['test'])} held-out questions")
        begun, test = time.perf_counter(), self.questions.groups["test"]
        greedy = self._decoded(model, None)
        found: dict[str, Any] = {
            "answers": [self._text(tokens) for tokens in greedy], "tokens": [len(t) for t in greedy],
            "ended": [t[-1] == self.tokens.end for t in greedy],
            "scores": answer_log_probabilities(model, test, pad=self.tokens.pad, device=self.device),
        }  # fmt: skip
        if name in COMPARED:
            found["samples"] = self._decoded(model, torch.Generator(self.device).manual_seed(self.seed))
            groups = [(prompt, [answer]) for (prompt, _), answer in zip(test, found["samples"], strict=True)]
            found["kl"] = divergences(model, groups, tokens=self.tokens, device=self.device)
        return {**found, "seconds": time.perf_counter() - begun}

    def _decoded(self, model: torch.nn.Module, generator: torch.Generator | None) -> list[list[int]]:
        """One answer to each held-out question, prompts of like length together."""
        prompts, made = [prompt for prompt, _ in self.questions.groups["test"]], dict[int, list[int]]()
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), self.settings.decoding_batch):
            some = order[start : start + self.settings.decoding_batch]
            limits = {"end": self.tokens.end, "pad": self.tokens.pad, "limit": self.settings.max_new_tokens}
            answers = decode(model, [prompts[i] for i in some], generator=generator, device=self.device, **limits)
            made.update(zip(some, answers, strict=True))
        return [made[i] for i in range(len(prompts))]

    def _text(self, tokens: Sequence[int]) -> str:
        return cut_at(self.tokenizer.decode(tokens, skip_special_tokens=True).strip(), ("\n",))[0].strip()

    def _judged(self, model: PeftModel, head: torch.Tensor, models: dict[str, dict]) -> dict[str, Any]:
        """Rewards of every model's answers, and of the held-out pairs: beside their own prompt, and beside the next question's."""
        test, judge = self.questions.groups["test"], reward_judge(head, self.tokens, self.device)
        elsewhere = [(test[(i + 1) % len(test)][0], answers) for i, (_, answers) in enumerate(test)]

        def answered(found: dict[str, Any]) -> dict[str, list[float]]:
            written = [(p, group_of(self.tokenizer, "", [text])[1]) for (p, _), text in zip(test, found["answers"], strict=True)]
            rewards = {"greedy": [r for (r,) in judge(model, written)]}
            if "samples" in found:
                sampled = [(p, [answer]) for (p, _), answer in zip(test, found["samples"], strict=True)]
                rewards["sampled"] = [r for (r,) in judge(model, sampled)]
            return rewards

        return {
            "rewards": self.cells.get("rewards", self.known, lambda: {name: answered(found) for name, found in models.items()}),
            "ranked": self.cells.get("ranked", self.known, lambda: {"reward": judge(model, test), "blind": judge(model, elsewhere)}),
        }
