"""The hyper-parameter study: Optuna's TPE over the ranges of the settings, each trial judged on dev, resumable to the same trials."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from curriculum.disk import write_atomically
from curriculum.reading.batches import training_windows
from curriculum.reading.fitting import Fitting, Progress, start_model
from curriculum.reading.settings import ReaderSettings, SearchSettings, Trial
from curriculum.storage import digest_of

if TYPE_CHECKING:
    import optuna

_JOURNAL = "study.jsonl"


def distributions(search: SearchSettings) -> dict[str, optuna.distributions.BaseDistribution]:
    """What the sampler draws each hyper-parameter from."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    choices = {name: CategoricalDistribution(getattr(search, name)) for name in ("batch_size", "epochs", "max_length")}
    return {"learning_rate": FloatDistribution(*search.learning_rate, log=True)} | choices


def open_study(folder: Path, name: str) -> optuna.Study:
    """The study ``name`` in the journal of ``folder``, made where there is none.

    A trial that a killed run left unfinished is set aside: as a failed one it informs no draw and counts for nothing.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / _JOURNAL
    _mend(journal)
    study = optuna.create_study(
        study_name=name, storage=JournalStorage(JournalFileBackend(str(journal))), direction="maximize", load_if_exists=True
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _mend(journal: Path) -> None:
    """Cut off a last line that was not written whole: what is appended to it could not be read again."""
    content = journal.read_bytes() if journal.exists() else b""
    if content and not content.endswith(b"\n"):
        write_atomically(journal, content[: content.rfind(b"\n") + 1])


def finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The finished trials, in order."""
    import optuna

    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))


def run_search(
    folder: Path, train: pd.DataFrame, dev: pd.DataFrame, settings: ReaderSettings, *, seed: int, checkpoints: Path, progress: Progress, device: str
) -> list[dict[str, Any]]:
    """A row a finished trial: its hyper-parameters, dev scores and cost.

    Finished trials are kept under ``checkpoints`` and not run again. The sampler is seeded by how many there are, not by how often
    the process was started, so a study that was killed anywhere comes to the same trials as one that was not.
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
    import optuna

    if number < len(search.first):
        return search.first[number], None
    draw = int(np.random.default_rng([seed, number]).integers(2**31))
    study.sampler = optuna.samplers.TPESampler(seed=draw, n_startup_trials=search.startup)
    asked = study.ask(ranges)
    return Trial(**asked.params), asked


def _record(study: optuna.Study, ranges: dict[str, Any], tried: Trial, facts: dict[str, Any], asked: optuna.Trial | None) -> None:
    import optuna

    value, facts = facts["dev_f1"], {name: fact for name, fact in facts.items() if name != "dev_f1"}
    if asked is None:
        study.add_trial(optuna.create_trial(params=tried.model_dump(), distributions=ranges, value=value, user_attrs={"origin": "given"} | facts))
        return
    for name, fact in ({"origin": "drawn"} | facts).items():
        asked.set_user_attr(name, fact)
    study.tell(asked, value)


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
