"""QLoRA at one small budget with the rank and the place of its adapters varied, over domains: what each gains there, and forgets elsewhere.

Every fit starts from the same NF4 base, reads the same blocks in the same order, and is measured on the same held-out blocks of
every text, so that its change is paired. The rank is varied on all linear layers, the place at one rank: a cross, not a grid.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoConfig

from curriculum.adaptation.ledger import ModelShape, adapter_parameters
from curriculum.adaptation.model import add_adapter, block_losses, load_base, load_tokenizer, trainable
from curriculum.adaptation.settings import AdapterSettings
from curriculum.adaptation.sweep_settings import SweepSettings
from curriculum.adaptation.text import token_blocks
from curriculum.adaptation.training import train
from curriculum.cells import Cell, Cells, side_by_side
from curriculum.corpora.sides import Sides, overlap
from curriculum.evaluation.statistics import PairedComparison, paired_bootstrap
from curriculum.plots import draw
from curriculum.results import Identity, Metric, StudyResult
from curriculum.storage import digest_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GENERAL = "general"
REMARKS = [
    "Every fit reads the same few blocks; a ranking here is one of early progress at one learning rate, which no row has been tuned for. "
    "alpha is one for all ranks, so that a higher rank is scaled down by alpha / rank.",
    "A change is of perplexity, relative, against the NF4 base on the same blocks: -0.2 is a fifth lower. low and high are a paired bootstrap "
    "over blocks, of one seed. seed_spread says how far two seeds of the reference lie apart, in nats: differences near it mean nothing.",
    "Forgetting is the change on text that a fit has not trained on: the general source where the profile names one, else the held-out text "
    "of the other domains. Those are English about software too, so that it may well fall; a general source of plain English is harder.",
    "Test texts that share more than a twentieth of their runs of 13 words with their domain's training text are not measured: documents that "
    "are no near-duplicates can still share whole paragraphs. The table texts counts them.",
]


@dataclass(frozen=True)
class Row:
    """One way to put the adapters."""

    rank: int
    targets: str

    @property
    def name(self) -> str:
        return f"r{self.rank}_{self.targets}"


@dataclass(frozen=True)
class Runs:
    """Held-out losses, nats a token: ``base[text]`` and ``fits[domain, row, seed]["losses"][text]``, both [blocks]."""

    base: dict[str, list[float]]
    fits: dict[tuple[str, str, int], dict[str, Any]]
    rows: list[Row]
    reference: Row
    domains: list[str]
    seed: int

    def forgotten(self, domain: str) -> list[str]:
        """The texts on which a fit on ``domain`` is asked what it forgot."""
        return [GENERAL] if GENERAL in self.base else [name for name in self.domains if name != domain]

    def change(self, domain: str, row: Row, texts: list[str]) -> PairedComparison:
        """Nats a token after less before, over the blocks of ``texts``."""
        after = np.concatenate([self.fits[domain, row.name, self.seed]["losses"][text] for text in texts])
        return paired_bootstrap(after, np.concatenate([self.base[text] for text in texts]), seed=self.seed)

    def between(self, new: Row, old: Row) -> PairedComparison:
        """``new`` less ``old`` on their own domains' text, over the blocks of all domains, in nats a token."""
        sides = [np.concatenate([self.fits[d, row.name, self.seed]["losses"][d] for d in self.domains]) for row in (new, old)]
        return paired_bootstrap(*sides, seed=self.seed)


def rows_of(settings: SweepSettings) -> tuple[list[Row], Row]:
    """The cross: every rank on the reference's modules, every set of modules at the reference's rank; and the reference."""
    reference = Row(settings.reference_rank, settings.reference_targets)
    ranks = [Row(rank, settings.reference_targets) for rank in settings.ranks]
    return [*ranks, *(Row(settings.reference_rank, name) for name in settings.targets if name != settings.reference_targets)], reference


def adapter_sweep(
    domains: dict[str, Sides], general: list[str] | None, settings: SweepSettings, *, folder: Path, identities: list[Identity],
    device: str, precision: str, seed: int, checkpoints: Path, progress: Callable[[str], None],
) -> StudyResult:  # fmt: skip
    """Every row on every domain. ``checkpoints`` keeps finished fits, so that a killed run goes on with the next.

    Raises:
        DataError: a text does not fill a block.
    """
    rows, reference = rows_of(settings)
    bench = _Bench(folder, domains, general, settings, device, precision)
    cells, known = Cells(checkpoints, progress), [bench.digest(), [i.digest for i in identities]]
    base = cells.get("base", known, lambda: {"losses": bench.measure(bench.load())})["losses"]
    plan = [(d, row, at) for d in domains for row in rows for at in range(seed, seed + (settings.reference_seeds if row == reference else 1))]
    workers = side_by_side(2.0, device)
    steps = progress if workers == 1 else (lambda line: None)
    wanted = [
        Cell(f"{d} {row.name}, seed {at}", known, bench.fit, (d, row, at, checkpoints / f"training-{d}-{row.name}-{at}", steps))
        for d, row, at in plan
    ]

    def said(place: int, fit: dict[str, Any]) -> str:
        domain = plan[place][0]
        return f"{math.expm1(np.mean(fit['losses'][domain]) - np.mean(base[domain])):+.1%} perplexity in {fit['seconds']:.0f} s"

    fits = {(d, row.name, at): fit for (d, row, at), fit in zip(plan, cells.get_all(wanted, workers, said), strict=True)}
    runs = Runs(base, fits, rows, reference, list(domains), seed)
    table = rows_table(runs, bench)
    return StudyResult(
        study="adapter_sweep", settings=settings.model_dump(mode="json"), identities=identities, remarks=REMARKS,
        seeds=list(range(seed, seed + settings.reference_seeds)),
        metrics=[*_row_metrics(runs, table), *_summary(runs, table), _overlap_metric(domains, general)],
        per_example=_per_example(runs), tables={"rows": table, "trained_on": _matrix(runs), "texts": _texts(domains)}, plots=_plots(runs, table),
    )  # fmt: skip


