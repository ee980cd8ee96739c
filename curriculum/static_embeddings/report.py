"""What the study of static embeddings found, as metrics with intervals, tables and plots."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from curriculum.evaluation.statistics import bootstrap_mean
from curriculum.plots import draw
from curriculum.results import Metric
from curriculum.static_embeddings.models import MODELS, SUBWORD
from curriculum.static_embeddings.scoring import agreement, similarity_bootstrap
from curriculum.static_embeddings.settings import StaticEmbeddingsSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from curriculum.static_embeddings.study import Task

REMARKS = [
    "All models read the same tokens and vocabulary; skip-gram and fastText, ours and gensim's, with the same dimensions, window, negatives, "
    "noise, epochs and learning rate. gensim keeps a little more of the frequent words: sqrt(t / f) + t / f against our sqrt(t / f). "
    "GloVe has its own window and its own epochs, over counts.",
    "Spearman is the mean over seeds, on the pairs that every model knows; several sets are averaged by their covered pairs, and a set with "
    "fewer than 20 is left out. Its interval resamples pairs, not seeds; the table of sets has the lowest and the highest seed.",
    "The packaged pairs and analogies were graded and written by one reader of this project; there is no agreement between raters behind them.",
    "Analogies by 3CosAdd, the three given words excluded from the answers. A question with an unknown word is left out of the accuracy and "
    "counts in the coverage.",
    "Unseen words were taken out of the text, each with another word of its Porter stem left in. unseen_stem: a word of the stem is among the "
    "nearest. unseen_meaning: the share of neighbours, those of the stem left aside, in common with gensim's skip-gram on the whole text, "
    "which has read the word. untrained is the same table of n-grams before training: what spelling gives for nothing.",
    "shuffled_text is skip-gram, one seed, on the words of the text in random order.",
]


@dataclass
class Found:
    """What the cells returned, a list over seeds for each model."""

    runs: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, made: dict[str, dict[str, Any]]) -> None:
        for name, scores in made.items():
            self.runs[name].append(scores)

    def rows(self, model: str, *path: str) -> np.ndarray:
        """[seeds, examples] of what lies at ``path`` in each seed's scores."""
        values = []
        for run in self.runs[model]:
            for step in path:
                run = run[step]
            values.append(run)
        return np.array(values, dtype=float)


def metrics_of(
    task: Task, found: Found, settings: StaticEmbeddingsSettings, chance: dict[str, float], control: str
) -> tuple[list[Metric], pd.DataFrame]:
    """(every metric that training gives, the table of the similarity sets)."""
    similarity, by_set = _similarity(task, found, settings, control)
    return [*similarity, *_analogies(task, found), *_agreements(found), *_unseen(found, chance)], by_set


def _interval(name: str, draws: np.ndarray, n: int) -> Metric:
    low, high = np.percentile(draws[1:], [2.5, 97.5])
    return Metric(name=name, value=float(draws[0]), low=float(low), high=float(high), n=n, deterministic=False)


def _bound(metric: Metric, suffix: str) -> Metric:
    """The lower end of an interval as a metric of its own, which a bar can hold."""
    assert metric.low is not None
    name, model = metric.name.split("__")
    return Metric(name=f"{name}_{suffix}__{model}", value=metric.low, n=metric.n, deterministic=False)


