"""lm-evaluation-harness over local tasks: the mini-Transformer, a base model, and the base model with its adapter."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from curriculum.adaptation.model import load_adapter, load_base, load_tokenizer
from curriculum.adaptation.settings import AdapterSettings
from curriculum.artifacts import DirectoryArtifact, ModelArtifact
from curriculum.evaluation.harness_models import MiniTransformerLM, SharedPrefixLM
from curriculum.evaluation.harness_tasks import (
    CHOICE,
    CHOICES,
    PERPLEXITY,
    build_multiple_choice,
    held_out_digests,
    held_out_texts,
    name_overlap,
    write_tasks,
)
from curriculum.evaluation.settings import HarnessSettings
from curriculum.evaluation.statistics import clopper_pearson, paired_bootstrap
from curriculum.plots import draw
from curriculum.results import Identity, Metric, StudyResult


def evaluate_models(
    mini: ModelArtifact,
    tokenized: DirectoryArtifact,
    adapter: ModelArtifact,
    domain: pd.DataFrame,
    pydocs: pd.DataFrame,
    settings: HarnessSettings,
    adapter_settings: AdapterSettings,
    *,
    folder: Path,
    base: Identity,
    device: str,
    precision: str,
    seed: int,
    progress: Callable[[str], None],
) -> StudyResult:
    """Perplexity and multiple choice of three models on documents that none of them was trained on.

    Raises:
        DataError: too few documents are held out from both corpora.
        UserError: the adapter was trained on a base other than ``base``.
    """
    held_out = held_out_digests(tokenized.path)
    texts = held_out_texts(domain, pydocs, held_out, n=settings.documents, characters=settings.document_characters)
    trained_on = set(domain.loc[domain["split"] == "train", "doc_id"])
    asked = pydocs.loc[pydocs["digest"].isin(held_out) & ~pydocs["doc_id"].isin(trained_on), "doc_id"]
    questions = build_multiple_choice(pydocs, settings.questions, seed, asked=asked)
    progress(f"{len(texts)} held-out documents, {len(questions)} questions")
    scores: dict[str, pd.DataFrame] = {}
    with tempfile.TemporaryDirectory() as tasks:
        names = write_tasks(Path(tasks), texts, questions)

        def run(name: str, model: LM) -> None:
            scores[name] = run_tasks(model, Path(tasks), names)
            progress(f"{name}: {bits_per_byte(scores[name]):.3f} bits per byte, accuracy {accuracy(scores[name])[0]:.2f}")

        run("mini", MiniTransformerLM(mini.path, context=settings.mini_context, batch_size=32))
        tokenizer = load_tokenizer(folder)
        model = load_adapter(load_base(folder, adapter_settings, device=device, precision=precision), adapter.path, base)
        with _quiet():
            adapted = SharedPrefixLM(
                model.get_base_model(), tokenizer=tokenizer, max_length=settings.context, batch_size=settings.batch_size,
                prefix_token_id=tokenizer.eos_token_id,
            )
        run("adapter", adapted)
        with model.disable_adapter():
            run("base", adapted)
    return _result(scores, questions, settings, base, seed)


def run_tasks(model: LM, tasks: Path, names: list[str]) -> pd.DataFrame:
    """Run the tasks in ``tasks`` on ``model``: a row a document or question.

    Columns: ``example_id``, ``task``, ``log_likelihood`` (nats), ``bytes``, ``words`` (perplexity), ``correct``,
    ``correct_normalised`` (multiple choice; by the likeliest choice, and by the likeliest a character). NaN where they do not apply.
    """
    with _quiet():
        manager = TaskManager(include_path=str(tasks), include_defaults=False)
        results = simple_evaluate(model, tasks=names, task_manager=manager, bootstrap_iters=0, log_samples=True)
    rows = []
    for name in names:
        for sample in results["samples"][name]:
            rows.append(_row(name, sample))
    return pd.DataFrame(rows).sort_values("example_id", ignore_index=True)


def _row(task: str, sample: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"task": task, "log_likelihood": math.nan, "bytes": math.nan, "words": math.nan,
                           "correct": math.nan, "correct_normalised": math.nan}
    if task == PERPLEXITY:
        log_likelihood, size = sample["bits_per_byte"]
        return row | {"example_id": sample["doc"]["document_id"], "log_likelihood": log_likelihood, "bytes": size,
                      "words": sample["word_perplexity"][1]}
    return row | {"example_id": sample["doc"]["question_id"], "correct": sample["acc"], "correct_normalised": sample["acc_norm"]}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The harness logs and draws progress bars of its own; ours go to the asset's log."""
    import datasets

    logger, before = logging.getLogger("lm_eval"), logging.getLogger("lm_eval").level
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(before)
        datasets.enable_progress_bars()


def bits_per_byte(scores: pd.DataFrame) -> float:
    """Bits the model needs for a byte of text: of all documents together, as the harness does."""
    return float(-scores["log_likelihood"].sum() / scores["bytes"].sum() / math.log(2))


def accuracy(scores: pd.DataFrame, column: str = "correct") -> tuple[float, int]:
    """Share of questions answered right, and how many there are."""
    right = scores[column].dropna()
    return float(right.mean()), len(right)