class _Bench:
    """What every fit shares: the base, the blocks of every domain, and the held-out blocks of every text."""

    def __init__(
        self, folder: Path, domains: dict[str, Sides], general: list[str] | None, settings: SweepSettings, device: str, precision: str
    ) -> None:
        self.folder, self.settings, self.device, self.precision = folder, settings, device, precision
        self.shape = ModelShape.of(AutoConfig.from_pretrained(folder))
        tokenizer, size = load_tokenizer(folder), settings.block_size
        needed = settings.steps * settings.batch_size
        self.train = {name: token_blocks(tokenizer, sides.train, size, limit=needed) for name, sides in domains.items()}
        texts = {name: sides.test for name, sides in domains.items()} | ({GENERAL: general} if general else {})
        self.test = {name: token_blocks(tokenizer, text, size, limit=settings.test_blocks) for name, text in texts.items()}

    def digest(self) -> str:
        """Of everything a fit's result depends on but its row, its domain and its seed."""
        own = self.settings.model_dump(mode="json", exclude={"ranks", "targets", "reference_seeds", "own_source", "general_source"})
        blocks = {f"{side} {name}": b.tolist() for side, all_ in (("train", self.train), ("test", self.test)) for name, b in all_.items()}
        return digest_of([own, blocks, self.device, self.precision])

    def of(self, row: Row) -> AdapterSettings:
        """The settings of one row's fit."""
        s = self.settings
        return AdapterSettings(
            base=s.base, rank=row.rank, alpha=s.alpha, target_modules=s.targets[row.targets], block_size=s.block_size, batch_size=s.batch_size,
            steps=s.steps, learning_rate=s.learning_rate, warmup_steps=s.warmup_steps,
        )  # fmt: skip

    def load(self) -> torch.nn.Module:
        return load_base(self.folder, AdapterSettings(base=self.settings.base), device=self.device, precision=self.precision)

    def measure(self, model: torch.nn.Module) -> dict[str, list[float]]:
        """Held-out loss of every block of every text."""
        chunk = AdapterSettings().logit_chunk
        return {name: block_losses(model, blocks, chunk=chunk, device=self.device).tolist() for name, blocks in self.test.items()}

    def fit(self, domain: str, row: Row, seed: int, checkpoints: Path, progress: Callable[[str], None]) -> dict[str, Any]:
        """One fit as JSON. ``seconds`` are of the steps alone."""
        settings = self.of(row)
        model = add_adapter(self.load(), settings, seed=seed)
        begun = time.perf_counter()
        record = train(
            model, self.train[domain], settings, checkpoints=checkpoints, device=self.device, precision=self.precision, seed=seed, progress=progress
        )
        seconds = time.perf_counter() - begun
        counted = sum(p.numel() for p in trainable(model).values())
        return {"losses": self.measure(model), "train_losses": record.losses, "parameters": counted, "seconds": seconds}


def rows_table(runs: Runs, bench: _Bench) -> pd.DataFrame:
    """A row a domain and way: parameters beside the arithmetic, relative change of perplexity at home and elsewhere."""
    found = []
    for domain in runs.domains:
        for row in runs.rows:
            fit, settings = runs.fits[domain, row.name, runs.seed], bench.of(row)
            line = {"domain": domain, "row": row.name, "rank": row.rank, "targets": row.targets, "parameters": fit["parameters"]}
            line["predicted_parameters"] = adapter_parameters(bench.shape, settings)
            for prefix, texts in (("", [domain]), ("general_", runs.forgotten(domain))):
                if texts:
                    change = runs.change(domain, row, texts)
                    line |= {f"{prefix}change": math.expm1(change.difference), f"{prefix}low": math.expm1(change.low)}
                    line |= {f"{prefix}high": math.expm1(change.high), f"{prefix}blocks": change.n}
            found.append({**line, "seconds": fit["seconds"]})
    return pd.DataFrame(found)


