"""Whether the verifier knows support from its absence on claims of another making than those it was trained on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from curriculum.cells import Cells
from curriculum.errors import DataError
from curriculum.grounding.claim_sets import COLUMNS, read_claims
from curriculum.grounding.settings import VerifierSettings
from curriculum.grounding.similarity import containment, cosine
from curriculum.grounding.synthesis import training_groups
from curriculum.grounding.transfer_settings import TransferSettings
from curriculum.grounding.verifier import SupportVerifier
from curriculum.plots import draw
from curriculum.results import Metric, StudyResult
from curriculum.storage import digest_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MADE = "made"
SCORERS = ("support", "cosine", "containment")


def made_claims(examples: pd.DataFrame, settings: VerifierSettings, *, seed: int) -> pd.DataFrame:
    """Claims made from the test questions as the training ones were from theirs; columns as :func:`read_claims` gives them."""
    groups = training_groups(
        examples[examples["split"] == "test"], words=settings.window_words, per_example=settings.sentence_claims, seed=seed
    )
    rows = [(*pair, bool(label), MADE) for group in groups for pair, label in zip(group.pairs, group.labels, strict=True)]
    return pd.DataFrame(rows, columns=COLUMNS)


def name_of(source: str) -> str:
    """The name of a set in metrics: of its file or folder, in letters, digits and underscores."""
    return re.sub(r"\W+", "_", Path(source.partition(":")[2]).name.split(".")[0]).strip("_").lower()


def named_sets(made: pd.DataFrame, sources: Sequence[str], folder: Callable[[str], Path]) -> dict[str, pd.DataFrame]:
    """``made`` and the sets of ``sources`` by name; ``folder`` finds the local file or folder of a source.

    Raises:
        DataError: two sets have one name, or one cannot be read.
    """
    sets = {MADE: made}
    for source in sources:
        name = name_of(source)
        if name in sets:
            raise DataError(f"verifier_transfer.sets: {source} is the second set called '{name}'; rename its file or folder")
        sets[name] = read_claims(folder(source))
    return sets


def verifier_transfer_study(
    verifier: SupportVerifier,
    sets: Mapping[str, pd.DataFrame],
    settings: TransferSettings,
    *,
    encoder: Path,
    encoder_name: str,
    cells: Cells,
    version: str,
    seed: int = 0,
    device: str = "cpu",
) -> StudyResult:
    """For each set: AUC of the verifier, of the cosine of ``encoder``'s embeddings and of token containment, and balanced accuracy.

    ``auc__SET`` is the verifier's, ``auc_low__SET`` the lower bound of its 95% interval over passages: claims about one passage are
    not independent. ``balanced_accuracy__SET`` is at the verifier's own threshold, which was chosen on other claims. ``version`` names
    the verifier; ``encoder_name`` the encoder: finished sets are kept by them.
    """
    scored = []
    for name, rows in sets.items():
        sample = rows.sample(min(len(rows), settings.rows), random_state=seed).sort_index().reset_index(drop=True)
        identity = [version, encoder_name, digest_of(sample.to_dict("records"))]
        kept = cells.get(f"claims of {name}", identity, partial(_score, verifier, sample, encoder, device))
        scored.append(sample.assign(set=name, example_id=[f"{name}-{i:05d}" for i in range(len(sample))], **kept))
        cells.progress(f"{name}: AUC {roc_auc_score(scored[-1]['supported'], scored[-1]['support']):.3f} on {len(sample)} claims")
    metrics = [metric for rows in scored for metric in _metrics(rows, verifier.threshold, settings.resamples, seed)]
    everything = pd.concat(scored, ignore_index=True)
    correct = ((everything["support"] >= verifier.threshold) == everything["supported"]).astype(float)
    return StudyResult(
        study="verifier_transfer_study", metrics=metrics, settings=settings.model_dump(mode="json"), seeds=[seed],
        remarks=_remarks(metrics, list(sets)), per_example=everything.drop(columns=["passage", "claim"]).assign(correct=correct),
        tables={"sets": _table(metrics, sets), "kinds": _kinds(everything, verifier.threshold)}, plots={"auc": _plot(metrics, list(sets))},
    )  # fmt: skip


def _score(verifier: SupportVerifier, rows: pd.DataFrame, encoder: Path, device: str) -> dict[str, list[float]]:
    pairs = list(zip(rows["passage"], rows["claim"], strict=True))
    values = (verifier.support(pairs), cosine(pairs, encoder, device), containment(pairs))
    return {name: np.asarray(found, dtype=float).tolist() for name, found in zip(SCORERS, values, strict=True)}


def _metrics(rows: pd.DataFrame, threshold: float, resamples: int, seed: int) -> list[Metric]:
    name, labels = rows["set"].iloc[0], rows["supported"].to_numpy(dtype=bool)
    found = []
    for scorer in SCORERS:
        values = rows[scorer].to_numpy(dtype=float)
        low, high = auc_interval(labels, values, rows["passage"].to_numpy(), resamples=resamples, seed=seed)
        suffix = "" if scorer == "support" else f"__{scorer}"
        found.append(Metric(name=f"auc__{name}{suffix}", value=float(roc_auc_score(labels, values)), n=len(rows), low=low, high=high))
        if not suffix:
            found.append(Metric(name=f"auc_low__{name}", value=low, n=len(rows)))
    decided = rows["support"].to_numpy() >= threshold
    found.append(Metric(name=f"balanced_accuracy__{name}", value=float(balanced_accuracy_score(labels, decided)), n=len(rows)))
    return found


def auc_interval(labels: np.ndarray, values: np.ndarray, passages: np.ndarray, *, resamples: int, seed: int) -> tuple[float, float]:
    """95% percentile interval of the AUC of ``values`` [n] for ``labels`` [n], whole ``passages`` [n] drawn again with replacement.

    Raises:
        DataError: one label occurs with one passage alone, so that nothing can be drawn again.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(passages == passage) for passage in dict.fromkeys(passages)]
    if min(sum(bool((labels[m] == label).any()) for m in members) for label in (True, False)) < 2:
        raise DataError("each label needs claims about two passages at least; give the set more rows")
    drawn: list[float] = []
    while len(drawn) < resamples:
        chosen = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        if 0 < labels[chosen].sum() < len(chosen):
            drawn.append(float(roc_auc_score(labels[chosen], values[chosen])))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _table(metrics: list[Metric], sets: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    by_name = {m.name: m for m in metrics}
    return pd.DataFrame(
        [
            {
                "set": name, "claims": by_name[f"auc__{name}"].n, "of": len(sets[name]), "AUC": by_name[f"auc__{name}"].text(),
                "AUC of cosine": by_name[f"auc__{name}__cosine"].text(), "AUC of containment": by_name[f"auc__{name}__containment"].text(),
                "balanced accuracy": round(by_name[f"balanced_accuracy__{name}"].value, 3),
            }
            for name in sets
        ]
    )  # fmt: skip


def _kinds(rows: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """By set and kind: how many, and the share that the verifier calls supported."""
    called = rows.assign(called=rows["support"] >= threshold).groupby(["set", "kind"], sort=True)
    return called.agg(n=("called", "size"), supported=("supported", "mean"), called_supported=("called", "mean")).reset_index()


def _plot(metrics: list[Metric], names: list[str]) -> bytes:
    by_name = {m.name: m for m in metrics}

    def paint(axes: Axes) -> None:
        for shift, scorer in enumerate(SCORERS):
            found = [by_name[f"auc__{name}" + ("" if scorer == "support" else f"__{scorer}")] for name in names]
            heights = [m.value for m in found]
            spread = [[m.value - m.low for m in found], [m.high - m.value for m in found]]  # type: ignore[operator]
            axes.bar(np.arange(len(names)) + 0.27 * (shift - 1), heights, 0.25, yerr=np.maximum(spread, 0), label="verifier" if not shift else scorer)
        axes.axhline(0.5, color="grey", linestyle="--")
        axes.set_xticks(np.arange(len(names)), names)
        axes.set_ylim(0, 1)
        axes.legend()

    return draw(paint, title="Support told from its absence", y="AUC, 95% over passages")


def _remarks(metrics: list[Metric], names: list[str]) -> list[str]:
    low = {name: next(m.value for m in metrics if m.name == f"auc_low__{name}") for name in names}
    above = [name for name in names if low[name] > 0.5]
    return [
        f"Above chance (the interval of the AUC lies above 0.5) on {', '.join(above) or 'no set'}"
        + (f", not on {', '.join(n for n in names if n not in above)}." if len(above) < len(names) else "."),
        f"'{MADE}' claims were made from test questions as the training claims were from theirs; all other sets are of another making.",
    ]
