"""One global batch, one order of blocks, one rank against several: data, sharded, tensor and pipeline parallelism side by side."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor

from curriculum.artifacts import DirectoryArtifact
from curriculum.cells import Cells
from curriculum.parallel.counting import expected_memory, expected_traffic
from curriculum.parallel.job import Job
from curriculum.parallel.launch import fork
from curriculum.parallel.pipeline import bubble_formula, measured_bubble, replayed_bubble
from curriculum.parallel.runs import curve_difference, read_blocks, write_blocks
from curriculum.parallel.settings import ParallelSettings, Strategy
from curriculum.plots import draw
from curriculum.results import Metric, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DATA: tuple[Strategy, ...] = ("ddp", "zero1", "zero2", "zero3")
FLOAT = 8  # bytes: the runs are in double precision, where only faults are left of a difference
REMARKS = [
    "Ranks are processes of one machine over gloo on the CPU, one thread each. Every run reads the same blocks in the same order; only who "
    "computes what differs. The reference is one rank with the whole batch. All is in double precision, 8 bytes a number.",
    "Bytes held are those of parameters between the last forward and backward pass, of gradients before the step, and of AdamW's moments. "
    "Activations, buckets and the backend's own buffers are not among them.",
    "Traffic is the payload of the collectives that were called, at what a rank of a ring sends for them; gloo may move it otherwise. A rank "
    "that shards gradients reduces every micro-batch, so stages 2 and 3 pay theirs once a micro-batch, DDP and stage 1 once a step.",
    "Stage 1 is torch's ZeroRedundancyOptimizer, which all-reduces gradients and then broadcasts weights: half as much again as the paper's "
    "reduce-scatter and all-gather. It deals out whole parameters, so its shares are only about even. Stages 2 and 3 are FSDP2.",
    "The bubble by the clock is the idle share of a step from the stages' time stamps, a median over steps; where others use the machine, or "
    "the stages are uneven, it is off the formula. bubble_order_error replays the order that the stages really ran in at equal times a pass.",
    "The output layer is not tied: at the two ends of a pipeline the tied tables would have to be summed.",
]


def run_cell(strategy: Strategy, blocks: Tensor, vocab_size: int, settings: ParallelSettings, seed: int, folder: Path, micro: int = 1,
             progress: Callable[[str], None] = lambda line: None, target: Callable[..., None] | None = None) -> dict[str, Any]:  # fmt: skip
    """One strategy from start to end: the losses, and what every rank measured. ``target`` runs a rank, in place of the trainer's own."""
    ranks = 1 if strategy == "single" else settings.ranks
    out = folder / f"{strategy}-{micro}"
    job = Job(strategy=strategy, settings=settings, vocab_size=vocab_size, seed=seed, blocks=write_blocks(blocks, folder), out=str(out), micro=micro)
    found = fork(job, ranks, lambda line: None, target=target)
    shutil.rmtree(out, ignore_errors=True)
    progress(f"{strategy}{f' of {micro} micro-batches' if strategy == 'pipeline' else ''}: loss {found[0]['losses'][-1]:.4f}")
    return {
        "losses": found[0]["losses"], "ranks": ranks, "parameters": found[0]["parameters"], "seconds": max(r["seconds"] for r in found),
        "memory": [r["memory"] for r in found], "traffic": [r["traffic"] for r in found], "extra": [r["extra"] for r in found],
    }  # fmt: skip


