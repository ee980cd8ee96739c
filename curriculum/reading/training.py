"""Fine-tuning of the reader: a small hyper-parameter study on dev questions, then the best setting on all of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from curriculum.artifacts import ModelArtifact
from curriculum.checkpoint import load_checkpoint, save_checkpoint
from curriculum.disk import write_atomically
from curriculum.reading.metrics import exact_match, f1
from curriculum.reading.reader import Reader, Window, collate, labelled, windows
from curriculum.reading.settings import ReaderSettings, Trial
from curriculum.storage import digest_of

Progress = Callable[[str], None]


def training_windows(tokenizer: Any, examples: pd.DataFrame, *, max_length: int, stride: int) -> list[Window]:
    """Labelled windows of the examples. Of an example's windows without the answer only the first is kept: more of them
    teach little beyond saying nothing."""
    pairs = list(zip(examples["question"], examples["context"], strict=True))
    answers = [(int(s[0]), a[0]) for s, a in zip(examples["answer_starts"], examples["answers"], strict=True)]
    kept: list[Window] = []
    without: set[int] = set()
    for window in windows(tokenizer, pairs, max_length=max_length, stride=stride):
        start, text = answers[window.example]
        window = labelled(window, start, start + len(text))
        if window.end == 0 and window.example in without:
            continue
        if window.end == 0:
            without.add(window.example)
        kept.append(window)
    return kept


def plan(lengths: list[int], batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """Batches of windows of like length, in an order that ``seed`` alone fixes."""
    order: list[list[int]] = []
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch])
        shuffled = rng.permutation(len(lengths))
        pools = [sorted(shuffled[i : i + 16 * batch_size], key=lambda w: lengths[w]) for i in range(0, len(lengths), 16 * batch_size)]
        batches = [[int(w) for w in pool[i : i + batch_size]] for pool in pools for i in range(0, len(pool), batch_size)]
        order += [batches[i] for i in rng.permutation(len(batches))]
    return order


def start_model(folder: Path, seed: int, device: str) -> tuple[Any, Any]:
    """A question-answering model with a fresh head on the encoder in ``folder``, and its tokenizer."""
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    torch.manual_seed(seed)
    model = AutoModelForQuestionAnswering.from_pretrained(folder, local_files_only=True).to(device)
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def fine_tune(
    model: Any, made: list[Window], trial: Trial, settings: ReaderSettings, *, pad: int, epochs: int, seed: int,
    checkpoints: Path | None, progress: Progress, device: str,
) -> list[float]:  # fmt: skip
    """Train in place: AdamW, linear warm-up and decay, clipping. With ``checkpoints`` a killed run goes on exactly."""
    batches = plan([len(w.input_ids) for w in made], trial.batch_size, epochs, seed)
    steps = [batches[i : i + settings.accumulate] for i in range(0, len(batches), settings.accumulate)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=trial.learning_rate, weight_decay=settings.weight_decay)
    warmup = max(1, round(settings.warmup_share * len(steps)))
    run = digest_of([settings.model_dump(mode="json"), trial.model_dump(), seed, [w.input_ids for w in made]])
    torch.manual_seed(seed)
    restored = load_checkpoint(checkpoints, model, optimizer, run=run) if checkpoints else None
    start, losses = restored or (0, [])
    if start:
        progress(f"resumed at step {start}/{len(steps)}")
    model.train()
    begun, seen = time.perf_counter(), 0
    for step in range(start, len(steps)):
        rate = (step + 1) / warmup if step < warmup else (len(steps) - step) / max(1, len(steps) - warmup)
        for group in optimizer.param_groups:
            group["lr"] = trial.learning_rate * rate
        losses.append(_step(model, optimizer, [[made[i] for i in b] for b in steps[step]], pad, settings, device))
        seen += sum(map(len, steps[step]))
        if checkpoints and (step + 1) % settings.checkpoint_every == 0 and step + 1 < len(steps):
            save_checkpoint(checkpoints, model, optimizer, step=step + 1, losses=losses, run=run)
        if (step + 1) % 20 == 0 or step + 1 == len(steps):
            speed = seen / (time.perf_counter() - begun)
            progress(f"step {step + 1}/{len(steps)} loss {np.mean(losses[-20:]):.3f} {speed:.1f} windows/s")
    return losses


def _step(model: Any, optimizer: Any, micro: list[list[Window]], pad: int, settings: ReaderSettings, device: str) -> float:
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for batch in micro:
        loss = model(**collate(batch, pad, device)).loss / len(micro)
        loss.backward()
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    optimizer.step()
    return total


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


def _reader(model: Any, tokenizer: Any, trial: Trial, settings: ReaderSettings, device: str) -> Reader:
    return Reader(
        model, tokenizer, max_length=trial.max_length, stride=settings.stride, n_best=settings.n_best,
        max_tokens=settings.max_answer_tokens, device=device,
    )  # fmt: skip


def run_trials(
    folder: Path, train: pd.DataFrame, dev: pd.DataFrame, settings: ReaderSettings, *, seed: int, checkpoints: Path, progress: Progress, device: str
) -> list[dict[str, Any]]:
    """Each setting after ``trial_examples`` questions, scored on dev. Finished trials are kept and not run again."""
    kept = checkpoints / "trials.json"
    rows: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    part = train.head(settings.trial_examples)
    for number in range(len(rows), len(settings.trials)):
        trial = settings.trials[number]
        model, tokenizer = start_model(folder, seed, device)
        made = training_windows(tokenizer, part, max_length=trial.max_length, stride=settings.stride)
        begun = time.perf_counter()
        losses = fine_tune(
            model, made, trial, settings, pad=tokenizer.pad_token_id, epochs=trial.epochs, seed=seed, checkpoints=None,
            progress=lambda line, n=number: progress(f"trial {n + 1}: {line}"), device=device,
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        found = scores(_reader(model, tokenizer, trial, settings, device), dev)
        row = trial.model_dump() | {"windows": len(made), "loss": float(np.mean(losses[-5:])), "seconds": seconds}
        rows.append(row | {"dev_f1": float(found["f1"].mean()), "dev_exact_match": float(found["exact_match"].mean())})
        write_atomically(kept, json.dumps(rows).encode())
        progress(f"trial {number + 1}/{len(settings.trials)}: dev F1 {rows[-1]['dev_f1']:.3f}")
    return rows


def train_reader(
    examples: pd.DataFrame, settings: ReaderSettings, *, model: Path, out: Path, checkpoints: Path, progress: Progress, seed: int, device: str
) -> ModelArtifact:
    """Run the trials, train with the best one, and write the reader to ``out``."""
    train = examples[examples["split"] == "train"].sample(frac=1.0, random_state=seed)
    dev = examples[examples["split"] == "dev"]
    rows = run_trials(model, train, dev, settings, seed=seed, checkpoints=checkpoints, progress=progress, device=device)
    chosen = settings.trials[int(np.argmax([row["dev_f1"] for row in rows]))]
    network, tokenizer = start_model(model, seed, device)
    made = training_windows(tokenizer, train, max_length=chosen.max_length, stride=settings.stride)
    begun = time.perf_counter()
    losses = fine_tune(
        network, made, chosen, settings, pad=tokenizer.pad_token_id, epochs=settings.epochs, seed=seed, checkpoints=checkpoints,
        progress=progress, device=device,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    network.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    options = {"max_length": chosen.max_length, "stride": settings.stride, "n_best": settings.n_best, "max_tokens": settings.max_answer_tokens}
    (out / "reader.json").write_text(json.dumps(options))
    (out / "history.json").write_text(json.dumps({"loss": losses, "trials": rows}))
    facts = {"windows": len(made) * settings.epochs, "seconds": seconds, "windows_per_second": len(made) * settings.epochs / seconds}
    return ModelArtifact(out, facts | {"final_loss": float(np.mean(losses[-20:])), "chosen": chosen.model_dump(), "model": settings.model})
