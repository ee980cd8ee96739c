"""The one Transformer as decoder-only, encoder-only and encoder-decoder, trained at one budget, each against n-grams on its own targets."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from curriculum.artifacts import DirectoryArtifact
from curriculum.cells import Cell, Cells, side_by_side
from curriculum.errors import DataError
from curriculum.evaluation.statistics import bootstrap_mean
from curriculum.plots import draw
from curriculum.results import Metric, StudyResult
from curriculum.tokenization.packing import TokenBlocks
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.leaks import asked_places, future_leak, padding_leak, target_leak, two_sided
from curriculum.transformer.ngram import BigramChain, KneserNey
from curriculum.transformer.objectives import MaskedToken, NextToken, Objective, SpanCorruption, block_nats
from curriculum.transformer.settings import FamilyStudySettings
from curriculum.transformer.training import TrainedRun, train_config
from curriculum.transformer.vocabulary_study import Packed, bounded, documents_of, pack_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAMILIES = ("decoder", "encoder", "encoder_decoder")
TARGETS = {"decoder": "next tokens", "encoder": "masked tokens", "encoder_decoder": "tokens of removed spans"}
# what each family's loss is held against: on the same tokens, and never told less than the model
BASELINES = {"decoder": ("unigram", "bigram", "5gram"), "encoder": ("unigram", "bigram", "chain"), "encoder_decoder": ("unigram", "5gram", "chain")}
SCORED_SEED = 0  # of what is hidden in the held-out text: the same in every run
REMARKS = [
    "The families' bits a target may not be compared with one another: a decoder answers for every token from the left, an encoder for "
    "the masked ones from both sides, an encoder-decoder for whole spans. Each is compared with its baselines on its own targets alone.",
    "Bits per byte are given for the decoder only, whose conditionals multiply to the probability of the text. A masked model's do not, "
    "and removed spans are a seventh of the text, given the rest.",
    "Equal: the blocks and their order, optimizer, learning rate, steps, the table of tokens, and the parameters to within parameter_spread. "
    "Not equal: the targets of a block and the positions that are computed, hence FLOPs and seconds; the table runs has them. One learning "
    "rate serves all, tuned for none.",
    "All n-grams are interpolated Kneser-Ney with discount 0.75 over the same blocks that the models read. A chain is the bigram model read "
    "from both sides, exactly; of a span it is told the length, which the model is not.",
    "Every model is scored given that the token is one of the text, as the n-grams are: without this the encoder-decoder would pay, "
    "at each token of a span, for the sentinel that might end it. Its figure over the whole table is bits_among_all in the table runs.",
    "Intervals are over held-out blocks, of the mean of the seeds; the seeds' own spread is in the table runs. Curves are on blocks of "
    "the training split that no model trains on; nothing is chosen by them.",
]


def family(name: str, settings: FamilyStudySettings, vocab_size: int, length: int) -> tuple[ModelConfig, Objective]:
    """A family's shape, and what it is asked of blocks of ``length`` tokens. All have the same table: text, a mask, sentinels.

    The attention across of an encoder-decoder is paid for by narrower feed-forward blocks, so that the weights are about as many.
    """
    spans = SpanCorruption(vocab_size + 1, settings.rate, settings.mean_span)
    entries = vocab_size + 1 + spans.counts(length)[1] + 1
    shape = {"vocab_size": entries, "width": settings.width, "heads": settings.heads, "kv_heads": settings.kv_heads}
    if name == "decoder":
        return ModelConfig(**shape, layers=settings.layers, hidden=settings.hidden), NextToken()
    if name == "encoder":
        config = ModelConfig(**shape, layers=settings.layers, hidden=settings.hidden, stack="encoder")
        return config, MaskedToken(vocab_size, vocab_size, settings.rate)
    half, across = settings.layers // 2, 2 * settings.width * settings.width * (1 + settings.kv_heads / settings.heads)
    hidden = settings.hidden - round(half * across / (settings.layers * 3 * settings.width))
    if hidden < 1:
        raise ValueError(f"families.hidden {settings.hidden} leaves nothing for the feed-forward blocks beside attention across; raise it")
    return ModelConfig(**shape, layers=half, encoder_layers=half, hidden=hidden, stack="encoder-decoder"), spans


def train_cell(name: str, packed: Packed, settings: FamilyStudySettings, seed: int, folder: Path) -> dict[str, Any]:
    """Train one family under one seed; score it on the held-out blocks and probe its masks."""
    length, train = packed.train.shape[1] - 1, packed.train[: settings.train_blocks]
    (config, objective), curve = family(name, settings, packed.vocab_size, length), packed.train[-settings.curve_blocks :]
    run = train_config(
        config, train, settings, seed=seed, checkpoints=folder, progress=lambda line: None, objective=objective, validation=curve
    )
    model = run.model.eval()
    nats = block_nats(model, packed.test, objective.held_out(), seed=SCORED_SEED, among=packed.vocab_size)
    among_all = block_nats(model, packed.test, objective.held_out(), seed=SCORED_SEED)
    probes = {
        "padding_leak": padding_leak(model, packed.vocab_size), "target_leak": target_leak(model, objective, packed.test[:2], packed.vocab_size),
        **({} if name == "encoder" else {"future_leak": future_leak(model, packed.vocab_size)}),
        **({} if name == "decoder" else {"two_sided": two_sided(model, packed.vocab_size)}),
    }  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)  # the cell's result stands for the weights
    scores = {"nats": nats.tolist(), "among_all": float(among_all.mean())}
    return {**scores, "probes": probes, "curve": run.validation, "facts": _facts(run, objective, packed, settings)}


def _facts(run: TrainedRun, objective: Objective, packed: Packed, settings: FamilyStudySettings) -> dict[str, float]:
    """What a run read and cost. ``positions``: those computed, of source and target alike."""
    blocks, seen = settings.steps * settings.batch_size * settings.accumulate, packed.train[:1]
    batch, length = objective.batch(seen, 0, 0), seen.shape[1] - 1
    positions = batch.ids_BT.numel() + (0 if batch.source_BS is None else batch.source_BS.numel())
    asked = asked_places(objective, seen, 0).numel()
    return {
        "parameters": sum(weight.numel() for weight in run.model.parameters()), "text_tokens": blocks * length, "positions": blocks * positions,
        "targets": blocks * asked, "seconds": run.seconds, "final_training_nats": float(np.mean(run.losses[-20:])),
    }  # fmt: skip


def baseline_nats(packed: Packed, settings: FamilyStudySettings, length: int) -> dict[str, dict[str, np.ndarray]]:
    """Family -> baseline -> mean nats a target of each held-out block [blocks], on the very tokens the family is asked."""
    blocks, seen = packed.test.numpy(), packed.train[: settings.train_blocks].tolist()
    models = {name: KneserNey(order, packed.vocab_size).fit(seen) for name, order in (("unigram", 1), ("bigram", 2), ("5gram", 5))}
    every = {name: np.stack([model.nats(block) for block in blocks.tolist()]) for name, model in models.items()}  # [blocks, length], from the left
    chain, found = BigramChain(models["bigram"]), {}
    for name in FAMILIES:
        _, objective = family(name, settings, packed.vocab_size, length)
        places = asked_places(objective, packed.test, SCORED_SEED).numpy()
        nats = {other: np.take_along_axis(values, places - 1, axis=1).mean(1) for other, values in every.items()}
        if "chain" in BASELINES[name]:
            hidden = np.zeros(blocks.shape, dtype=bool)
            np.put_along_axis(hidden, places, True, axis=1)
            in_order = name == "encoder_decoder"  # a block's first token is not read by these two families, and so not given
            pairs = zip(blocks[:, 1:], hidden[:, 1:], strict=True)
            nats["chain"] = np.array([chain.nats(text, gaps, in_order=in_order).mean() for text, gaps in pairs])
        found[name] = {other: nats[other] for other in BASELINES[name]}
    return found


def family_study(
    corpus: DirectoryArtifact, settings: FamilyStudySettings, *, seed: int, checkpoints: Path, progress: Callable[[str], None]
) -> StudyResult:
    """Every family under every seed. ``checkpoints`` belongs to this corpus: finished runs in it are taken up again.

    Raises:
        DataError: the corpus has too few blocks to train on and to draw curves by.
    """
    test = bounded(documents_of(TokenBlocks(corpus.path, "test")), settings.test_bytes)
    packed = pack_at(settings.vocab_size, documents_of(TokenBlocks(corpus.path, "train")), test, settings.context_bytes)
    if len(packed.train) < settings.train_blocks + settings.curve_blocks:
        raise DataError(f"the training split has {len(packed.train)} blocks; lower families.train_blocks or families.curve_blocks, or add text")
    kept = settings.model_dump(mode="json", exclude={"seeds"})
    runs = [(name, run) for name in FAMILIES for run in range(seed, seed + settings.seeds)]
    wanted = [
        Cell(f"{name}, seed {run}", kept, train_cell, (name, packed, settings, run, checkpoints / f"training-{name}-{run}"))
        for name, run in runs
    ]
    cells = Cells(checkpoints, progress).get_all(
        wanted, side_by_side(), lambda _, cell: f"{np.mean(cell['nats']) / math.log(2):.3f} bits a target"
    )
    found = dict(zip(runs, cells, strict=True))
    progress("the n-grams on the same targets")
    return _result(found, baseline_nats(packed, settings, packed.train.shape[1] - 1), packed, settings)


def _result(
    found: dict[tuple[str, int], dict[str, Any]], baselines: dict[str, dict[str, np.ndarray]], packed: Packed, settings: FamilyStudySettings
) -> StudyResult:
    runs = pd.DataFrame([
        {"family": name, "seed": seed, "bits_per_target": np.mean(cell["nats"]) / math.log(2),
         "bits_among_all": cell["among_all"] / math.log(2), **cell["facts"], **cell["probes"]}
        for (name, seed), cell in found.items()
    ])  # fmt: skip
    curves = pd.DataFrame([
        {"family": name, "seed": seed, "step": step, "bits_per_target": nats / math.log(2)}
        for (name, seed), cell in found.items() for step, nats in cell["curve"]
    ])  # fmt: skip
    bits = {name: np.mean([cell["nats"] for (other, _), cell in found.items() if other == name], axis=0) / math.log(2) for name in FAMILIES}
    rows = [_compared(name, other, bits[name], nats / math.log(2)) for name in FAMILIES for other, nats in baselines[name].items()]
    per_example = pd.DataFrame({"example_id": [f"test/{i}" for i in range(len(packed.test))], **bits})
    seeds = sorted({seed for _, seed in found})
    metrics = [*_scores(bits, baselines, packed), *(_gain(row) for row in rows), *_probes(list(found.values()))]
    return StudyResult(
        study="family_study", metrics=metrics, settings=settings.model_dump(mode="json"), seeds=seeds, remarks=REMARKS, per_example=per_example,
        tables={"families": pd.DataFrame(rows), "runs": runs, "curves": curves}, plots={"curves": _plot(curves, rows)},
    )


def _compared(name: str, baseline: str, bits: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    """One family beside one baseline, in bits a target; the gain's interval is paired by block."""
    low, high = bootstrap_mean(others - bits)
    return {
        "family": name, "targets": TARGETS[name], "baseline": baseline, "model_bits": float(bits.mean()), "baseline_bits": float(others.mean()),
        "gain": float((others - bits).mean()), "gain_low": low, "gain_high": high, "blocks": len(bits),
    }  # fmt: skip


