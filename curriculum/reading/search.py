"""The hyper-parameter study: Optuna's TPE over the ranges of the settings, each trial judged on dev, resumable to the same trials."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from curriculum.reading.batches import training_windows
from curriculum.reading.fitting import Fitting, Progress, start_model
from curriculum.reading.settings import ReaderSettings, SearchSettings, Trial
from curriculum.storage import digest_of
from curriculum.trials import drawn, finished, open_study, record_drawn, record_given

if TYPE_CHECKING:
    import optuna


def distributions(search: SearchSettings) -> dict[str, optuna.distributions.BaseDistribution]:
    """What the sampler draws each hyper-parameter from."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    choices = {name: CategoricalDistribution(getattr(search, name)) for name in ("batch_size", "epochs", "max_length")}
    return {"learning_rate": FloatDistribution(*search.learning_rate, log=True)} | choices


def run_search(
    folder: Path, train: pd.DataFrame, dev: pd.DataFrame, settings: ReaderSettings, *, seed: int, checkpoints: Path, progress: Progress, device: str
) -> list[dict[str, Any]]:
    """A row a finished trial: its hyper-parameters, dev scores and cost.

    Finished trials are kept under ``checkpoints`` and not run again; a study that was killed comes to the trials of one that was not.
    """
    search = settings.search
    known = [search.model_dump(mode="json"), seed, train["example_id"].tolist()[: search.examples], dev["example_id"].tolist()]
    study, ranges = open_study(checkpoints, digest_of(known)[:16]), distributions(search)
    while (number := len(finished(study))) < search.trials:
        tried, asked = _next_trial(study, ranges, search, number, seed)
        facts = _measure(
            folder, train.head(search.examples), dev, tried, settings, seed=seed, checkpoints=checkpoints / f"trial-{number}",
            progress=lambda line, n=number: progress(f"trial {n + 1}/{search.trials}: {line}"), device=device,
        )  # fmt: skip
        _record(study, ranges, tried, facts, asked)
        shutil.rmtree(checkpoints / f"trial-{number}", ignore_errors=True)
        progress(f"trial {number + 1}/{search.trials}: dev F1 {facts['dev_f1']:.3f} with {tried.model_dump()}")
    return [{"trial": n + 1, **t.params, **t.user_attrs, "dev_f1": t.value} for n, t in enumerate(finished(study))]


def best_trial(rows: list[dict[str, Any]]) -> Trial:
    """The hyper-parameters of the row with the best dev F1; of equals the first."""
    row = rows[int(np.argmax([row["dev_f1"] for row in rows]))]
    return Trial(**{name: row[name] for name in Trial.model_fields})


def _next_trial(
    study: optuna.Study, ranges: dict[str, Any], search: SearchSettings, number: int, seed: int
) -> tuple[Trial, optuna.Trial | None]:
    """The hyper-parameters to try now, and Optuna's trial that drew them where the settings do not name them."""
    if number < len(search.first):
        return search.first[number], None
    asked = drawn(study, ranges, number=number, startup=search.startup, seed=seed)
    return Trial(**asked.params), asked


def _record(study: optuna.Study, ranges: dict[str, Any], tried: Trial, facts: dict[str, Any], asked: optuna.Trial | None) -> None:
    value, facts = facts["dev_f1"], {name: fact for name, fact in facts.items() if name != "dev_f1"}
    if asked is None:
        record_given(study, ranges, tried.model_dump(), value, facts, origin="given")
    else:
        record_drawn(study, asked, value, facts)


def _measure(
    folder: Path, train: pd.DataFrame, dev: pd.DataFrame, trial: Trial, settings: ReaderSettings, *, seed: int, checkpoints: Path,
    progress: Progress, device: str,
) -> dict[str, Any]:  # fmt: skip
    """Train by ``trial`` from the start and score dev once, at the end. Killed within, it goes on from its own checkpoint."""
    model, tokenizer = start_model(folder, seed, device)
    made = training_windows(tokenizer, train, max_length=trial.max_length, stride=settings.stride)
    fit = Fitting(model, tokenizer, trial, settings, dev, device, progress, checkpoints).run(made, epochs=trial.epochs, evaluations=1, seed=seed)
    row = {"windows": len(made), "loss": float(np.mean(fit.losses[-5:])), "seconds": fit.seconds}
    return row | {name: fit.best[name] for name in ("dev_f1", "dev_exact_match")}
