"""What an adapter changed and what it cost: perplexity on held-out domain text and on other text, and the memory ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from transformers import AutoConfig

from curriculum.adaptation.ledger import LLAMA3_8B, LedgerRow, ModelShape, adapter_parameters, predict, total
from curriculum.adaptation.meter import MeterReading, MeterRequest, measure_step
from curriculum.adaptation.model import block_losses, load_adapter, load_base, load_tokenizer
from curriculum.adaptation.settings import AdapterSettings
from curriculum.adaptation.text import token_blocks
from curriculum.adaptation.training import uses_pages
from curriculum.artifacts import ModelArtifact
from curriculum.corpora.sides import Sides, overlap
from curriculum.evaluation.statistics import bootstrap_mean, paired_bootstrap
from curriculum.plots import draw
from curriculum.results import Identity, Metric, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GIB = 2**30


def report_adapter(
    adapter: ModelArtifact,
    domain: Sides,
    general: Sequence[str],
    settings: AdapterSettings,
    *,
    folder: Path,
    base: Identity,
    general_identity: Identity,
    device: str,
    precision: str,
    seed: int,
    progress: Callable[[str], None],
) -> StudyResult:
    """Measure ``adapter`` over the base model in ``folder`` on ``domain``'s held-out texts and on ``general`` texts.

    Raises:
        UserError: the adapter was trained on another base, or the memory of a step cannot be measured.
        DataError: a text does not fill two blocks.
    """
    shape = ModelShape.of(AutoConfig.from_pretrained(folder))
    rows = predict(
        shape, settings, value_bytes=4 if device == "cpu" else torch.finfo(getattr(torch, precision)).bits // 8,
        paged=uses_pages(settings, device),
    )
    progress(f"the ledger says that a step takes {total(rows) / GIB:.2f} GiB")
    # before this process loads the model: two models would not fit where one does
    reading = measure_step(
        MeterRequest(folder=str(folder), settings=settings, device=device, precision=precision, threads=torch.get_num_threads())
    )
    progress(f"a step peaks at {reading.step_peak / GIB:.2f} GiB above an empty process, {reading.whole_peak / GIB:.2f} GiB in all")
    tokenizer = load_tokenizer(folder)
    model = load_adapter(load_base(folder, settings, device=device, precision=precision), adapter.path, base)
    scores = []
    for name, texts, limit in (("domain", domain.test, settings.domain_blocks), ("general", general, settings.general_blocks)):
        blocks = token_blocks(tokenizer, texts, settings.block_size, limit=limit)
        scores.append(compare(model, blocks, name, settings, device=device))
        progress(f"{name}: perplexity {_perplexity(scores[-1].loss_before):.2f} -> {_perplexity(scores[-1].loss_after):.2f}")
    losses = [float(loss) for loss in adapter.facts.get("train_losses", [])]
    return StudyResult(
        study="adapter_report",
        metrics=[
            *quality_metrics(*scores, seed=seed),
            Metric(name="text_overlap", value=overlap(domain.train, domain.test), n=len(domain.test), higher_is_better=False),
            *cost_metrics(rows, reading, adapter.facts),
        ],
        settings=settings.model_dump(mode="json"),
        identities=[base, general_identity],
        seeds=[seed],
        remarks=_remarks(reading, device),
        per_example=pd.concat(scores, ignore_index=True),
        tables={
            "ledger": ledger_table(rows, reading), "perplexity": _perplexity_table(scores),
            "ledger_llama3_8b": llama3_table(settings), "ranks": rank_table(shape, settings),
        },
        plots=_plots(losses, rows, scores[0]),
    )


def compare(model: PeftModel, blocks: torch.Tensor, text: str, settings: AdapterSettings, *, device: str) -> pd.DataFrame:
    """A row a block: ``example_id``, ``text``, ``loss_before`` (adapter off) and ``loss_after``, nats a token."""
    with model.disable_adapter():
        before = block_losses(model, blocks, chunk=settings.logit_chunk, device=device)
    after = block_losses(model, blocks, chunk=settings.logit_chunk, device=device)
    names = [f"{text}-{i:03d}" for i in range(len(blocks))]
    return pd.DataFrame({"example_id": names, "text": text, "loss_before": before.numpy(), "loss_after": after.numpy()})


def _perplexity(losses: Any) -> float:
    return math.exp(float(np.mean(losses)))


def quality_metrics(domain: pd.DataFrame, general: pd.DataFrame, *, seed: int) -> list[Metric]:
    """Perplexity before and after, and the relative change with its paired bootstrap interval over blocks."""
    metrics = []
    for prefix, scores in (("", domain), ("general_", general)):
        for when in ("before", "after"):
            losses = scores[f"loss_{when}"].to_numpy()
            low, high = bootstrap_mean(losses, seed=seed)
            metrics.append(
                Metric(name=f"{prefix}perplexity_{when}", value=_perplexity(losses), n=len(losses), low=math.exp(low),
                       high=math.exp(high), higher_is_better=False)
            )
        change = paired_bootstrap(scores["loss_after"].to_numpy(), scores["loss_before"].to_numpy(), seed=seed)
        metrics.append(
            Metric(name=f"{prefix}perplexity_change", value=math.expm1(change.difference), n=change.n,
                   low=math.expm1(change.low), high=math.expm1(change.high), higher_is_better=False)
        )
    return metrics


def cost_metrics(rows: Sequence[LedgerRow], reading: MeterReading, facts: dict[str, Any]) -> list[Metric]:
    """Memory, the ledger's error, trainable parameters and training speed."""
    predicted = total(rows)
    error = abs(predicted - reading.step_peak) / reading.step_peak
    timed = {"deterministic": False}
    return [
        Metric(name="peak_memory_gb", value=reading.whole_peak / GIB, unit="GiB", higher_is_better=False, **timed),
        Metric(name="ledger_predicted_gb", value=predicted / GIB, unit="GiB", higher_is_better=False),
        Metric(name="ledger_measured_gb", value=reading.step_peak / GIB, unit="GiB", higher_is_better=False, **timed),
        Metric(name="ledger_error", value=error, higher_is_better=False, **timed),
        Metric(name="trainable_parameters", value=float(facts.get("trainable_parameters", math.nan)), higher_is_better=False),
        Metric(name="tokens_per_second", value=float(facts.get("tokens_per_second", math.nan)), unit="tok/s", **timed),
    ]


