"""The reader made from its dataset: the hyper-parameter study on dev questions, then the best setting on all training questions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from curriculum.artifacts import ModelArtifact
from curriculum.reading.batches import POOL, padding_share, plan, training_windows
from curriculum.reading.fitting import Fitting, Progress, start_model
from curriculum.reading.search import best_trial, run_search
from curriculum.reading.settings import ReaderSettings


def train_reader(
    examples: pd.DataFrame, settings: ReaderSettings, *, model: Path, out: Path, checkpoints: Path, progress: Progress, seed: int, device: str
) -> ModelArtifact:
    """Run the study, train with its best setting, and write the reader at its best dev F1 to ``out``. The test questions are not read."""
    train = examples[examples["split"] == "train"].sample(frac=1.0, random_state=seed)
    dev = examples[examples["split"] == "dev"]
    rows = run_search(model, train, dev, settings, seed=seed, checkpoints=checkpoints, progress=progress, device=device)
    chosen = best_trial(rows)
    network, tokenizer = start_model(model, seed, device)
    made = training_windows(tokenizer, train, max_length=chosen.max_length, stride=settings.stride)
    fit = Fitting(network, tokenizer, chosen, settings, dev, device, progress, checkpoints).run(
        made, epochs=settings.epochs, evaluations=settings.evaluations * settings.epochs, seed=seed
    )
    network.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    options = {"max_length": chosen.max_length, "stride": settings.stride, "n_best": settings.n_best, "max_tokens": settings.max_answer_tokens}
    (out / "reader.json").write_text(json.dumps(options))
    (out / "history.json").write_text(json.dumps({"loss": fit.losses, "trials": rows, "curve": fit.curve}))
    lengths = [len(w.input_ids) for w in made]
    padding = {
        f"padding_share{name}": padding_share(lengths, plan(lengths, chosen.batch_size, settings.epochs, seed, pool=pool))
        for name, pool in (("", POOL), ("_unsorted", 1))
    }
    facts = {
        "windows": len(made), "steps": len(fit.losses), "planned_steps": fit.planned_steps, "stopped_early": fit.stopped_early,
        "seconds": fit.seconds, "windows_per_second": fit.windows_per_second, "final_loss": float(np.mean(fit.losses[-20:])),
    }
    return ModelArtifact(out, facts | padding | {"best": fit.best, "chosen": chosen.model_dump(), "model": settings.model})
