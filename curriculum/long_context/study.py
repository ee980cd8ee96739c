"""Rotary positions past the training length: perplexity and a passkey under plain RoPE, position interpolation, NTK-aware and YaRN.

Nothing is trained again: the same weights are read under other frequencies. Every method scores the same tokens under the same seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from curriculum.artifacts import DirectoryArtifact
from curriculum.cells import Cells
from curriculum.evaluation.statistics import bootstrap_mean
from curriculum.long_context.passkey import passkey_cell
from curriculum.long_context.perplexity import perplexity_cell, read_text
from curriculum.long_context.scaling import METHODS, frequency_error
from curriculum.long_context.settings import LongContextSettings
from curriculum.plots import draw
from curriculum.results import Metric, StudyResult
from curriculum.transformer.ablation_study import change_of
from curriculum.transformer.attention_study import exponents, growth

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REMARKS = [
    "ratio__X__2x: perplexity at twice the training length under method X over the perplexity that the unchanged model has on the same tokens "
    "through a sliding window of the training length. Scored are the last training length of tokens of a window, so that at 2x each is predicted "
    "from more than one training length of text. Below 1 the longer text helps.",
    "The factor of a method is the ratio of the lengths; of ntk_wide it is twice that. low and high are the outer ends of two intervals: a paired "
    "bootstrap over windows, of the mean over seeds, and Student's t over seeds.",
    "short_ratio__X__2x: the training length read under the factor of twice that, over the same read unchanged: what it costs short texts.",
    "The frequencies' base is scaled down with the training length, so that the slowest pair finishes as small a part of a turn within it as "
    "Llama's does within 2,048 tokens: with Llama's own base the slow pairs of so short a model would hardly turn at all.",
    "The windows are packed text: a document's end may lie inside one, and nothing before it then helps.",
    "The passkey model is another one, trained on keys in noise at the training length alone. A key counts when all its symbols are the likeliest.",
    "attention_memory counts tensors of a forward and backward pass: the scores that naive attention keeps are what FlashAttention does without.",
]


@dataclass(frozen=True)
class Runs:
    """The finished cells, a seed each."""

    text: list[dict[str, Any]]
    keys: list[dict[str, Any]]

    def nats(self, part: str, row: str = "") -> np.ndarray:
        """[seeds, windows]."""
        return np.array([cell[part][row] if row else cell[part] for cell in self.text])

    def right(self, row: str) -> np.ndarray:
        """[seeds, depths, cases], 0 or 1."""
        return np.array([cell["right"][row] for cell in self.keys], dtype=float)


def long_context_study(
    corpus: DirectoryArtifact, settings: LongContextSettings, *, seed: int, cells: Cells, progress: Callable[[str], None]
) -> StudyResult:
    """Train both models under every seed and read them at every length. A killed run goes on with the next cell, and inside a training.

    Raises:
        DataError: the corpus is too short for two windows.
    """
    text, seeds, training = read_text(corpus, settings), list(range(seed, seed + settings.seeds)), cells.folder / "training"
    known = [settings.model_dump(mode="json", exclude={"seeds", "attention"}), text.digest()]
    runs = Runs([], [])
    for at in seeds:
        runs.text.append(cells.get(f"text, seed {at}", known, lambda at=at: perplexity_cell(text, settings, at, training / f"text-{at}", progress)))
        progress(f"seed {at}: perplexity {math.exp(np.mean(runs.text[-1]['sliding'])):.1f} within the training length")
        runs.keys.append(cells.get(f"keys, seed {at}", known, lambda at=at: passkey_cell(settings, at, training / f"keys-{at}", progress)))
        progress(f"seed {at}: {np.mean(runs.keys[-1]['right']['plain 1']):.0%} of the keys at the training length")
    attended = cells.get("attention", settings.attention.model_dump(mode="json"), lambda: _attention(settings, seed, progress))
    memory, table, recalls = pd.DataFrame(attended["rows"]), ratio_table(runs, settings), passkey_table(runs, settings)
    return StudyResult(
        study="long_context_study",
        metrics=[
            *_identity_metrics(runs, settings), _perplexity(runs), *_ratio_metrics(table), *_passkey_metrics(runs, recalls), *_memory_metrics(memory)
        ],
        settings=settings.model_dump(mode="json"), seeds=seeds, remarks=REMARKS, per_example=_per_example(runs),
        tables={"ratios": table, "passkey": recalls, "attention_memory": memory, "exponents": exponents(memory)},
        plots=_plots(table, recalls, memory),
    )  # fmt: skip


def _attention(settings: LongContextSettings, seed: int, progress: Callable[[str], None]) -> dict[str, Any]:
    return {"rows": growth(settings.attention, seed, progress).to_dict("records")}


def ratio_table(runs: Runs, settings: LongContextSettings) -> pd.DataFrame:
    """A row a method and length: perplexity, its ratio to the sliding window's, and what the factor costs at the training length."""
    rows, reference, block = [], runs.nats("sliding"), runs.nats("block")
    for name, method in METHODS.items():
        for times in range(2, settings.stretch + 1):
            nats = runs.nats("long", f"{name} {times}")
            change = change_of(nats, reference)
            row = {"method": name, "times": times, "tokens": times * settings.length, "perplexity": math.exp(nats.mean())}
            row |= {"ratio": math.exp(change["change"]), "low": math.exp(change["low"]), "high": math.exp(change["high"])}
            if method.kind:
                short = change_of(runs.nats("short", f"{name} {times}"), block)
                row |= {f"short_{end}": math.exp(short[key]) for end, key in (("ratio", "change"), ("low", "low"), ("high", "high"))}
            rows.append({**row, "seeds": len(nats), "windows": nats.shape[1]})
    return pd.DataFrame(rows)