def _gain(row: dict[str, Any]) -> Metric:
    name = f"gain__{row['family']}__{row['baseline']}"
    return Metric(name=name, value=row["gain"], low=row["gain_low"], high=row["gain_high"], n=row["blocks"], unit="bits/target")


def _scores(bits: dict[str, np.ndarray], baselines: dict[str, dict[str, np.ndarray]], packed: Packed) -> list[Metric]:
    """Bits a target of every family and baseline, and bits a byte of the decoder's."""
    named = {f"bits_per_target__{name}": values for name, values in bits.items()}
    named |= {f"bits_per_target__{name}__{other}": nats / math.log(2) for name in FAMILIES for other, nats in baselines[name].items()}
    to_bytes = (packed.test.shape[1] - 1) * len(packed.test) / packed.bytes_of(packed.test)
    named["bits_per_byte__decoder"] = bits["decoder"] * to_bytes
    named |= {f"bits_per_byte__{other}": nats / math.log(2) * to_bytes for other, nats in baselines["decoder"].items()}
    metrics = []
    for name, values in named.items():
        low, high = bootstrap_mean(values)
        metrics.append(Metric(name=name, value=float(values.mean()), low=low, high=high, n=len(values), higher_is_better=False))
    return metrics


def _probes(cells: list[dict[str, Any]]) -> list[Metric]:
    """The worst probe of all runs, NaN if one is, and how equal the models' sizes are."""
    probes: dict[str, list[float]] = {}
    for cell in cells:
        for name, value in cell["probes"].items():
            probes.setdefault(name, []).append(value)
    both, sizes = probes.pop("two_sided"), [cell["facts"]["parameters"] for cell in cells]
    return [
        *(Metric(name=name, value=float(np.max(values)), n=len(values), higher_is_better=False) for name, values in sorted(probes.items())),
        Metric(name="weakest_two_sided", value=float(np.min(both)), n=len(both)),
        Metric(name="parameter_spread", value=(max(sizes) - min(sizes)) / min(sizes), n=len(sizes), higher_is_better=False),
    ]


def _plot(curves: pd.DataFrame, rows: list[dict[str, Any]]) -> bytes:
    def paint(axes: Axes) -> None:
        for number, name in enumerate(FAMILIES):
            points = curves[curves["family"] == name].groupby("step")["bits_per_target"].mean()
            axes.plot(points.index, points, marker=".", color=f"C{number}", label=f"{name.replace('_', '-')}: {TARGETS[name]}")
            best = min((row for row in rows if row["family"] == name), key=lambda row: row["baseline_bits"])
            axes.axhline(best["baseline_bits"], color=f"C{number}", linestyle=":", linewidth=1, label=f"its best n-gram: {best['baseline']}")

    return draw(paint, title="Each family on its own targets; not comparable", x="step", y="bits a target", size=(6.0, 4.0))
