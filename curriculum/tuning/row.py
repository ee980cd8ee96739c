"""One row of the study: a method on both tasks, its learning rates chosen on the dev split, its seeds kept one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import f1_score

from curriculum.adaptation.model import load_tokenizer
from curriculum.cells import Cells
from curriculum.evaluation.statistics import mean_interval
from curriculum.results import Identity, Metric, StudyResult
from curriculum.tuning.meter import PeakRequest, measure_peak
from curriculum.tuning.settings import Method, TuningSettings
from curriculum.tuning.tasks import classification_task, generation_task
from curriculum.tuning.training import Setting, tune_classifier, tune_generator

GIB = 2**30
Run = Callable[[float, int], dict[str, Any]]


@dataclass(frozen=True)
class Chosen:
    """The runs of one task at the rate that had the lowest dev loss, a seed each, and what every rate of the grid reached."""

    rate: float
    runs: list[dict[str, Any]]
    grid: dict[float, float]

    def mean(self, name: str) -> float:
        return float(np.mean([run[name] for run in self.runs]))


def peft_row(
    method: Method, domain: pd.DataFrame, labelled: pd.DataFrame, settings: TuningSettings,
    *, base: Path, encoder: Path, device: str, precision: str, seed: int, identities: list[Identity], checkpoints: Path,
    progress: Callable[[str], None],
) -> StudyResult:  # fmt: skip
    """Train by ``method`` the language model in ``base`` and the encoder in ``encoder``, on equal steps and batches, and score both.

    ``perplexity`` is of held-out blocks of the domain, ``accuracy`` and ``macro_f1`` of held-out texts; their intervals are Student's
    over the seeds. ``trainable_share`` counts the language model's, ``classifier_share`` the encoder's without the head, which every
    method trains. A killed row goes on with the next run.

    Raises:
        DataError: a task has too little data. UserError: the memory of a step cannot be measured.
    """
    blocks, texts = generation_task(domain, load_tokenizer(base), settings), classification_task(labelled, settings)
    own, cells = settings.of(method), Cells(checkpoints, progress)
    known = [own.model_dump(mode="json", exclude={"seeds"}), method, seed, device, precision, [i.digest for i in identities]]
    setting = Setting(method, own, device, precision)

    def chosen(task: str, run: Run) -> Chosen:
        def kept(rate: float, at: int) -> dict[str, Any]:
            return cells.get(f"{task} by {method}, rate {rate:g}, seed {at}", known, lambda: run(rate, at))

        return choose(kept, own, own.learning_rates[method] or (0.0,), seed, progress)

    generation = chosen("generation", lambda rate, at: tune_generator(setting, base, blocks, rate=rate, seed=at))
    classes = chosen("classification", lambda rate, at: tune_classifier(setting, encoder, texts, rate=rate, seed=at))
    test = texts[texts["split"] == "test"]
    peak = cells.get("peak memory", known, lambda: _peak(setting, base)) if method != "none" else {}
    return StudyResult(
        study=f"peft_row/{method}",
        metrics=[*_quality(generation, classes, list(test["label"])), *_costs(generation, classes, peak), *_invariants(method, generation, classes)],
        settings={**own.model_dump(mode="json"), "method": method, "rate": generation.rate, "classifier_rate": classes.rate},
        identities=identities, seeds=list(range(seed, seed + len(generation.runs))), remarks=_remarks(generation, classes),
        per_example=_per_example(generation, classes, test),
        tables={"learning_rates": _grids(generation, classes), "labels": texts.groupby(["label", "split"], as_index=False).size()},
    )  # fmt: skip


def choose(run: Run, settings: TuningSettings, rates: Sequence[float], seed: int, progress: Callable[[str], None]) -> Chosen:
    """Every one of ``rates`` under the first seed, then the other seeds at the rate with the lowest finite dev loss."""
    tried = {rate: run(rate, seed) for rate in rates}
    grid = {rate: found["dev_loss"] for rate, found in tried.items()}
    best = min(rates, key=lambda rate: grid[rate] if math.isfinite(grid[rate]) else math.inf)
    progress(f"dev loss by rate: {', '.join(f'{rate:g} {loss:.4f}' for rate, loss in grid.items())}; {best:g} is taken")
    return Chosen(best, [tried[best], *(run(best, seed + i) for i in range(1, settings.seeds))], grid)


def _peak(setting: Setting, base: Path) -> dict[str, Any]:
    request = PeakRequest(
        folder=str(base), method=setting.method, settings=setting.settings, device=setting.device, precision=setting.precision,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    return measure_peak(request).model_dump()


def _over_seeds(name: str, values: Sequence[float], n: int, show: Callable[[float], float] = float, *, higher: bool = True) -> Metric:
    """The mean over the seeds with Student's interval, both passed through ``show``; no interval of one seed."""
    low, high = mean_interval(np.asarray(values))
    ends = {} if math.isnan(low) else {"low": show(low), "high": show(high)}
    return Metric(name=name, value=show(float(np.mean(values))), n=n, higher_is_better=higher, **ends)


