"""Fine-tuning a reader: accumulated gradients, dev F1 on the way, early stopping, and a resume that is exact."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor

from curriculum.checkpoint import load_checkpoint, save_checkpoint
from curriculum.disk import write_atomically
from curriculum.reading.batches import plan, questions_seen
from curriculum.reading.metrics import exact_match, f1
from curriculum.reading.reader import Reader, Window, collate
from curriculum.reading.settings import ReaderSettings, Trial
from curriculum.storage import digest_of

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Schedule:
    """What is trained on when: micro-batches (places in the windows) a step, questions seen after each, and the steps after which dev is scored."""

    steps: list[list[list[int]]]
    questions: list[int]
    scored: frozenset[int]

    @classmethod
    def make(cls, made: Sequence[Window], batch_size: int, *, accumulate: int, epochs: int, evaluations: int, seed: int) -> Schedule:
        """``evaluations`` are evenly spaced over the steps; the last step is always scored."""
        batches = plan([len(w.input_ids) for w in made], batch_size, epochs, seed)
        steps = [batches[i : i + accumulate] for i in range(0, len(batches), accumulate)]
        scored = {round(len(steps) * (n + 1) / evaluations) - 1 for n in range(evaluations)}
        return cls(steps, questions_seen(made, steps), frozenset(max(0, step) for step in scored))


@dataclass(frozen=True)
class Fit:
    """A finished training: the loss of each step, the learning curve (step, questions, dev_f1, dev_exact_match)."""

    losses: list[float]
    curve: list[dict[str, float]]
    planned_steps: int
    seconds: float
    windows_per_second: float

    @property
    def best(self) -> dict[str, float]:
        """The row of the curve that the model was left at."""
        return max(self.curve, key=lambda row: row["dev_f1"])

    @property
    def stopped_early(self) -> bool:
        return len(self.losses) < self.planned_steps


def start_model(folder: Path, seed: int, device: str) -> tuple[Any, Any]:
    """A question-answering model with a fresh head on the encoder in ``folder``, and its tokenizer."""
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    torch.manual_seed(seed)
    model = AutoModelForQuestionAnswering.from_pretrained(folder, local_files_only=True).to(device)
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def reader_of(model: Any, tokenizer: Any, trial: Trial, settings: ReaderSettings, device: str) -> Reader:
    """The reader that ``model`` is at present. It is put into evaluation mode."""
    return Reader(
        model, tokenizer, max_length=trial.max_length, stride=settings.stride, n_best=settings.n_best,
        max_tokens=settings.max_answer_tokens, device=device,
    )  # fmt: skip


def scores(reader: Reader, examples: pd.DataFrame) -> pd.DataFrame:
    """example_id, source, question, prediction, gold, f1 and exact_match of each example."""
    spans = reader.answer(list(zip(examples["question"], examples["context"], strict=True)))
    table = examples[["example_id", "source", "question"]].assign(
        prediction=[s.text for s in spans], gold=[" | ".join(a) for a in examples["answers"]], score=[float(s.score) for s in spans]
    )
    golds = list(examples["answers"])
    table["f1"] = [f1(s.text, g) for s, g in zip(spans, golds, strict=True)]
    table["exact_match"] = [exact_match(s.text, g) for s, g in zip(spans, golds, strict=True)]
    return table.reset_index(drop=True)


def make_optimizer(model: Any, learning_rate: float, settings: ReaderSettings) -> torch.optim.Optimizer:
    """AdamW, fused: the update reads and writes each weight and moment once."""
    return torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=settings.weight_decay, fused=True)


def span_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy of the start and end places over the windows of a batch ([windows, longest] token ids and mask).

    Padding is no place that could be answered. transformers' own loss counts it as one, so that a window's loss there depends on
    how long its neighbours are, and an accumulated gradient differs from the big batch's.
    """
    out = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")})
    padding = batch["attention_mask"] == 0
    losses = [
        F.cross_entropy(logits.float().masked_fill(padding, -torch.inf), batch[f"{side}_positions"])
        for side, logits in (("start", out.start_logits), ("end", out.end_logits))
    ]
    return sum(losses) / 2


def accumulate_gradients(model: Any, micro: list[list[Window]], pad: int, device: str) -> float:
    """Add the gradients of the mean loss over all windows of the micro-batches, and return that loss.

    A micro-batch counts by its windows, so that the sum is the gradient of the one big batch also where they differ in size.
    """
    windows = sum(map(len, micro))
    total = 0.0
    for batch in micro:
        loss = span_loss(model, collate(batch, pad, device)) * (len(batch) / windows)
        loss.backward()
        total += float(loss.detach())
    return total


def train_step(model: Any, optimizer: torch.optim.Optimizer, micro: list[list[Window]], pad: int, settings: ReaderSettings, device: str) -> float:
    """One optimiser step over the micro-batches, with clipping; the loss before it."""
    optimizer.zero_grad(set_to_none=True)
    loss = accumulate_gradients(model, micro, pad, device)
    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    optimizer.step()
    return loss