def ratio_interval(numerator: np.ndarray, denominator: np.ndarray, *, seed: int, resamples: int = 2000) -> tuple[float, float]:
    """95% percentile bootstrap of ``sum(numerator) / sum(denominator)`` over examples."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(numerator), (resamples, len(numerator)))
    low, high = np.percentile(numerator[chosen].sum(1) / denominator[chosen].sum(1), [2.5, 97.5])
    return float(low), float(high)


def _bits(nats: float) -> float:
    return nats / math.log(2)


def model_metrics(name: str, scores: pd.DataFrame, *, seed: int) -> list[Metric]:
    """Perplexities and accuracies of one model, each with its interval."""
    texts = scores[scores["task"] == PERPLEXITY]
    nats, metrics = -texts["log_likelihood"].to_numpy(), []
    scales = {"bits_per_byte": ("bytes", _bits), "byte_perplexity": ("bytes", math.exp), "word_perplexity": ("words", math.exp)}
    for metric, (unit, read) in scales.items():
        sizes = texts[unit].to_numpy()
        low, high = ratio_interval(nats, sizes, seed=seed)
        metrics.append(Metric(name=f"{metric}__{name}", value=read(nats.sum() / sizes.sum()), n=len(texts), low=read(low), high=read(high),
                              higher_is_better=False))
    for metric, column in (("accuracy", "correct"), ("accuracy_normalised", "correct_normalised")):
        value, n = accuracy(scores, column)
        low, high = clopper_pearson(round(value * n), n)
        metrics.append(Metric(name=f"{metric}__{name}", value=value, n=n, low=low, high=high))
    return metrics


def _change(scores: dict[str, pd.DataFrame], seed: int) -> list[Metric]:
    texts = {name: s[s["task"] == PERPLEXITY] for name, s in scores.items()}
    rate = {name: (-t["log_likelihood"] / t["bytes"] / math.log(2)).to_numpy() for name, t in texts.items()}
    bits = paired_bootstrap(rate["adapter"], rate["base"], seed=seed)
    right = {name: s.loc[s["task"] == CHOICE, "correct"].to_numpy() for name, s in scores.items()}
    answers = paired_bootstrap(right["adapter"], right["base"], seed=seed)
    return [
        Metric(name="bits_per_byte_change", value=bits.difference, low=bits.low, high=bits.high, n=bits.n, higher_is_better=False),
        Metric(name="accuracy_change", value=answers.difference, low=answers.low, high=answers.high, n=answers.n),
    ]


def _result(
    scores: dict[str, pd.DataFrame], questions: list[dict[str, Any]], settings: HarnessSettings, base: Identity, seed: int
) -> StudyResult:
    metrics = [m for name, table in scores.items() for m in model_metrics(name, table, seed=seed)] + _change(scores, seed)
    metrics += [
        Metric(name="accuracy__random", value=1 / CHOICES, n=len(questions)),
        Metric(name="accuracy__name_overlap", value=name_overlap(questions), n=len(questions)),
    ]
    wide = None
    for name, table in scores.items():
        part = table[["example_id", "task"]].assign(
            **{f"bits_per_byte__{name}": -table["log_likelihood"] / table["bytes"] / math.log(2), f"correct__{name}": table["correct"]}
        )
        wide = part if wide is None else wide.merge(part, on=["example_id", "task"])
    by_name = {m.name: m for m in metrics}
    columns = ("bits_per_byte", "word_perplexity", "accuracy", "accuracy_normalised")
    board = pd.DataFrame([{"model": name, **{c: by_name[f"{c}__{name}"].text() for c in columns}} for name in scores])
    return StudyResult(
        study="lm_eval_report", metrics=metrics, settings=settings.model_dump(mode="json"), identities=[base], seeds=[seed],
        remarks=[
            "every text and question is held out from the corpora of both models, read back from the corpora themselves",
            f"the mini-Transformer reads {settings.mini_context} tokens at most, the others {settings.context}",
            "accuracy is of the likeliest choice, accuracy_normalised of the likeliest a character; bits_per_byte_change is the mean over "
            "documents of adapter minus base",
            "accuracy__random is the level of guessing; accuracy__name_overlap chooses by words shared with the function's name",
        ],
        per_example=wide,
        tables={"models": board, "questions": pd.DataFrame([{**q, "choices": json.dumps(q["choices"])} for q in questions])},
        plots={"models": _plot(by_name, list(scores))},
    )


def _plot(metrics: dict[str, Metric], names: list[str]) -> bytes:
    def paint(axes: Any) -> None:
        for i, name in enumerate(names):
            m = metrics[f"accuracy__{name}"]
            axes.errorbar(i, m.value, yerr=[[m.value - (m.low or 0)], [(m.high or 0) - m.value]], fmt="o", capsize=4)
        axes.axhline(1 / CHOICES, color="grey", linewidth=0.8, label="guessing")
        axes.set_xticks(range(len(names)), names)

    return draw(paint, title="Which summary belongs to this function?", y="accuracy, 95% interval")
