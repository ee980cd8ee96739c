"""Studies by Optuna's TPE that a kill does not change: a journal that is mended, and a sampler seeded by the finished trials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curriculum.disk import write_atomically

if TYPE_CHECKING:
    import optuna

_JOURNAL = "study.jsonl"


def open_study(folder: Path, name: str) -> optuna.Study:
    """The study ``name`` in the journal of ``folder``, made where there is none; the greatest value is its best.

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


def drawn(study: optuna.Study, ranges: dict[str, Any], *, number: int, startup: int, seed: int) -> optuna.Trial:
    """Trial ``number`` as the sampler draws it from ``ranges``; the first ``startup`` are random.

    The sampler is seeded by the number, not by how often the process was started: a study that was killed anywhere comes to the same
    trials as one that was not.
    """
    import optuna

    draw = int(np.random.default_rng([seed, number]).integers(2**31))
    study.sampler = optuna.samplers.TPESampler(seed=draw, n_startup_trials=startup)
    return study.ask(ranges)


def record_drawn(study: optuna.Study, trial: optuna.Trial, value: float, facts: dict[str, Any]) -> None:
    """Finish a trial of :func:`drawn`; ``facts`` (JSON) become its attributes, with origin "drawn"."""
    for name, fact in ({"origin": "drawn"} | facts).items():
        trial.set_user_attr(name, fact)
    study.tell(trial, value)


def record_given(
    study: optuna.Study, ranges: dict[str, Any], params: dict[str, Any], value: float, facts: dict[str, Any], *, origin: str
) -> None:
    """Add a finished trial of parameters that nobody drew."""
    import optuna

    study.add_trial(optuna.create_trial(params=params, distributions=ranges, value=value, user_attrs={"origin": origin} | facts))