def ledger_table(rows: Sequence[LedgerRow], reading: MeterReading) -> pd.DataFrame:
    """The predicted rows with their shares; measured where a reading isolates them, and at the peak."""
    whole = total(rows)
    table = [
        {"part": r.part, "predicted_mb": r.bytes / 1e6, "share": r.bytes / whole, "measured_mb": math.nan, "how": r.how} for r in rows
    ]
    weights = sum(r.bytes for r in rows if r.part.startswith("weights"))
    adapters = sum(r.bytes for r in rows if r.part == "adapters")
    kept = sum(r.bytes for r in rows if r.part in ("gradients", "optimizer"))
    sums = [
        ("all weights", weights, reading.loaded, "after loading"),
        ("all adapters", adapters, reading.adapted - reading.loaded, "after adding the adapters"),
        ("gradients and optimizer", kept, reading.stepped - reading.adapted, "after a step: what stays of it"),
        ("activations, logits, temporaries", whole - weights - adapters - kept, reading.step_peak - reading.stepped, "within a step: what goes"),
        ("peak", whole, reading.step_peak, "sum of the parts; a step in a fresh process"),
    ]
    table += [{"part": p, "predicted_mb": b / 1e6, "share": b / whole, "measured_mb": m / 1e6, "how": h} for p, b, m, h in sums]
    return pd.DataFrame(table)


def llama3_table(settings: AdapterSettings) -> pd.DataFrame:
    """The ledger of Llama-3-8B at 512 tokens in bfloat16, with and without checkpointing: arithmetic, not a measurement."""
    columns: dict[str, list[Any]] = {"part": [], "checkpointing_gb": [], "no_checkpointing_gb": [], "how": []}
    base = settings.model_copy(update={"block_size": 512, "batch_size": 1, "quantisation": "nf4"})
    on, off = (predict(LLAMA3_8B, base.model_copy(update={"gradient_checkpointing": x}), value_bytes=2) for x in (True, False))
    for row, other in zip(on, off, strict=True):
        for name, value in zip(columns, (row.part, row.bytes / GIB, other.bytes / GIB, row.how), strict=True):
            columns[name].append(value)
    for name, value in zip(columns, ("peak", total(on) / GIB, total(off) / GIB, "sum; GiB, computed and not measured"), strict=True):
        columns[name].append(value)
    return pd.DataFrame(columns)


def rank_table(shape: ModelShape, settings: AdapterSettings) -> pd.DataFrame:
    """What other ranks would train and take: arithmetic."""
    rows = []
    for rank in (4, 8, 16, 32, 64):
        other = settings.model_copy(update={"rank": rank})
        count = adapter_parameters(shape, other)
        rows.append({"rank": rank, "trainable_parameters": count, "adapter_gradient_optimizer_mb": 16 * count / 1e6,
                     "peak_mb": total(predict(shape, other)) / 1e6})
    return pd.DataFrame(rows)


def _perplexity_table(scores: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"text": s["text"].iloc[0], "blocks": len(s), "before": _perplexity(s.loss_before), "after": _perplexity(s.loss_after)}
         for s in scores]
    )


def _remarks(reading: MeterReading, device: str) -> list[str]:
    where = "resident memory above a process that has run one step of a tiny model" if device == "cpu" else "memory allocated on the GPU"
    return [
        "perplexity_before is of the quantised base with the adapter switched off; blocks are the same before and after",
        f"the ledger is compared with {where}; peak_memory_gb is the whole process, interpreter and libraries included",
        f"a training step took {reading.seconds_a_step:.1f} s in the measured process",
        "the table ledger_llama3_8b is computed from the shapes of Llama-3-8B, not measured",
    ]


def _plots(losses: list[float], rows: Sequence[LedgerRow], domain: pd.DataFrame) -> dict[str, bytes]:
    def curve(axes: Axes) -> None:
        axes.plot(range(1, len(losses) + 1), losses, marker=".")

    def blocks(axes: Axes) -> None:
        axes.scatter(domain["loss_before"], domain["loss_after"], s=14)
        ends = [domain[["loss_before", "loss_after"]].min().min(), domain[["loss_before", "loss_after"]].max().max()]
        axes.plot(ends, ends, color="grey", linewidth=0.8, label="no change")

    def ledger(axes: Axes) -> None:
        shown = [r for r in rows if r.bytes][::-1]
        axes.barh([r.part for r in shown], [r.bytes / 1e6 for r in shown])

    plots = {
        "blocks": draw(blocks, title="Held-out domain blocks", x="nats a token before", y="after"),
        "ledger": draw(ledger, title="Predicted memory of a step", x="MB"),
    }
    return plots | ({"loss": draw(curve, title="Training loss", x="step", y="nats a token")} if losses else {})