def parallelism_study(
    corpus: DirectoryArtifact, settings: ParallelSettings, *, seed: int, checkpoints: Path, progress: Callable[[str], None]
) -> StudyResult:
    """Every strategy, and the pipeline at every number of micro-batches. Finished runs in ``checkpoints`` are taken up again."""
    blocks, vocab_size = read_blocks(corpus, settings)
    cells, kept = Cells(checkpoints, progress), settings.model_dump(mode="json", exclude={"launchers", "deepspeed", "deepspeed_stages", "parts"})

    def cell(strategy: Strategy, micro: int = 1) -> dict[str, Any]:
        run = (strategy, blocks, vocab_size, settings, seed, checkpoints / "runs", micro, progress)
        return cells.get(f"{strategy}-{micro}", [kept, seed, vocab_size], lambda: run_cell(*run))

    reference = cell("single")
    found: dict[str, dict[str, Any]] = {name: cell(name) for name in DATA}
    tensor = cell("tensor")
    pipelines = {micro: cell("pipeline", micro) for micro in settings.micro_batches}
    shutil.rmtree(checkpoints / "runs", ignore_errors=True)
    every = {"single": reference, **found, "tensor": tensor, **{f"pipeline, m = {micro}": run for micro, run in pipelines.items()}}
    ledger, bubbles = ledger_table({"single": reference, **found}, settings), bubble_table(pipelines)
    metrics = [*_data_metrics(reference, found, ledger, settings), *_model_metrics(reference, tensor, pipelines, bubbles, settings)]
    losses = pd.DataFrame({"example_id": [f"step {step}" for step in range(settings.steps)], **{name: run["losses"] for name, run in every.items()}})
    return StudyResult(
        study="parallelism_study", metrics=metrics, settings=settings.model_dump(mode="json"), seeds=[seed], remarks=REMARKS, per_example=losses,
        tables={"ledger": ledger, "bubbles": bubbles, "runs": _runs(reference, every)},
        plots={"losses": _loss_plot(losses), "memory": _memory_plot(every), "traffic": _traffic_plot(ledger), "bubble": _bubble_plot(bubbles)},
    )  # fmt: skip


def ledger_table(runs: dict[str, dict[str, Any]], settings: ParallelSettings) -> pd.DataFrame:
    """Measured bytes a rank beside the formula's: a row a strategy, rank and part; ``sent`` is the traffic of one step."""
    rows = []
    for name, run in runs.items():
        whole, passes = run["parameters"] * FLOAT, settings.accumulate if name in {"zero2", "zero3"} else 1
        wanted = {**expected_memory(name, whole, run["ranks"]), "sent": passes * expected_traffic(name, whole, run["ranks"])}
        for rank in range(run["ranks"]):
            measured = {**run["memory"][rank], "sent": run["traffic"][rank]["sent"]}
            rows += [{"strategy": name, "rank": rank, "part": part, "measured": measured[part], "formula": wanted[part]} for part in wanted]
    table = pd.DataFrame(rows)
    table["error"] = ((table["measured"] - table["formula"]) / table["formula"].where(table["formula"] > 0, 1.0)).abs()
    return table


