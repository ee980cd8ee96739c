"""The whole study: settings searched on dev, the best one and the default read on test once, and what was tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from curriculum.cells import Cells
from curriculum.results import Metric, StudyResult
from curriculum.search_tuning.bench import SHOWN, Asked, Bench
from curriculum.search_tuning.compare import Side, by_track, comparison
from curriculum.search_tuning.held_out import HeldOut
from curriculum.search_tuning.plots import draw_tracks, draw_trials
from curriculum.search_tuning.search import best_setting, run_search
from curriculum.search_tuning.settings import SearchSetting, SearchTuningSettings

Served = Callable[[list[str]], list[list[tuple[str, float]]]]


def search_tuning(
    bench: Bench,
    dev: pd.DataFrame,
    held_out: HeldOut,
    settings: SearchTuningSettings,
    default: SearchSetting,
    *,
    served: Served,
    seed: int,
    checkpoints: Path,
    progress: Callable[[str], None],
) -> StudyResult:
    """Search on the ``dev`` questions, then compare the chosen setting with ``default`` on the questions of ``held_out``.

    ``served`` is the lineage's own search (queries to their best ten passages): the default setting's first stage must equal it.

    Raises:
        SplitSpentError: the test questions were read before.
    """
    held_out.refuse(dev)
    asked, cells = bench.ask(dev), Cells(checkpoints, progress)
    trials = _searched(bench, asked, held_out, settings, default, seed=seed, checkpoints=checkpoints, progress=progress)
    chosen = best_setting(trials)
    both = [default] if chosen == default else [chosen, default]
    kept = cells.get("the test questions", [s.model_dump(mode="json") for s in both], lambda: _read(bench, held_out, both))
    rows = pd.DataFrame(kept["questions"])
    test = Side(Asked(rows, np.empty(0)), np.array(kept["scores"][0]), np.array(kept["scores"][-1]))
    tuned = Side(asked, bench.score(chosen, asked).ndcg, bench.score(default, asked).ndcg)
    return _result(bench, tuned, test, pd.DataFrame(trials), chosen, default, _guards(bench, asked, held_out, default, served), settings, seed)


def _searched(
    bench: Bench, asked: Asked, held_out: HeldOut, settings: SearchTuningSettings, default: SearchSetting, *, seed: int, checkpoints: Path,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:  # fmt: skip
    def judge(setting: SearchSetting) -> tuple[float, dict[str, Any]]:
        held_out.refuse(asked.questions)
        scored = bench.score(setting, asked)
        means = pd.Series(scored.ndcg).groupby(asked.questions["track"].to_numpy()).mean()
        facts = {f"dev__{track}": float(mean) for track, mean in means.items()} | {"words_shown": scored.words, "pairs_known": len(bench.pairs)}
        return float(means.mean()), facts

    ids = asked.questions["query_id"].tolist()
    return run_search(checkpoints / "trials", settings, default, judge, known=[ids, bench.weight], seed=seed, progress=progress)


def _read(bench: Bench, held_out: HeldOut, settings: list[SearchSetting]) -> dict[str, Any]:
    """The one reading: the test questions, and their scores by each of ``settings``."""
    asked = bench.ask(held_out.read(settings))
    names = ["query_id", "track", "group"]
    return {"questions": asked.questions[names].to_dict("records"), "scores": [bench.score(s, asked).ndcg.tolist() for s in settings]}


def _guards(bench: Bench, asked: Asked, held_out: HeldOut, default: SearchSetting, served: Served) -> list[Metric]:
    """How many dev questions the default setting's first stage answers otherwise than the lineage's search, and what the test was read for."""
    own = bench.search(default.model_copy(update={"rerank_depth": 0}), asked)
    other = sum([p for p, _ in a[:SHOWN]] != [p for p, _ in b[:SHOWN]] for a, b in zip(own, served(asked.queries), strict=True))
    read = len(held_out.read_for())
    return [
        Metric(name="default_mismatches", value=float(other), n=len(own), higher_is_better=False),
        Metric(name="settings_read_on_test", value=float(read), higher_is_better=False),
    ]


def _result(
    bench: Bench, dev: Side, test: Side, trials: pd.DataFrame, chosen: SearchSetting, default: SearchSetting, guards: list[Metric],
    settings: SearchTuningSettings, seed: int,
) -> StudyResult:  # fmt: skip
    metrics, tracks = comparison(dev, test, seed), by_track(dev, test, seed)
    rows = test.asked.questions
    parts = {name: {n: str(getattr(s, name)) for n, s in (("default", default), ("chosen", chosen))} for name in SearchSetting.model_fields}
    return StudyResult(
        study="search_tuning_study",
        metrics=[*metrics, *guards, Metric(name="trials", value=float(len(trials))), Metric(name="pairs_scored", value=float(len(bench.pairs)))],
        settings=settings.model_dump(mode="json") | {"chosen": chosen.model_dump(mode="json"), "default": default.model_dump(mode="json")},
        seeds=[seed],
        remarks=_remarks({m.name: m for m in metrics}, trials, chosen, default),
        per_example=pd.DataFrame(
            {"example_id": rows["query_id"], "track": rows["track"], "ndcg_at_10": test.chosen, "ndcg_at_10__default": test.default}
        ),
        tables={"trials": trials, "settings": pd.DataFrame([{"part": name, **values} for name, values in parts.items()]), "by_track": tracks},
        plots={"trials": draw_trials(trials), "tracks": draw_tracks(tracks)},
    )


def _remarks(found: dict[str, Metric], trials: pd.DataFrame, chosen: SearchSetting, default: SearchSetting) -> list[str]:
    gain, tried = found["test_gain"], len(trials)
    verdict = {
        1: "Tuning helped: the paired interval of the gain on test lies above zero.",
        -1: "Tuning harmed: the paired interval of the gain on test lies below zero.",
        0: "The gain cannot be told from none: its paired interval on test holds zero.",
    }[gain.sign()]
    if chosen == default:
        verdict = "No setting that was tried had a better dev score than the default: it is kept, and there is no gain to test."
    return [
        f"{verdict} Chosen minus default: {gain.text()} on test (p {found['test_gain_p'].value:.2g} by flips of signs), "
        f"{found['dev_gain'].text()} on the dev questions that chose it out of {tried} settings tried.",
        f"optimism ({found['optimism'].text()}) is the chosen setting's score on dev minus that on test, and holds the difference in difficulty of "
        f"the two sets of questions. gain_optimism ({found['gain_optimism'].text()}) is that of the gain over the default, where it cancels.",
        "The test questions were given out once, for the settings that were named before. A study with other settings of this section reads them "
        "again: who compares several such studies by their test scores tunes on them.",
        "nDCG@10 is over sections of the source, each at the rank of its best passage, and lies above that over passages: judgements of passages "
        "change with the chunking, and so does what there is to find. It does not see what a reader pays for longer passages: words_shown, the mean "
        "words of the first ten, does; nor whether the passage itself holds the answer.",
        "Every chunking cuts the same documents. Encoder and cross-encoder cut long passages at their own most tokens, which are not tuned here. "
        "The cross-encoder was trained on passages of the default length. Its own training questions are not asked here, nor others that ask first "
        "about their documents; a two-hop question may end at one of them. Its weight was chosen on some of the dev questions.",
        "Each track counts equally. One phrasing of a question is asked, so that questions are the units of every interval.",
    ]