def _quality(generation: Chosen, classes: Chosen, truth: list[str]) -> list[Metric]:
    losses = [-float(np.mean(run["scores"])) for run in generation.runs]
    right = [float(np.mean(np.asarray(run["predicted"]) == np.asarray(truth))) for run in classes.runs]
    f1 = [float(f1_score(truth, run["predicted"], average="macro", zero_division=0)) for run in classes.runs]
    return [
        _over_seeds("perplexity", losses, len(generation.runs[0]["scores"]), lambda loss: math.exp(min(loss, 700)), higher=False),
        _over_seeds("accuracy", right, len(truth)), _over_seeds("macro_f1", f1, len(truth)),
    ]  # fmt: skip


def _costs(generation: Chosen, classes: Chosen, peak: dict[str, Any]) -> list[Metric]:
    first, other = generation.runs[0], classes.runs[0]
    timed: dict[str, Any] = {"deterministic": False, "higher_is_better": False}
    counts = {
        "trainable_parameters": first["trainable"], "trainable_share": first["trainable"] / first["base"], "stored_parameters": first["stored"],
        "classifier_parameters": other["trainable"], "classifier_share": other["trainable"] / other["base"],
    }  # fmt: skip
    metrics = [Metric(name=name, value=value, higher_is_better=False) for name, value in counts.items()]
    metrics.append(Metric(name="classifier_seconds", value=classes.mean("seconds"), unit="s", **timed))
    if peak:
        spent = generation.mean("seconds")
        metrics += [
            Metric(name="peak_memory_gb", value=peak["whole_peak"] / GIB, unit="GiB", **timed),
            Metric(name="step_memory_gb", value=peak["step_peak"] / GIB, unit="GiB", **timed),
            Metric(name="training_seconds", value=spent, unit="s", **timed),
            Metric(name="tokens_per_second", value=generation.mean("tokens") / spent, unit="tok/s", deterministic=False),
        ]
    return metrics


def _invariants(method: Method, generation: Chosen, classes: Chosen) -> list[Metric]:
    runs = [*generation.runs, *classes.runs]
    found = {"frozen_changed": sum(run["frozen_changed"] for run in runs), "step0_difference": max(r["step0_difference"] for r in generation.runs)}
    if method == "lora":
        found["merge_difference"] = max(run["merge_difference"] for run in generation.runs)
    counts = {"frozen_changed": sum(run["frozen"] for run in runs)}
    return [Metric(name=name, value=value, n=counts.get(name), higher_is_better=False) for name, value in found.items()]


def _remarks(generation: Chosen, classes: Chosen) -> list[str]:
    remarks = []
    for task, chosen in (("generation", generation), ("classification", classes)):
        edge = len(chosen.grid) > 1 and chosen.rate in (min(chosen.grid), max(chosen.grid))
        remarks += [f"{task}: the chosen rate {chosen.rate:g} is the edge of the grid; a wider one may do better."] if edge else []
        remarks += [f"{task}: the loss at rate {rate:g} is not finite." for rate, loss in chosen.grid.items() if not math.isfinite(loss)]
    return remarks


def _per_example(generation: Chosen, classes: Chosen, test: pd.DataFrame) -> pd.DataFrame:
    """``score``: of a block the mean over the seeds of minus its nats a token, of a text the share of the seeds that labelled it rightly."""
    scores = np.mean([run["scores"] for run in generation.runs], axis=0)
    names = [f"block-{i:03d}" for i in range(len(scores))]
    right = np.mean([np.asarray(run["predicted"]) == test["label"].to_numpy() for run in classes.runs], axis=0)
    return pd.concat(
        [
            pd.DataFrame({"example_id": names, "track": "generation", "group": names, "score": scores}),
            pd.DataFrame({"example_id": list(test["example_id"]), "track": "classification", "group": list(test["group"]), "score": right}),
        ],
        ignore_index=True,
    )


def _grids(generation: Chosen, classes: Chosen) -> pd.DataFrame:
    tasks = {"generation": generation, "classification": classes}
    rows = [(task, rate, loss, rate == chosen.rate) for task, chosen in tasks.items() for rate, loss in chosen.grid.items()]
    return pd.DataFrame(rows, columns=["task", "rate", "dev_loss", "chosen"])
