"""Race: training the reader against transformers' Trainer on the same windows, seed and model, in turns in one process.

python -m benchmarks.reader_step [--squad FILE] [--windows 256] [--batch 16] [--length 384] [--rounds 2] [--threads 1]

An epoch a turn: each entrant sees every window once. The Trainer runs as its question-answering example does (every window padded
to the greatest length), with a collator that pads to a batch's longest, and with its sampler that groups by length as well.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

from curriculum.corpora.notes import load_notes, load_questions
from curriculum.corpora.readers import read_squad
from curriculum.hardware import describe_hardware, use_threads
from curriculum.reading.batches import POOL, padding_share, plan, training_windows
from curriculum.reading.dataset import notes_examples
from curriculum.reading.fitting import make_optimizer, start_model, train_step
from curriculum.reading.reader import Window
from curriculum.reading.settings import ReaderSettings
from curriculum.sources import model_folder

SETTINGS, RATE, SEED = ReaderSettings(), 2e-4, 0
NOTES = Path(__file__).parents[1] / "notes"
Epoch = Callable[[], tuple[float, float]]  # wall and CPU seconds of the training steps alone


def examples(squad: str) -> pd.DataFrame:
    """Questions of a SQuAD v1 file or folder; without one, those on the notes."""
    if squad:
        return read_squad(Path(squad))
    notes = load_notes(NOTES)
    return pd.DataFrame(notes_examples(notes, load_questions(NOTES, notes)))


@contextmanager
def clock() -> Iterator[list[float]]:
    spent = [time.perf_counter(), time.process_time()]
    yield spent
    spent[:] = [time.perf_counter() - spent[0], time.process_time() - spent[1]]


def our_epoch(folder: Path, made: list[Window], batch: int) -> Epoch:
    """Batches of like length, as the reader is trained."""

    def run() -> tuple[float, float]:
        model, tokenizer = start_model(folder, SEED, "cpu")
        optimizer = make_optimizer(model.train(), RATE, SETTINGS)
        with clock() as spent:
            for places in plan([len(w.input_ids) for w in made], batch, 1, SEED):
                train_step(model, optimizer, [[made[place] for place in places]], tokenizer.pad_token_id, SETTINGS, "cpu")
        return spent[0], spent[1]

    return run


def trainer_epoch(folder: Path, made: list[Window], batch: int, *, pad_to: int | None, sampling: str) -> Epoch:
    """The Trainer with its defaults: fused AdamW, clipping at 1, a rate that decays linearly. Its setting-up is not timed."""
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    features = [
        {
            "input_ids": w.input_ids, "token_type_ids": w.token_type_ids, "attention_mask": [1] * len(w.input_ids),
            "start_positions": w.start, "end_positions": w.end,
        }
        for w in made
    ]  # fmt: skip

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.begun = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.spent = time.perf_counter() - self.begun[0], time.process_time() - self.begun[1]

    def run() -> tuple[float, float]:
        model, tokenizer = start_model(folder, SEED, "cpu")
        watch = Clock()
        with TemporaryDirectory() as out:
            arguments = TrainingArguments(
                output_dir=out, per_device_train_batch_size=batch, num_train_epochs=1, learning_rate=RATE, weight_decay=SETTINGS.weight_decay,
                seed=SEED, use_cpu=True, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
                train_sampling_strategy=sampling,
            )  # fmt: skip
            collator = DataCollatorWithPadding(tokenizer, padding="max_length" if pad_to else True, max_length=pad_to)
            Trainer(model, arguments, data_collator=collator, train_dataset=features, processing_class=tokenizer, callbacks=[watch]).train()
        return watch.spent

    return run


def race(entrants: dict[str, Epoch], windows: int, rounds: int) -> dict[str, Any]:
    """Windows a second of each over all rounds, and ours over theirs."""
    spent = {name: [0.0, 0.0] for name in entrants}
    for _ in range(rounds):
        for name, epoch in entrants.items():
            for kind, seconds in enumerate(epoch()):
                spent[name][kind] += seconds
    found: dict[str, Any] = {}
    for kind, what in enumerate(("wall", "cpu")):
        speeds = {name: rounds * windows / seconds[kind] for name, seconds in spent.items()}
        found[f"windows_per_{what}_second"] = speeds
        found[f"ratio_by_{what}_time"] = {name: speeds["ours"] / speed for name, speed in speeds.items() if name != "ours"}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--squad", default="", help="a SQuAD v1 file or folder; without it, the questions on the notes")
    parser.add_argument("--windows", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=384, help="tokens of a window, at most")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="0: one a core")
    asked = parser.parse_args()
    threads = use_threads(asked.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    folder = model_folder("packaged:minilm", Path())
    _, tokenizer = start_model(folder, SEED, "cpu")
    drawn = examples(asked.squad).sample(frac=1.0, random_state=SEED).head(asked.windows)
    made = training_windows(tokenizer, drawn, max_length=asked.length, stride=SETTINGS.stride)[: asked.windows]
    entrants = {
        "ours": our_epoch(folder, made, asked.batch),
        "trainer_padded_to_longest": trainer_epoch(folder, made, asked.batch, pad_to=None, sampling="random"),
        "trainer_grouped_by_length": trainer_epoch(folder, made, asked.batch, pad_to=None, sampling="group_by_length"),
        "trainer_padded_to_length": trainer_epoch(folder, made, asked.batch, pad_to=asked.length, sampling="random"),
    }
    lengths = [len(w.input_ids) for w in made]
    padding = {name: padding_share(lengths, plan(lengths, asked.batch, 1, SEED, pool=pool)) for name, pool in (("ours", POOL), ("random", 1))}
    found = race(entrants, len(made), asked.rounds)
    facts = {"windows": len(made), "mean_tokens": sum(lengths) / len(made), "padding_share": padding, "rounds": asked.rounds}
    print(json.dumps({"hardware": describe_hardware("cpu"), "threads": threads, "torch": torch.__version__, **facts, **found}, indent=1))


if __name__ == "__main__":
    main()