def bubble_table(pipelines: dict[int, dict[str, Any]]) -> pd.DataFrame:
    """A row a number of micro-batches: the formula, the idle share by the clock (median over steps but the first), and by the order run."""
    rows = []
    for micro, run in pipelines.items():
        steps = list(zip(*(extra["events"] for extra in run["extra"]), strict=True))
        by_clock = [measured_bubble(stages) for stages in steps[1:]]
        busy = [median(sum(end - begin for *_, begin, end in step) for step in extra["events"][1:]) for extra in run["extra"]]
        rows.append({
            "micro_batches": micro, "formula": bubble_formula(run["ranks"], micro), "by_clock": median(by_clock),
            "by_order": max(replayed_bubble(stages) for stages in steps), "imbalance": max(busy) / (sum(busy) / len(busy)),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _data_metrics(
    reference: dict[str, Any], found: dict[str, dict[str, Any]], ledger: pd.DataFrame, settings: ParallelSettings
) -> list[Metric]:
    metrics = []
    for name, run in found.items():
        of_run = ledger[ledger["strategy"] == name]
        held, sent = of_run[of_run["part"] != "sent"], of_run[of_run["part"] == "sent"]
        difference, steps = curve_difference(reference["losses"], run["losses"]), settings.steps
        metrics += [
            Metric(name=f"loss_difference__{name}", value=difference, n=steps, higher_is_better=False),
            Metric(name=f"memory_error__{name}", value=held["error"].max(), n=len(held), higher_is_better=False),
            Metric(name=f"traffic_over_formula__{name}", value=(sent["measured"] / sent["formula"]).mean(), n=len(sent), higher_is_better=False),
        ]
    return metrics


def _model_metrics(
    reference: dict[str, Any], tensor: dict[str, Any], pipelines: dict[int, dict[str, Any]], bubbles: pd.DataFrame, settings: ParallelSettings
) -> list[Metric]:
    steps, extra = settings.steps, tensor["extra"]
    worst = [curve_difference(reference["losses"], run["losses"]) for run in pipelines.values()]
    values = {
        "loss_difference__tensor": (curve_difference(reference["losses"], tensor["losses"]), steps),
        "logit_error": (max(e["logit_error"] / e["logit_scale"] for e in extra), len(extra)),
        "parameter_share": (max(e["share"] for e in extra), len(extra)),
        "loss_difference__pipeline": (pd.Series(worst).max(skipna=False), steps * len(worst)),
        "bubble_order_error": ((bubbles["by_order"] - bubbles["formula"]).abs().max(), len(bubbles)),
    }
    metrics = [Metric(name=name, value=value, n=n, higher_is_better=False) for name, (value, n) in values.items()]
    by_clock = {f"bubble__{row.micro_batches}": (row.by_clock, row.formula) for row in bubbles.itertuples()}
    metrics += [Metric(name=name, value=value, n=steps - 1, higher_is_better=False, deterministic=False) for name, (value, _) in by_clock.items()]
    fall = bubbles["by_clock"].iloc[0] - bubbles["by_clock"].iloc[-1]
    return [*metrics, Metric(name="bubble_fall", value=fall, n=steps - 1, deterministic=False)]


def _runs(reference: dict[str, Any], every: dict[str, dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "run": name, "ranks": run["ranks"], "parameters_a_rank": max(m["parameters"] for m in run["memory"]) // FLOAT,
            "bytes_sent_a_step": max(t["sent"] for t in run["traffic"]), "calls_a_step": sum(run["traffic"][0]["calls"].values()),
            "final_loss": run["losses"][-1], "difference": curve_difference(reference["losses"], run["losses"]), "seconds": run["seconds"],
        }
        for name, run in every.items()
    ])  # fmt: skip


def _loss_plot(losses: pd.DataFrame) -> bytes:
    def paint(axes: Axes) -> None:
        for number, name in enumerate(losses.columns[1:]):
            axes.plot(range(1, len(losses) + 1), losses[name], linewidth=7 - 0.6 * number, alpha=0.6, label=name)

    return draw(paint, title="Every strategy, the same curve", x="step", y="loss, nats a token", size=(6.0, 4.0))


def _memory_plot(every: dict[str, dict[str, Any]]) -> bytes:
    bars = [(f"{name}\n{rank}" if run["ranks"] > 1 else name, held) for name, run in every.items() if "m = " not in name or name.endswith("= 1")
            for rank, held in enumerate(run["memory"])]  # fmt: skip

    def paint(axes: Axes) -> None:
        bottom = [0.0] * len(bars)
        for part in ("parameters", "gradients", "optimizer"):
            sizes = [held[part] / 2**20 for _, held in bars]
            axes.bar(range(len(bars)), sizes, bottom=bottom, label=part)
            bottom = [low + size for low, size in zip(bottom, sizes, strict=True)]
        axes.set_xticks(range(len(bars)), [name.replace(", m = 1", "") for name, _ in bars], fontsize=7)

    return draw(paint, title="Held by each rank", y="MiB", size=(7.0, 3.4))


def _traffic_plot(ledger: pd.DataFrame) -> bytes:
    shown = ledger[(ledger["part"] == "sent") & (ledger["strategy"] != "single")]
    sent = shown.groupby("strategy", sort=False)[["measured", "formula"]].mean() / 2**20

    def paint(axes: Axes) -> None:
        for place, column in ((-0.2, "measured"), (0.2, "formula")):
            axes.bar([number + place for number in range(len(sent))], sent[column], width=0.4, label=column)
        axes.set_xticks(range(len(sent)), sent.index)

    return draw(paint, title="Sent by a rank in one step", y="MiB")


def _bubble_plot(bubbles: pd.DataFrame) -> bytes:
    def paint(axes: Axes) -> None:
        for column, style in (("formula", "--"), ("by_clock", "-"), ("by_order", ":")):
            axes.plot(bubbles["micro_batches"], bubbles[column], style, marker="o", label=column.replace("_", " "))
        axes.set_ylim(0, 1)

    return draw(paint, title="Idle share of a step", x="micro-batches", y="share")
