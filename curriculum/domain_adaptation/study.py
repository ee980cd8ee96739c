"""None, DAPT, TAPT and both (Gururangan et al., 2020, https://arxiv.org/abs/2004.10964): perplexity of three texts, and a task's labels.

The vehicle is the causal language model with LoRA. The packaged BERT (MiniLM) comes without the head that fills masks. At some 1,000
tokens a second and one masked token in seven, an arm of half a minute has about 4,000 targets to teach a new one 30,522 entries with:
its loss would say how far the head has come, on every text alike, and neither what the domain taught nor what was forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from curriculum.adaptation.model import load_tokenizer
from curriculum.cells import Cell, Cells, side_by_side
from curriculum.corpora.sides import Sides
from curriculum.domain_adaptation.runs import ARMS, Bench, run_chain
from curriculum.domain_adaptation.settings import DomainAdaptationSettings
from curriculum.domain_adaptation.texts import DOMAIN, TASK, TEXTS, Material, material
from curriculum.evaluation.statistics import mean_interval, paired_bootstrap
from curriculum.plots import draw
from curriculum.results import Identity, Metric, StudyResult
from curriculum.storage import digest_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASE = ("none",)
CHAINS = (BASE, ("dapt", "both"), ("tapt",), ("control",))  # the base is the same under every seed
REMARKS = [
    "The model is a causal one with LoRA in float32, not BERT with masks: the packaged BERT has no head that fills masks, and one trained from "
    "nothing in this budget would measure itself. The order of the arms and what each reads are the paper's; the sizes are far below its.",
    "X_change__ARM is of perplexity, relative, against no adaptation on the same held-out blocks: below zero, the text became easier. low and "
    "high are the outer ends of two intervals: a paired bootstrap over blocks, of the mean over seeds, and Student's t over seeds.",
    "TAPT reads the task's training texts without labels; test texts are never read. Domain notes stand on the side of their questions, so that "
    "no test question is about a note that was read.",
    "The control reads general text for as long as DAPT reads the domain's: what it gains on the domain comes from more training alone, or from "
    "the shape of the blocks. It has seen the kind of text that the general column is measured on, so its fall there is no lack of forgetting.",
    "The task is judged by a linear classifier on the frozen model's mean features, with one penalty search for all arms. The paper fine-tunes "
    "all weights; a linear classifier shows what the features hold, and with some hundred test texts a point is within chance.",
]


class Results:
    """What every arm measured under every seed."""

    def __init__(self, found: dict[int, dict[str, Any]], labelled: pd.DataFrame) -> None:
        self.found = found
        test = labelled[labelled["split"] == "test"]
        self.test, self.truth = test, test["label"].to_numpy()

    def nats(self, arm: str, text: str) -> np.ndarray:
        """Held-out loss, [seeds, blocks]."""
        return np.array([run[arm]["losses"][text] for run in self.found.values()])

    def right(self, arm: str) -> np.ndarray:
        """Whether each test text has its label, [seeds, texts]."""
        return np.array([np.asarray(run[arm]["predicted"]) == self.truth for run in self.found.values()], dtype=float)

    def macro_f1(self, arm: str) -> np.ndarray:
        """[seeds]"""
        return np.array([f1_score(self.truth, run[arm]["predicted"], average="macro", zero_division=0) for run in self.found.values()])

    def mean(self, arm: str, name: str) -> float:
        return float(np.mean([run[arm][name] for run in self.found.values()]))


def domain_adaptation_study(
    domain: Sides, labelled: pd.DataFrame, general: Sides, settings: DomainAdaptationSettings, *, folder: Path, identities: list[Identity],
    device: str, precision: str, seed: int, checkpoints: Path, progress: Callable[[str], None],
) -> StudyResult:  # fmt: skip
    """Every arm under every seed. ``checkpoints`` keeps finished chains of arms, so that a killed run goes on with the next.

    Raises:
        DataError: a text is too small, or a text that is measured stands in one that is trained on.
    """
    texts = material(domain, labelled, general, load_tokenizer(folder), settings)
    bench = Bench(folder, texts, settings, device, precision, checkpoints / "training", progress)
    seeds = list(range(seed, seed + settings.seeds))
    found = _run(bench, Cells(checkpoints, progress), _known(bench, identities), seeds)
    results = Results(found, texts.labelled)
    return StudyResult(
        study="domain_adaptation_study", settings=settings.model_dump(mode="json"), identities=identities, seeds=seeds, remarks=REMARKS,
        metrics=[*_quality(results), *_changes(results), *_control(results), _overlap(texts)],
        per_example=_per_example(results), tables={"arms": arms_table(results), "labels": _labels(texts)}, plots=_plots(results),
    )  # fmt: skip


def _run(bench: Bench, cells: Cells, known: list[Any], seeds: list[int]) -> dict[int, dict[str, Any]]:
    """Every chain of arms under every seed: seed -> arm -> what was measured. The base is measured once and stands under all."""
    chains = [(chain, at) for at in seeds for chain in CHAINS if chain != BASE or at == seeds[0]]
    workers = side_by_side(3.0, bench.device)
    wanted = [
        Cell(f"{' then '.join(chain)}, seed {at}", known, run_chain, (_alone(bench, at, quiet=workers > 1), chain, at)) for chain, at in chains
    ]
    found: dict[int, dict[str, Any]] = {at: {} for at in seeds}
    for (chain, at), runs in zip(chains, cells.get_all(wanted, workers, _said), strict=True):
        for seed in seeds if chain == BASE else [at]:
            found[seed] |= runs
    return found


def _said(_: int, runs: dict[str, Any]) -> str:
    arms = (f"{arm} " + ", ".join(f"{text} {np.mean(run['losses'][text]):.3f}" for text in TEXTS) for arm, run in runs.items())
    return f"{'; '.join(arms)} nats a token"


def _alone(bench: Bench, seed: int, *, quiet: bool) -> Bench:
    """The bench of one seed, whose chains run beside those of the others; steps are only reported where they run here."""
    return replace(bench, checkpoints=bench.checkpoints / str(seed), progress=(lambda line: None) if quiet else bench.progress)


def _known(bench: Bench, identities: list[Identity]) -> list[Any]:
    own = bench.settings.model_dump(mode="json", exclude={"seeds", "domain_source", "classification", "general_source"})
    m = bench.material
    blocks = {f"{side} {name}": b.tolist() for side, all_ in (("train", m.train), ("test", m.test)) for name, b in all_.items()}
    return [own, digest_of([blocks, m.labelled.values.tolist()]), [i.digest for i in identities], bench.device, bench.precision]


def outer_change(new: np.ndarray, old: np.ndarray) -> tuple[float, float, float]:
    """``new`` less ``old``, both [seeds, examples]: the mean, and the outer ends of its intervals over examples and over seeds."""
    over_examples, over_seeds = paired_bootstrap(new.mean(0), old.mean(0)), mean_interval((new - old).mean(1))
    change = float((new - old).mean())  # at once: counts of right labels that balance give zero, which means of thirds need not
    return change, float(np.nanmin([over_examples.low, over_seeds[0]])), float(np.nanmax([over_examples.high, over_seeds[1]]))


def _metric(name: str, change: tuple[float, float, float], n: int, show: Callable[[float], float] = float, *, higher: bool = False) -> Metric:
    value, low, high = map(show, change)
    return Metric(name=name, value=value, low=low, high=high, n=n, higher_is_better=higher)


def _quality(results: Results) -> list[Metric]:
    metrics = []
    for arm in ARMS:
        right = results.right(arm)
        for name, values in (("accuracy", right.mean(1)), ("macro_f1", results.macro_f1(arm))):
            low, high = mean_interval(values)
            ends = {} if math.isnan(low) else {"low": low, "high": high}
            metrics.append(Metric(name=f"{name}__{arm}", value=float(values.mean()), n=right.shape[1], **ends))
    majority = pd.Series(results.truth).value_counts(normalize=True).iloc[0]
    return [*metrics, Metric(name="accuracy__majority", value=float(majority), n=len(results.truth))]


def _changes(results: Results) -> list[Metric]:
    metrics = []
    for arm in (name for name in ARMS if name != "none"):
        for text in TEXTS:
            change = outer_change(results.nats(arm, text), results.nats("none", text))
            blocks = results.nats(arm, text).shape[1]
            metrics.append(_metric(f"{text}_change__{arm}", change, blocks, math.expm1))
            metrics.append(Metric(name=f"{text}_change_high__{arm}", value=math.expm1(change[2]), n=blocks, higher_is_better=False))
        right = results.right(arm)
        metrics.append(_metric(f"accuracy_change__{arm}", outer_change(right, results.right("none")), right.shape[1], higher=True))
    return metrics


def _control(results: Results) -> list[Metric]:
    """DAPT less the control on the domain; both less TAPT on the task's text. Relative, of perplexity; ``_high`` is the outer upper end."""
    pairs = {"domain_over_control": ("dapt", "control", DOMAIN), "task_over_tapt": ("both", "tapt", TASK)}
    metrics = []
    for name, (new, old, text) in pairs.items():
        change = outer_change(results.nats(new, text), results.nats(old, text))
        metrics.append(_metric(name, change, results.nats(new, text).shape[1], math.expm1))
    return metrics