def passkey_table(runs: Runs, settings: LongContextSettings) -> pd.DataFrame:
    """A row a method and length: the share of keys recalled, in all and by depth, and what it gains over plain positions."""
    rows = []
    for name in METHODS:
        for times in range(1, settings.stretch + 1):
            right, plain = runs.right(f"{name} {times}"), runs.right(f"plain {times}")
            flat, other = (x.reshape(len(x), -1) for x in (right, plain))
            low, high = bootstrap_mean(flat.mean(0))
            row = {"method": name, "times": times, "tokens": times * settings.length, "recalled": flat.mean(), "low": low, "high": high}
            row |= {f"depth_{depth:g}": share for depth, share in zip(settings.passkey.depths, right.mean((0, 2)), strict=True)}
            gain = change_of(flat, other)
            rows.append({**row, "gain": gain["change"], "gain_low": gain["low"], "gain_high": gain["high"], "cases": flat.size})
    return pd.DataFrame(rows)


def _identity_metrics(runs: Runs, settings: LongContextSettings) -> list[Metric]:
    factors, change = tuple(range(1, settings.stretch + 1)), max(cell["change_at_factor_one"] for cell in runs.text)
    error = frequency_error(settings.width // settings.heads, settings.rope_theta, settings.length, factors)
    return [
        Metric(name="frequency_error", value=error, n=3 * len(factors), higher_is_better=False),
        Metric(name="change_at_factor_1", value=change, n=len(runs.text), higher_is_better=False),
    ]


def _perplexity(runs: Runs) -> Metric:
    nats = runs.nats("sliding")
    ends = dict(zip(("low", "high"), map(math.exp, bootstrap_mean(nats.mean(0))), strict=True))
    return Metric(name="perplexity__sliding", value=math.exp(nats.mean()), n=nats.size, higher_is_better=False, **ends)


def _ratio_metrics(table: pd.DataFrame) -> list[Metric]:
    metrics = []
    for row in table.itertuples():
        place = f"{row.method}__{row.times}x"
        metrics.append(Metric(name=f"ratio__{place}", value=row.ratio, low=row.low, high=row.high, n=row.windows, higher_is_better=False))
        if not math.isnan(row.short_ratio):
            ends = {"low": row.short_low, "high": row.short_high, "n": row.windows}
            metrics.append(Metric(name=f"short_ratio__{place}", value=row.short_ratio, higher_is_better=False, **ends))
    return metrics


def _passkey_metrics(runs: Runs, table: pd.DataFrame) -> list[Metric]:
    metrics = [Metric(name="passkey_lowest_seed", value=float(runs.right("plain 1").mean((1, 2)).min()), n=len(runs.keys))]
    for row in table.itertuples():
        place = f"{row.method}__{row.times}x"
        metrics.append(Metric(name=f"passkey__{place}", value=row.recalled, low=row.low, high=row.high, n=row.cases))
        if row.method != "plain" and row.times > 1:
            metrics.append(Metric(name=f"passkey_gain__{place}", value=row.gain, low=row.gain_low, high=row.gain_high, n=row.cases))
    return metrics


def _memory_metrics(memory: pd.DataFrame) -> list[Metric]:
    """Peak bytes at the longest length over those at the shortest, a form each, and naive over tiled at the longest."""
    peaks = memory.pivot(index="length", columns="form", values="peak_bytes").sort_index()
    metrics = [
        Metric(name=f"memory_growth__{form}", value=float(peaks[form].iloc[-1] / peaks[form].iloc[0]), n=len(peaks), higher_is_better=False)
        for form in peaks
    ]
    return [*metrics, Metric(name="naive_over_tiled_memory", value=float(peaks["naive"].iloc[-1] / peaks["tiled"].iloc[-1]))]


def _per_example(runs: Runs) -> pd.DataFrame:
    seeds, windows = runs.nats("sliding").shape
    names = [f"seed {seed}, window {window}" for seed in range(seeds) for window in range(windows)]
    columns = {f"nats__{row.replace(' ', '_')}x": runs.nats("long", row).ravel() for row in runs.text[0]["long"]}
    return pd.DataFrame({"example_id": names, "nats__sliding": runs.nats("sliding").ravel(), **columns})


def _plots(table: pd.DataFrame, recalls: pd.DataFrame, memory: pd.DataFrame) -> dict[str, bytes]:
    def curves(frame: pd.DataFrame, by: str, x: str, y: str, *, log: bool = False) -> Callable[[Axes], None]:
        def paint(axes: Axes) -> None:
            for name, rows in frame.groupby(by, sort=False):
                axes.plot(rows[x], rows[y], marker="o", markersize=3, label=name)
            if log:
                axes.set_yscale("log")

        return paint

    return {
        "ratio": draw(curves(table, "method", "tokens", "ratio", log=True), title="Past the training length", x="tokens", y="perplexity, ratio"),
        "passkey": draw(curves(recalls, "method", "tokens", "recalled"), title="A key in noise", x="tokens", y="share recalled"),
        "memory": draw(curves(memory, "form", "length", "peak_bytes", log=True), title="Attention, forward and backward", x="tokens", y="peak bytes"),
    }