@dataclass
class _Best:
    """The weights at the best dev F1: in memory, and in a file beside the checkpoint, which tells by its history whose file it goes with."""

    folder: Path | None
    step: int = -1
    f1: float = -1.0
    weights: dict[str, Tensor] = field(default_factory=dict)
    _written: int = -1

    def _file(self) -> Path:
        assert self.folder is not None
        return self.folder / f"best-{self.step}.safetensors"

    def offer(self, step: int, dev_f1: float, model: Any) -> None:
        if dev_f1 > self.f1:
            self.step, self.f1 = step, dev_f1
            self.weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}

    def write(self) -> None:
        """Before a checkpoint is written: until it is, the file of the one before it stays."""
        if self.step != self._written:
            write_atomically(self._file(), save(self.weights))
            self._written = self.step

    def drop_others(self) -> None:
        for path in self._file().parent.glob("best-*.safetensors"):
            if path != self._file():
                path.unlink()

    def recall(self, history: list[list[float]]) -> None:
        """The best of the steps that are done, from its file."""
        scored = [(step, record[1]) for step, record in enumerate(history) if len(record) > 1]
        if scored:
            self.step, self.f1 = max(scored, key=lambda pair: pair[1])  # of equals the first, as offered
            self.weights, self._written = load_file(self._file()), self.step


@dataclass
class _Clock:
    """Seconds and windows of this process alone: what a resumed run did before is not known."""

    begun: float = field(default_factory=time.perf_counter)
    scoring: float = 0.0
    windows: int = 0

    def seconds(self) -> float:
        """Of training, without the scoring of dev."""
        return time.perf_counter() - self.begun - self.scoring

    def speed(self) -> float:
        return self.windows / self.seconds()


@dataclass
class Fitting:
    """One training run. ``dev`` is scored on the way; with ``checkpoints`` a killed run goes on exactly.

    A step's record is [loss], or [loss, dev F1, dev exact match] where dev was scored after it.
    """

    model: Any
    tokenizer: Any
    trial: Trial
    settings: ReaderSettings
    dev: pd.DataFrame
    device: str
    progress: Progress
    checkpoints: Path | None = None

    def run(self, made: list[Window], *, epochs: int, evaluations: int, seed: int) -> Fit:
        """AdamW with linear warm-up and decay over ``epochs``, which are the most there can be.

        It stops when ``settings.patience`` evaluations in a row were no better than the best before them, and leaves the model with
        the weights of the best dev F1.
        """
        schedule = Schedule.make(
            made, self.trial.batch_size, accumulate=self.settings.accumulate, epochs=epochs, evaluations=evaluations, seed=seed
        )
        optimizer = make_optimizer(self.model, self.trial.learning_rate, self.settings)
        labelled = [[w.input_ids, w.start, w.end] for w in made]
        run = digest_of([self.settings.model_dump(mode="json"), self.trial.model_dump(), epochs, evaluations, seed, labelled])
        torch.manual_seed(seed)
        history, planned = self._resumed(optimizer, run), len(schedule.steps)
        best, clock = _Best(self.checkpoints), _Clock()
        best.recall(history)
        self.model.train()
        for step in range(len(history), planned):
            if _exhausted(history, self.settings.patience):
                self.progress(f"stopped at step {step}/{planned}: dev F1 has not risen over {best.f1:.3f} for {self.settings.patience} evaluations")
                break
            micro = [[made[place] for place in batch] for batch in schedule.steps[step]]
            history.append([self._step(optimizer, micro, step, planned)])
            clock.windows += sum(map(len, micro))
            if step in schedule.scored:
                history[-1] += self._score(clock, f"step {step + 1}/{planned}, {schedule.questions[step]} questions")
                best.offer(step, history[-1][1], self.model)
            if self.checkpoints and (step + 1) % self.settings.checkpoint_every == 0 and step + 1 < planned:
                best.write()
                save_checkpoint(self.checkpoints, self.model, optimizer, step=step + 1, losses=history, run=run)
                best.drop_others()
            if (step + 1) % 20 == 0 or step + 1 == planned:
                loss = np.mean([record[0] for record in history[-20:]])
                self.progress(f"step {step + 1}/{planned} loss {loss:.3f} {clock.speed():.1f} windows/s")
        self.model.load_state_dict(best.weights)
        return Fit([record[0] for record in history], _curve(history, schedule), planned, clock.seconds(), clock.speed())

    def _resumed(self, optimizer: torch.optim.Optimizer, run: str) -> list[list[float]]:
        kept = load_checkpoint(self.checkpoints, self.model, optimizer, run=run) if self.checkpoints else None
        if kept is None:
            return []
        self.progress(f"resumed at step {kept[0]}")
        return kept[1]

    def _step(self, optimizer: torch.optim.Optimizer, micro: list[list[Window]], step: int, planned: int) -> float:
        warmup = max(1, round(self.settings.warmup_share * planned))
        rate = (step + 1) / warmup if step < warmup else (planned - step) / max(1, planned - warmup)
        for group in optimizer.param_groups:
            group["lr"] = self.trial.learning_rate * rate
        return train_step(self.model, optimizer, micro, self.tokenizer.pad_token_id, self.settings, self.device)

    def _score(self, clock: _Clock, place: str) -> list[float]:
        begun = time.perf_counter()
        found = scores(reader_of(self.model, self.tokenizer, self.trial, self.settings, self.device), self.dev)
        self.model.train()
        clock.scoring += time.perf_counter() - begun
        dev_f1, dev_exact_match = float(found["f1"].mean()), float(found["exact_match"].mean())
        self.progress(f"{place}: dev F1 {dev_f1:.3f}")
        return [dev_f1, dev_exact_match]


def _curve(history: list[list[float]], schedule: Schedule) -> list[dict[str, float]]:
    return [
        {"step": step + 1, "questions": schedule.questions[step], "dev_f1": record[1], "dev_exact_match": record[2]}
        for step, record in enumerate(history)
        if len(record) > 1
    ]


def _exhausted(history: list[list[float]], patience: int) -> bool:
    """Whether the last ``patience`` scores are no better than the best one before them."""
    found = [record[1] for record in history if len(record) > 1]
    return len(found) > patience and max(found[-patience:]) <= max(found[:-patience])
