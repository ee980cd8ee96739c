"""The search: Optuna's TPE over the ranges of the settings, each trial judged on dev, resumable to the same trials."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curriculum.search_tuning.settings import SearchSetting, SearchTuningSettings
from curriculum.storage import digest_of
from curriculum.trials import drawn, finished, open_study, record_drawn, record_given

if TYPE_CHECKING:
    import optuna

Judge = Callable[[SearchSetting], tuple[float, dict[str, Any]]]  # its dev score, and what else is told of it
_RANGES = ("dense_weight", "k1", "b")


def distributions(settings: SearchTuningSettings, default: SearchSetting) -> dict[str, optuna.distributions.BaseDistribution]:
    """What the sampler draws each part of a setting from; each holds the default's value."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    ranges: dict[str, optuna.distributions.BaseDistribution] = {}
    for name in SearchSetting.model_fields:
        values, own = getattr(settings, name), getattr(default, name)
        ranges[name] = (
            FloatDistribution(min(values[0], own), max(values[1], own)) if name in _RANGES else CategoricalDistribution(sorted({*values, own}))
        )
    return ranges


def run_search(
    folder: Path, settings: SearchTuningSettings, default: SearchSetting, judge: Judge, *, known: Any, seed: int, progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row a finished trial, in order: its setting, its dev score and what ``judge`` told of it. The first is the default setting.

    ``known`` (JSON) is what else the scores depend on. Finished trials are kept in ``folder`` and not run again; a search that was killed
    comes to the trials of one that was not.
    """
    name = digest_of([settings.model_dump(mode="json"), default.model_dump(mode="json"), known, seed])[:16]
    study, ranges = open_study(folder, name), distributions(settings, default)
    while (number := len(finished(study))) < settings.trials:
        asked = drawn(study, ranges, number=number, startup=settings.startup, seed=seed) if number else None
        setting = _setting(asked.params) if asked else default
        begun = time.perf_counter()
        value, facts = judge(setting)
        facts = facts | {"seconds": time.perf_counter() - begun}
        if asked:
            record_drawn(study, asked, value, facts)
        else:
            record_given(study, ranges, setting.model_dump(), value, facts, origin="default")
        progress(f"trial {number + 1}/{settings.trials}: dev nDCG@10 {value:.4f} with {setting.model_dump()}")
    return [_row(number, trial) for number, trial in enumerate(finished(study))]


def best_setting(rows: list[dict[str, Any]]) -> SearchSetting:
    """The setting of the row with the best dev score; of equals the first, so that the default yields to a better one alone."""
    row = rows[int(np.argmax([row["dev_ndcg_at_10"] for row in rows]))]
    return SearchSetting(**{name: row[name] for name in SearchSetting.model_fields})


def _setting(params: dict[str, Any]) -> SearchSetting:
    return SearchSetting(**{name: round(value, 2) if name in _RANGES else value for name, value in params.items()})


def _row(number: int, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    setting = trial.params if trial.user_attrs["origin"] == "default" else _setting(trial.params).model_dump()
    return {"trial": number + 1, **setting, "dev_ndcg_at_10": trial.value, **trial.user_attrs}