def _similarity(task: Task, found: Found, settings: StaticEmbeddingsSettings, control: str) -> tuple[list[Metric], pd.DataFrame]:
    cosines = {model: found.rows(model, "cosines") for model in (*MODELS, control)}
    draws, by_set = similarity_bootstrap(task.pairs, cosines, settings.resamples, seed=0)
    counted = by_set[(by_set["model"] == MODELS[0]) & by_set["spearman"].notna()]
    n, metrics = int(counted["covered"].sum()), []
    for model in (*MODELS, control):
        metrics.append(_interval(f"spearman__{model}", draws[model], n))
        if model != control:
            metrics.append(_bound(metrics[-1], "low"))
    for model in ("skipgram", "fasttext"):
        metrics.append(_interval(f"spearman_over_gensim__{model}", draws[model] - draws[f"gensim_{model}"], n))
        metrics.append(_bound(metrics[-1], "low"))
    metrics.append(_interval("spearman_over_shuffled__skipgram", draws["skipgram"] - draws[control], n))
    metrics.append(_bound(metrics[-1], "low"))
    metrics.append(Metric(name="coverage__similarity", value=float(np.isfinite(cosines["skipgram"][0]).mean()), n=len(task.pairs)))
    composed = {model: found.rows(model, "all_cosines") for model in SUBWORD}
    for model, values in similarity_bootstrap(task.pairs, composed, settings.resamples, seed=0)[0].items():
        metrics.append(_interval(f"spearman_all_pairs__{model}", values, len(task.pairs)))
    return metrics, by_set


def _mean(name: str, values: np.ndarray) -> Metric:
    low, high = bootstrap_mean(values, resamples=1000)
    return Metric(name=name, value=float(np.mean(values)), low=low, high=high, n=len(values), deterministic=False)


def _analogies(task: Task, found: Found) -> list[Metric]:
    known = (task.questions_Q4 >= 0).all(axis=1)
    metrics = [Metric(name="coverage__analogies", value=float(known.mean()), n=len(known))]
    return metrics + [_mean(f"analogy_accuracy__{model}", found.rows(model, "hits")[:, known].mean(axis=0)) for model in MODELS]


def _agreements(found: Found) -> list[Metric]:
    """Neighbours in common: ours and gensim's at each seed, and gensim's at neighbouring seeds, which is what chance alone moves."""
    near, metrics = {model: [run["near"] for run in found.runs[model]] for model in MODELS}, []
    for model in ("skipgram", "fasttext"):
        ours, theirs = near[model], near[f"gensim_{model}"]
        with_gensim = [agreement(a, b) for a, b in zip(ours, theirs, strict=True)]
        metrics.append(_mean(f"neighbours_shared_with_gensim__{model}", np.mean(with_gensim, axis=0)))
        if len(theirs) > 1:
            between = [agreement(a, b) for a, b in itertools.pairwise(theirs)]
            metrics.append(_mean(f"neighbours_shared_between_seeds__gensim_{model}", np.mean(between, axis=0)))
    return metrics


def _unseen(found: Found, chance: dict[str, float]) -> list[Metric]:
    metrics = [Metric(name=f"unseen_{measure}__chance", value=value) for measure, value in chance.items()]
    for model in SUBWORD:
        metrics.append(_mean(f"unseen_nonzero__{model}", found.rows(model, "unseen", "nonzero").mean(axis=0)))
    for measure in ("stem", "meaning"):
        trained = {model: found.rows(model, "unseen", measure).mean(axis=0) for model in SUBWORD}
        before = found.rows("fasttext", "untrained", measure).mean(axis=0)
        metrics += [_mean(f"unseen_{measure}__{model}", values) for model, values in {**trained, "untrained": before}.items()]
        gain = _mean(f"unseen_{measure}_gain__fasttext", trained["fasttext"] - before)
        over_chance = _mean(f"unseen_{measure}_over_chance__fasttext", trained["fasttext"] - chance[measure])
        metrics += [gain, _bound(gain, "low"), over_chance, _bound(over_chance, "low")]
    return metrics


