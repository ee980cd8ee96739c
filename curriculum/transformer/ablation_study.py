"""One Transformer with one part changed at a time, at equal corpus, tokens, optimizer and budget: what each choice costs or gains.

Every row is compared with its group's reference on the same held-out blocks and under the same seeds, so that neither hard text
nor a lucky start decides. A change counts as told apart only where two intervals leave zero out: over the blocks and over the seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from curriculum.artifacts import DirectoryArtifact
from curriculum.cells import Cell, Cells, side_by_side
from curriculum.evaluation.statistics import bootstrap_mean, mean_interval, paired_bootstrap
from curriculum.results import Metric, StudyResult
from curriculum.storage import digest_of
from curriculum.transformer.ablation_cells import Text, Variant, cell_key, read_text, step_seconds, train_cell, variants
from curriculum.transformer.ablation_plots import draw_all
from curriculum.transformer.ablation_probes import PROBES
from curriculum.transformer.settings import AblationSettings

REMARKS = [
    "All rows read the same tokens in the same order under one seed, with one learning rate and one schedule for all, chosen on the "
    "validation loss of the reference; a part that wants another rate (post-norm is the known case) is not given it. The budget is small: "
    "every row is early in its training, and a ranking here is one of early progress. Rows with dropout read a small corpus many times over.",
    "change__X is the loss of X less that of its group's reference on the same blocks and seeds: below zero, X is better. low and high are "
    "the outer ends of two intervals: a paired bootstrap over blocks, of the mean over seeds, and Student's t over seeds.",
    "past_change is on the same tokens twice: read in one window of several training lengths, less read in blocks of the training length. "
    "Below zero, the model gains from context longer than it was trained on. Learned positions cannot be read past their table: no figure.",
    "Gated and plain blocks, and a dense block and the experts a token uses, have equal weights but for the router's. Experts store more. "
    "Both routed rows keep the z-loss; only the balancing loss is taken away.",
    "Post-norm rows have a norm after the embedding, as BERT has, and no last one: the number of weights is the same. They start from the "
    "same small weights (0.02); tried by itself, a Xavier start at a third of the rate took post-norm further than these rows get.",
    "The over-fitting gap is held-out loss less training loss, both without dropout, on the whole small corpus; its intervals are over seeds.",
    "Tokens per second are of training steps of the activations taken in turn; everything else about speed is in benchmarks/.",
]


@dataclass(frozen=True)
class Runs:
    """Every finished cell by row and seed, and what was timed."""

    rows: list[Variant]
    seeds: list[int]
    cells: dict[tuple[str, int], dict[str, Any]]
    step_seconds: dict[str, list[float]]

    def nats(self, label: str) -> np.ndarray:
        """Held-out loss, [seeds, blocks], nats a token."""
        return np.array([self.cells[label, seed]["nats"] for seed in self.seeds])

    def values(self, label: str, name: str) -> np.ndarray:
        """What the cells of a row measured as ``name``, a seed each."""
        return np.array([self.cells[label, seed][name] for seed in self.seeds])

    def reference(self, row: Variant) -> str:
        """The label of what ``row`` is compared with."""
        return next(other.label for other in self.rows if other.group == row.group)

    def having(self, name: str) -> list[Variant]:
        """The rows whose cells measured ``name``; the shared reference appears once a group."""
        return [row for row in self.rows if name in self.cells[row.label, self.seeds[0]]]


def ablation_study(
    corpus: DirectoryArtifact, settings: AblationSettings, *, seed: int, checkpoints: Path, progress: Callable[[str], None]
) -> StudyResult:
    """Every row under every seed. ``checkpoints`` keeps finished cells, and is where a killed run goes on."""
    text, rows, seeds = read_text(corpus, settings), variants(settings), list(range(seed, seed + settings.seeds))
    cells = run_cells(text, rows, settings, seeds, checkpoints, progress)
    timed = step_seconds(text, [row for row in rows if row.group == "activation"], settings, seed)
    runs = Runs(rows, seeds, cells, timed)
    table = rows_table(runs)
    config = rows[0].config(settings, text.vocab_size)
    metrics = [
        *(Metric(name=name, value=probe(config, seed), higher_is_better=False) for name, probe in PROBES.items()),
        *_row_metrics(table, len(text.test)), *_conservation(runs, text, settings), *_position_metrics(runs), *_dropout_metrics(runs),
        *_expert_metrics(runs), *_speed_metrics(runs, settings),
    ]  # fmt: skip
    return StudyResult(
        study="ablation_study", metrics=metrics, settings=settings.model_dump(mode="json"), seeds=seeds, remarks=REMARKS,
        per_example=_per_example(runs), tables={"rows": table, "curves": _curves(runs), "blocks": _blocks(runs)}, plots=draw_all(runs, settings),
    )  # fmt: skip


def run_cells(
    text: Text, rows: list[Variant], settings: AblationSettings, seeds: list[int], checkpoints: Path, progress: Callable[[str], None]
) -> dict[tuple[str, int], dict[str, Any]]:
    """Train what is not kept from before, a cell a thread; rows that are one configuration are one cell, and seeds are taken in turn."""
    digest, wanted, users = text.digest(), {}, {}
    for seed in seeds:
        for row in rows:
            key = cell_key(digest, row, settings, text.vocab_size, seed)
            own = digest_of(key)
            users.setdefault(own, []).append((row.label, seed))
            if own not in wanted:
                given = (text, row, settings, seed, checkpoints / f"training-{own[:20]}")
                wanted[own] = Cell(f"{row.label}, seed {seed}", key, train_cell, given)
    cells = Cells(checkpoints, progress).get_all(
        list(wanted.values()), side_by_side(), lambda _, cell: f"{np.mean(cell['nats']):.3f} nats a token in {cell['seconds']:.0f} s"
    )
    return {user: cell for own, cell in zip(wanted, cells, strict=True) for user in users[own]}


def change_of(new: np.ndarray, old: np.ndarray) -> dict[str, float]:
    """``new`` less ``old``, both [seeds, blocks]: mean, its interval over blocks (of the mean over seeds), and over seeds."""
    blocks, over_seeds = paired_bootstrap(new.mean(0), old.mean(0)), mean_interval((new - old).mean(1))
    return {
        "change": blocks.difference, "block_low": blocks.low, "block_high": blocks.high, "seed_low": over_seeds[0], "seed_high": over_seeds[1],
        "low": min(blocks.low, over_seeds[0]), "high": max(blocks.high, over_seeds[1]),
    }  # fmt: skip


def rows_table(runs: Runs) -> pd.DataFrame:
    """The study's table, a row each: size, held-out loss, and the change against the group's reference."""
    found = []
    for row in runs.rows:
        nats, reference = runs.nats(row.label), runs.reference(row)
        cell, low_high = runs.cells[row.label, runs.seeds[0]], bootstrap_mean(nats.mean(0))
        line = {
            "group": row.group, "row": row.label, "parameters": cell["parameters"], "active_parameters": cell["active_parameters"],
            "nats": float(nats.mean()), "nats_low": low_high[0], "nats_high": low_high[1],
        }  # fmt: skip
        if row.label != reference:
            change = change_of(nats, runs.nats(reference))
            line |= {**change, "told_apart": bool(change["low"] > 0 or change["high"] < 0)}
            line["pairing"] = float(np.corrcoef(nats.mean(0), runs.nats(reference).mean(0))[0, 1])
        for when in ("before", "after"):  # of the last block, in gradients of the first
            gradients = runs.values(row.label, f"gradients_{when}")
            line[f"gradient_tilt_{when}"] = float((gradients[:, -1] / gradients[:, 0]).mean())
        found.append({**line, "seconds": float(runs.values(row.label, "seconds").mean())})
    return pd.DataFrame(found)


def _row_metrics(table: pd.DataFrame, blocks: int) -> list[Metric]:
    metrics = []
    for row in table.itertuples():
        metrics.append(_loss(f"nats__{row.row}", row.nats, row.nats_low, row.nats_high, blocks))
        if not np.isnan(row.change):
            metrics.append(_loss(f"change__{row.row}", row.change, row.low, row.high, blocks))
        if row.group == "norm":
            metrics.append(Metric(name=f"gradient_tilt__{row.row}", value=row.gradient_tilt_before, higher_is_better=False))
    return [*metrics, Metric(name="lowest_pairing", value=float(table["pairing"].min()), n=int(table["pairing"].notna().sum()))]


def _loss(name: str, value: float, low: float, high: float, n: int) -> Metric:
    return Metric(name=name, value=float(value), low=float(low), high=float(high), n=n, unit="nats/token", higher_is_better=False)


def _conservation(runs: Runs, text: Text, settings: AblationSettings) -> list[Metric]:
    """What has to be equal for the comparisons to be fair, and that no row sees the future."""
    size = {row.label: runs.cells[row.label, runs.seeds[0]] for row in runs.rows}
    activations = [size[row.label]["parameters"] for row in runs.rows if row.group == "activation"]
    saved = (size["untied"]["parameters"] - size["tied"]["parameters"]) / (text.vocab_size * settings.width)
    active = size["balanced"]["active_parameters"] / size["dense"]["active_parameters"] - 1
    return [
        Metric(name="activation_parameter_spread", value=(max(activations) - min(activations)) / min(activations), higher_is_better=False),
        Metric(name="tables_saved_by_tying", value=saved), Metric(name="active_parameter_difference", value=abs(active), higher_is_better=False),
        Metric(name="stored_over_dense", value=size["balanced"]["parameters"] / size["dense"]["parameters"], higher_is_better=False),
        Metric(name="mask_leak", value=max(cell["mask_leak"] for cell in runs.cells.values()), n=len(runs.cells), higher_is_better=False),
    ]  # fmt: skip


def _position_metrics(runs: Runs) -> list[Metric]:
    labels = {row.label for row in runs.rows if row.group == "position"}
    metrics = []
    for row in runs.having("past_whole"):
        if row.label in labels:
            change = change_of(runs.values(row.label, "past_whole"), runs.values(row.label, "past_cut"))
            windows = runs.values(row.label, "past_whole").shape[1]
            metrics.append(_loss(f"past_change__{row.label}", change["change"], change["low"], change["high"], windows))
    refused = sum("refused" in runs.cells["learned", seed] for seed in runs.seeds)
    return [*metrics, Metric(name="learned_refused", value=refused / len(runs.seeds), n=len(runs.seeds))]


def _dropout_metrics(runs: Runs) -> list[Metric]:
    metrics, none = [], None
    for row in runs.having("training_nats"):
        gap = runs.nats(row.label).mean(1) - runs.values(row.label, "training_nats")
        none = gap if none is None else none
        metrics.append(_over_seeds(f"overfitting_gap__{row.label}", gap))
        if none is not gap:
            metrics.append(_over_seeds(f"gap_change__{row.label}", gap - none))
    return metrics


def _expert_metrics(runs: Runs) -> list[Metric]:
    metrics = []
    for row in runs.having("entropy"):
        entropy = runs.values(row.label, "entropy")
        low, high = mean_interval(entropy.mean(1))
        loads = (("smallest_load", runs.values(row.label, "smallest_load").min()), ("largest_load", runs.values(row.label, "largest_load").max()))
        metrics += [
            Metric(name=f"load_entropy__{row.label}", value=float(entropy.mean()), low=low, high=high, n=len(entropy)),
            Metric(name=f"lowest_load_entropy__{row.label}", value=float(entropy.min()), n=entropy.size),
            *(Metric(name=f"{name}__{row.label}", value=float(value), n=entropy.size) for name, value in loads),
        ]
    return metrics


def _speed_metrics(runs: Runs, settings: AblationSettings) -> list[Metric]:
    tokens, metrics = settings.batch_size * settings.length, []
    for label, seconds in runs.step_seconds.items():
        quartiles = np.percentile(seconds, [75, 50, 25])
        low, value, high = (float(tokens / quartile) for quartile in quartiles)  # the middle half of the rounds, not an interval of the mean
        metrics.append(Metric(name=f"tokens_per_second__{label}", value=value, low=low, high=high, n=len(seconds), deterministic=False))
    return metrics


def _over_seeds(name: str, values: np.ndarray) -> Metric:
    return _loss(name, values.mean(), *mean_interval(values), len(values))


def _per_example(runs: Runs) -> pd.DataFrame:
    names = [f"seed {seed}, block {block}" for seed in runs.seeds for block in range(runs.nats(runs.rows[0].label).shape[1])]
    return pd.DataFrame({"example_id": names, **{f"nats__{row.label}": runs.nats(row.label).ravel() for row in runs.rows}})


def _curves(runs: Runs) -> pd.DataFrame:
    """Held-out loss on the way, a step each: the validation blocks, by row and seed."""
    found = [
        {"group": row.group, "row": row.label, "seed": seed, "step": step, "nats": nats}
        for row in runs.rows for seed in runs.seeds for step, nats in runs.cells[row.label, seed]["curve"]
    ]  # fmt: skip
    return pd.DataFrame(found)


def _blocks(runs: Runs) -> pd.DataFrame:
    """Of every Transformer block: gradient norms before and after training, and the experts' load where there are experts."""
    found = []
    for row in runs.rows:
        for seed in runs.seeds:
            cell = runs.cells[row.label, seed]
            for number, (before, after) in enumerate(zip(cell["gradients_before"], cell["gradients_after"], strict=True)):
                load = {name: cell[name][number] for name in ("entropy", "smallest_load", "largest_load") if name in cell}
                found.append({"group": row.group, "row": row.label, "seed": seed, "block": number + 1,
                              "gradient_before": before, "gradient_after": after, **load})  # fmt: skip
    return pd.DataFrame(found)