def _overlap(texts: Material) -> Metric:
    """The largest share of a measured text's runs of 13 words that stand in a text trained on."""
    return Metric(name="text_overlap", value=texts.overlap, n=len(TEXTS), higher_is_better=False)


def arms_table(results: Results) -> pd.DataFrame:
    """A row an arm: perplexity of the three texts, accuracy and macro-F1, the mean over the seeds, and the seconds of its reading."""
    rows = []
    for arm, reads in ARMS.items():
        perplexity = {f"{text}_perplexity": math.exp(results.nats(arm, text).mean()) for text in TEXTS}
        quality = {"accuracy": results.right(arm).mean(), "macro_f1": results.macro_f1(arm).mean()}
        rows.append({"arm": arm, "reads": " then ".join(reads) or "nothing", **perplexity, **quality, "seconds": results.mean(arm, "seconds")})
    return pd.DataFrame(rows)


def _labels(texts: Material) -> pd.DataFrame:
    return texts.labelled.groupby(["label", "split"], as_index=False).size()


def _per_example(results: Results) -> pd.DataFrame:
    """A row a block (nats a token) and a row a test text (the share of the seeds that labelled it rightly), a column an arm."""
    parts = []
    for text in TEXTS:
        means = {arm: results.nats(arm, text).mean(0) for arm in ARMS}
        parts.append(pd.DataFrame({"example_id": [f"{text}-{i:03d}" for i in range(len(means["none"]))], "kind": text, **means}))
    right = {arm: results.right(arm).mean(0) for arm in ARMS}
    parts.append(pd.DataFrame({"example_id": list(results.test["example_id"]), "kind": "label", **right}))
    return pd.concat(parts, ignore_index=True)


def _plots(results: Results) -> dict[str, bytes]:
    arms = [arm for arm in ARMS if arm != "none"]

    def changes(axes: Axes) -> None:
        for i, text in enumerate(TEXTS):
            found = [tuple(map(math.expm1, outer_change(results.nats(arm, text), results.nats("none", text)))) for arm in arms]
            errors = [[v - low for v, low, _ in found], [high - v for v, _, high in found]]
            axes.bar(np.arange(len(arms)) + 0.27 * i, [v for v, _, _ in found], 0.27, yerr=errors, label=text, error_kw={"linewidth": 0.8})
        axes.set_xticks(np.arange(len(arms)) + 0.27, arms)
        axes.axhline(0, color="black", linewidth=0.8)

    def quality(axes: Axes) -> None:
        axes.plot(list(ARMS), [results.right(arm).mean() for arm in ARMS], "o", label="mean over seeds")
        for arm in ARMS:
            axes.plot([arm] * len(results.found), results.right(arm).mean(1), ".", color="grey", markersize=4)

    return {
        "perplexity": draw(changes, title="Perplexity against no adaptation", y="relative change"),
        "accuracy": draw(quality, title="The task, by a linear classifier", y="accuracy"),
    }
