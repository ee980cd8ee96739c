"""The reader measured on questions it never saw, from articles it never saw: scores, by kind and by type of question, and how it came about."""

from __future__ import annotations

import json
import time
from typing import Any

import pandas as pd

from curriculum.artifacts import ModelArtifact
from curriculum.evaluation.statistics import bootstrap_mean, clopper_pearson
from curriculum.reading.dataset import leaked_groups
from curriculum.reading.figures import curve_plot, loss_plot, search_plots
from curriculum.reading.fitting import scores
from curriculum.reading.questions import question_type
from curriculum.reading.reader import Reader
from curriculum.reading.settings import ReaderSettings
from curriculum.results import Identity, Metric, StudyResult


def qa_report(
    reader: ModelArtifact, examples: pd.DataFrame, settings: ReaderSettings, *, seed: int, identities: list[Identity], device: str = "cpu"
) -> StudyResult:
    """F1 and exact match on the test split, by kind and type of question, with the hyper-parameter study and the learning curve.

    This is the only reading of the test split: what was chosen was chosen on dev.
    """
    test = examples[examples["split"] == "test"]
    begun = time.perf_counter()
    found = scores(Reader.load(reader.path, device), test)
    seconds = (time.perf_counter() - begun) / len(test)
    history = json.loads((reader.path / "history.json").read_text())
    trials, curve = pd.DataFrame(history["trials"]), pd.DataFrame(history["curve"])
    by_kind = found.groupby("source")[["f1", "exact_match"]].mean().assign(n=found.groupby("source").size()).reset_index()
    facts, timed, types = reader.facts, {"deterministic": False}, by_type(found)
    metrics = [
        *_overall(found),
        Metric(name="leaked_groups", value=leaked_groups(examples), n=examples["group"].nunique(), higher_is_better=False),
        Metric(name="dev_f1", value=facts["best"]["dev_f1"], n=int((examples["split"] == "dev").sum())),
        Metric(name="seconds_per_question", value=seconds, n=len(test), higher_is_better=False, **timed),
        Metric(name="windows_per_second", value=facts["windows_per_second"], n=facts["windows"], **timed),
        *(Metric(name=name, value=facts[name], n=facts["windows"], higher_is_better=False) for name in ("padding_share", "padding_share_unsorted")),
        *(Metric(name=f"f1__{row.source}", value=float(row.f1), n=int(row.n)) for row in by_kind.itertuples()),
        *_of_types(types), *_of_curve(curve),
    ]
    return StudyResult(
        study="qa_report", metrics=metrics, settings=settings.model_dump(mode="json") | {"chosen": facts["chosen"]}, seeds=[seed],
        identities=identities, per_example=found, remarks=_remarks(facts),
        plots={"loss": loss_plot(history["loss"]), "learning_curve": curve_plot(curve, facts["best"]), **search_plots(trials)},
        tables={
            "hyper_parameters": trials, "learning_curve": curve, "by_kind": by_kind, "by_type": types,
            "worst": found.sort_values("f1").head(12)[["question", "prediction", "gold", "f1"]],
        },
    )  # fmt: skip


def by_type(found: pd.DataFrame) -> pd.DataFrame:
    """F1 and exact match by what a question asks for, the most frequent first: n, each score with its 95% interval."""
    rows = []
    for name, part in found.groupby(found["question"].map(question_type)):
        (low, high), right = bootstrap_mean(part["f1"].to_numpy()), int(part["exact_match"].sum())
        exact_low, exact_high = clopper_pearson(right, len(part))
        rows.append(
            {
                "type": name, "n": len(part), "f1": float(part["f1"].mean()), "f1_low": low, "f1_high": high,
                "exact_match": right / len(part), "exact_match_low": exact_low, "exact_match_high": exact_high,
            }
        )
    return pd.DataFrame(rows).sort_values(["n", "type"], ascending=[False, True], ignore_index=True)


def _of_types(types: pd.DataFrame) -> list[Metric]:
    """The scores of :func:`by_type` where there are ten questions or more; of fewer an interval says nothing."""
    return [
        Metric(name=f"{score}__asked_{row['type']}", value=row[score], low=row[f"{score}_low"], high=row[f"{score}_high"], n=row["n"])
        for row in types[types["n"] >= 10].to_dict("records")
        for score in ("f1", "exact_match")
    ]


def _of_curve(curve: pd.DataFrame) -> list[Metric]:
    """Dev F1 after so many training questions: the learning curve."""
    return [Metric(name=f"dev_f1__after_{int(row.questions)}_questions", value=float(row.dev_f1)) for row in curve.itertuples()]


def _overall(found: pd.DataFrame) -> list[Metric]:
    """F1 with its bootstrap interval, and exact match, a rate, with its exact one."""
    low, high = bootstrap_mean(found["f1"].to_numpy())
    exact_low, exact_high = clopper_pearson(int(found["exact_match"].sum()), len(found))
    return [
        Metric(name="f1", value=float(found["f1"].mean()), low=low, high=high, n=len(found)),
        Metric(name="exact_match", value=float(found["exact_match"].mean()), low=exact_low, high=exact_high, n=len(found)),
    ]


def _remarks(facts: dict[str, Any]) -> list[str]:
    best, how = facts["best"], "stopped early" if facts["stopped_early"] else "ran to its end"
    return [
        f"training {how} after {facts['steps']} of {facts['planned_steps']} steps; the reader is the one of step {best['step']}, "
        f"after {best['questions']} questions, at the best dev F1 ({best['dev_f1']:.3f})",
        f"of the tokens a batch computes {facts['padding_share']:.1%} are padding; in batches of random order they would be "
        f"{facts['padding_share_unsorted']:.1%}",
    ]