def _row_metrics(runs: Runs, table: pd.DataFrame) -> list[Metric]:
    metrics = []
    for line in table.itertuples():
        metrics.append(
            Metric(name=f"change__{line.domain}__{line.row}", value=line.change, low=line.low, high=line.high, n=line.blocks, higher_is_better=False)
        )
    for line in table[table["row"] == runs.reference.name].itertuples():
        before = math.exp(float(np.mean(runs.base[line.domain])))
        metrics.append(Metric(name=f"perplexity_before__{line.domain}", value=before, n=line.blocks, higher_is_better=False))
        metrics.append(
            Metric(name=f"general_change__{line.domain}", value=line.general_change, low=line.general_low, high=line.general_high,
                   n=line.general_blocks, higher_is_better=False)
        )  # fmt: skip
    return metrics


def _summary(runs: Runs, table: pd.DataFrame) -> list[Metric]:
    at = table[table["row"] == runs.reference.name]
    spreads = []
    for domain in runs.domains:
        means = [np.mean(fit["losses"][domain]) for (d, row, _), fit in runs.fits.items() if (d, row) == (domain, runs.reference.name)]
        spreads.append(max(means) - min(means))
    values = {
        "parameter_mismatch": (table["parameters"] - table["predicted_parameters"]).abs().sum(),
        "worst_change_high": table["high"].max(), "weakest_reference_change": at["change"].max(),
        "worst_general_change": at["general_change"].max(), "seed_spread": max(spreads),
    }  # fmt: skip
    counts = {"parameter_mismatch": len(table), "worst_change_high": len(table)}
    metrics = [Metric(name=name, value=float(value), n=counts.get(name, len(at)), higher_is_better=False) for name, value in values.items()]
    ranks = _by_rank(runs)
    pairs = {f"{runs.reference.targets}_over_{row.targets}": (runs.reference, row) for row in runs.rows if row.targets != runs.reference.targets}
    pairs[f"rank_{ranks[-1].rank}_over_{ranks[0].rank}"] = (ranks[-1], ranks[0])
    for name, (new, old) in pairs.items():
        found = runs.between(new, old)
        metrics.append(Metric(name=name, value=found.difference, low=found.low, high=found.high, n=found.n, unit="nats", higher_is_better=False))
    return metrics


def _by_rank(runs: Runs) -> list[Row]:
    return sorted((row for row in runs.rows if row.targets == runs.reference.targets), key=lambda row: row.rank)


def _overlap_metric(domains: dict[str, Sides], general: list[str] | None) -> Metric:
    """The largest share of a measured text's runs of 13 words that stand in a text trained on."""
    measured = {name: sides.test for name, sides in domains.items()} | ({GENERAL: general} if general else {})
    worst = max(overlap(sides.train, text) for sides in domains.values() for text in measured.values())
    return Metric(name="text_overlap", value=worst, n=len(domains) * len(measured), higher_is_better=False)


def _per_example(runs: Runs) -> pd.DataFrame:
    """A row a block of a domain's own text: nats a token of the base and of every way."""
    parts = []
    for domain in runs.domains:
        own = {row.name: runs.fits[domain, row.name, runs.seed]["losses"][domain] for row in runs.rows}
        names = [f"{domain}-{i:03d}" for i in range(len(runs.base[domain]))]
        parts.append(pd.DataFrame({"example_id": names, "domain": domain, "base": runs.base[domain], **own}))
    return pd.concat(parts, ignore_index=True)


def _matrix(runs: Runs) -> pd.DataFrame:
    """The reference trained on one domain (a row) and measured on every text (a column): relative change of perplexity."""
    rows = []
    for domain in runs.domains:
        changes = {text: math.expm1(runs.change(domain, runs.reference, [text]).difference) for text in runs.base}
        rows.append({"trained_on": domain, **changes})
    return pd.DataFrame(rows)


def _texts(domains: dict[str, Sides]) -> pd.DataFrame:
    rows = [(name, len(sides.train), len(sides.test), sides.dropped) for name, sides in domains.items()]
    return pd.DataFrame(rows, columns=["domain", "training_texts", "test_texts", "dropped_for_overlap"])


def _plots(runs: Runs, table: pd.DataFrame) -> dict[str, bytes]:
    def bars(axes: Axes, chosen: list[Row]) -> None:
        width = 0.8 / len(runs.domains)
        for i, domain in enumerate(runs.domains):
            lines = table[table["domain"] == domain].set_index("row").loc[[row.name for row in chosen]]
            errors = [lines["change"] - lines["low"], lines["high"] - lines["change"]]
            places = np.arange(len(chosen)) + i * width
            axes.bar(places, lines["change"], width, yerr=errors, label=domain, error_kw={"linewidth": 0.8})
        axes.set_xticks(np.arange(len(chosen)) + 0.4 - width / 2, [row.name for row in chosen])

    places = [row for row in runs.rows if row.rank == runs.reference.rank]
    return {
        "ranks": draw(lambda axes: bars(axes, _by_rank(runs)), title="The rank, on all linear layers", y="change of perplexity"),
        "targets": draw(lambda axes: bars(axes, places), title="The place, at one rank", y="change of perplexity"),
    }