def tables_of(task: Task, found: Found, settings: StaticEmbeddingsSettings) -> dict[str, pd.DataFrame]:
    """Neighbours of shown words and of unseen words, analogies by section, training cost."""
    shown = [{"word": word, "model": model, "nearest": ", ".join(near)} for model in MODELS for word, near in found.runs[model][0]["shown"].items()]
    unseen = [
        {"word": word, "model": model, "nearest": ", ".join(near)}
        for model, place in (("fasttext", "unseen"), ("untrained", "untrained"), ("gensim_fasttext", "unseen"))
        for word, near in zip(task.unseen[:15], found.runs[model.replace("untrained", "fasttext")][0][place]["nearest"], strict=False)
    ]
    cost = [
        {"model": model, "seed": number, "cpu_seconds": run["seconds"], "last_loss": run["losses"][-1] if run["losses"] else np.nan}
        for model in MODELS for number, run in enumerate(found.runs[model])
    ]
    return {
        "neighbours": pd.DataFrame(shown, columns=["word", "model", "nearest"]),
        "unseen": pd.DataFrame(unseen, columns=["word", "model", "nearest"]),
        "analogies": _sections(task, found), "cost": pd.DataFrame(cost),
    }


def _sections(task: Task, found: Found) -> pd.DataFrame:
    known, rows = (task.questions_Q4 >= 0).all(axis=1), []
    hits = {model: found.rows(model, "hits").mean(axis=0) for model in MODELS}
    for (name, section), members in task.analogies.groupby(["set", "section"], sort=False).indices.items():
        inside = members[known[members]]
        scores = {model: float(values[inside].mean()) if len(inside) else np.nan for model, values in hits.items()}
        rows.append({"set": name, "section": section, "questions": len(members), "covered": len(inside), **scores})
    return pd.DataFrame(rows)


def per_example(task: Task, found: Found) -> pd.DataFrame:
    """One row a pair, a question, a word taken out: means over seeds, in columns that the other kinds leave empty."""
    pairs = pd.DataFrame({"example_id": "pair/" + task.pairs["set"] + "/" + task.pairs["word1"] + "-" + task.pairs["word2"], "kind": "pair"})
    joined = task.analogies[["set", "section", *"abcd"]].agg("/".join, axis=1)
    questions = pd.DataFrame({"example_id": "analogy/" + joined, "kind": "analogy"})
    unseen = pd.DataFrame({"example_id": [f"unseen/{word}" for word in task.unseen], "kind": "unseen"})
    for model in MODELS:
        pairs[f"cosine__{model}"] = found.rows(model, "cosines").mean(axis=0)
        questions[f"solved__{model}"] = found.rows(model, "hits").mean(axis=0)
    for model in SUBWORD:
        for measure in ("stem", "meaning"):
            unseen[f"{measure}__{model}"] = found.rows(model, "unseen", measure).mean(axis=0)
    return pd.concat([pairs, questions, unseen], ignore_index=True).drop_duplicates("example_id", ignore_index=True)


def plots_of(found: Found, metrics: list[Metric]) -> dict[str, bytes]:
    """Spearman with its interval a model, and the losses of ours."""
    named = {metric.name: metric for metric in metrics}

    def bars(axes: Axes) -> None:
        shown = [named[f"spearman__{model}"] for model in (*MODELS, "shuffled_text")]
        values = np.array([metric.value for metric in shown])
        ends = np.array([[metric.value - metric.low, metric.high - metric.value] for metric in shown]).T
        axes.errorbar(values, range(len(shown)), xerr=np.maximum(ends, 0), fmt="o", capsize=3)
        axes.set_yticks(range(len(shown)), [metric.name.split("__")[1] for metric in shown], fontsize=8)
        axes.axvline(0, color="grey", linewidth=0.8)

    def losses(axes: Axes) -> None:
        for model in ("skipgram", "fasttext"):
            for number, run in enumerate(found.runs[model]):
                axes.plot(range(1, len(run["losses"]) + 1), run["losses"], color={"skipgram": "C0", "fasttext": "C1"}[model],
                          label=None if number else model)

    return {
        "spearman": draw(bars, title="Word similarity, 95% over pairs", x="Spearman"),
        "loss": draw(losses, title="Negative sampling, every seed", x="epoch", y="nats a pair"),
    }
