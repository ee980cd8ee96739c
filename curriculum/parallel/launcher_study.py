"""One training entry point under every launcher, and what is left of a run that lost a rank: the same loss each time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from curriculum.artifacts import DirectoryArtifact
from curriculum.cells import Cells
from curriculum.parallel.job import Engine, Job
from curriculum.parallel.launch import RankDied, deepspeed_folder, fork, launch
from curriculum.parallel.runs import curve_difference, read_blocks, write_blocks
from curriculum.parallel.settings import Launcher, ParallelSettings, Strategy
from curriculum.plots import draw
from curriculum.results import Metric, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENGINES: dict[Launcher, Engine] = {"accelerate": "accelerate", "deepspeed": "deepspeed"}
# what loses a rank, and what goes on from its checkpoint
RESUMED: dict[str, tuple[Strategy, Strategy]] = {"same": ("ddp", "ddp"), "to_fewer": ("zero3", "single"), "to_more": ("single", "zero3")}
REMARKS = [
    "Every launcher starts the same module with the same settings file; the profile's parallel.launchers says which are tried. Under "
    "accelerate and deepspeed the step is theirs: wrapping, accumulation, backward, clipping. These runs are in single precision, and are "
    "compared with the plain one; broken runs and their reference are in double.",
    "A rank kills itself with SIGKILL in the middle of a step's interval between checkpoints. The run must fail naming that rank, leave no "
    "other, and the next run must go on from the file and end on the unbroken run's curve: with as many ranks, with fewer, with more.",
]
NO_DEEPSPEED = "deepspeed is not installed and was not run: `make deepspeed` puts it into its own folder, outside the project's environment."


def runs_of(settings: ParallelSettings) -> dict[str, tuple[Launcher, Strategy]]:
    """What each launcher of the settings runs, by name: deepspeed every ZeRO stage, the others with several ranks plain data parallelism."""
    runs: dict[str, tuple[Launcher, Strategy]] = {}
    for launcher in settings.launchers:
        if launcher == "deepspeed":
            runs |= {f"deepspeed_zero{stage}": (launcher, f"zero{stage}") for stage in settings.deepspeed_stages}
        else:
            runs[launcher] = launcher, "single" if launcher == "plain" else "ddp"
    return runs


def launched(launcher: Launcher, strategy: Strategy, job: Job, settings: ParallelSettings, progress: Callable[[str], None]) -> dict[str, Any]:
    """The run under one launcher: its losses, ranks, and the library that wrapped the model."""
    ranks = 1 if launcher == "plain" else settings.ranks
    job = job.model_copy(update={"strategy": strategy, "engine": ENGINES.get(launcher, "torch"), "precision": "float32"})
    progress(f"{launcher}: {ranks} rank{'s' if ranks > 1 else ''}, strategy {strategy}")
    found = launch(job, launcher, ranks, progress)
    return {"losses": found[0]["losses"], "ranks": found[0]["ranks"], "strategy": strategy, "wrapped": found[0]["extra"].get("engine", "torch")}


def broken(
    name: str, job: Job, settings: ParallelSettings, progress: Callable[[str], None], *, target: Callable[..., None] | None = None
) -> dict[str, Any]:
    """Kill the last rank between two checkpoints, then run on as RESUMED says; ``target`` runs the resumed ranks in place of the trainer's own.

    ``named``: whether the error named the rank and what to do. ``resumed``: the step it went on from.
    """
    strategy, then = RESUMED[name]
    ranks, count = (1 if each == "single" else settings.ranks for each in (strategy, then))
    checkpoints, at = str(Path(job.out) / "checkpoints"), settings.checkpoint_every + max(1, settings.checkpoint_every // 2)
    shutil.rmtree(checkpoints, ignore_errors=True)
    first = job.model_copy(update={"strategy": strategy, "checkpoints": checkpoints, "killed": (ranks - 1, at)})
    message, rank = "", None
    try:
        fork(first, ranks, progress)
    except RankDied as error:
        message, rank = str(error), error.rank
    progress(f"{name}: {message or 'nothing failed'}")
    second = first.model_copy(update={"strategy": then, "killed": None})
    found = fork(second, count, progress, target=target)
    named = rank == ranks - 1 and "SIGKILL" in message and "Run the same again" in message
    return {"message": message, "named": named, "resumed": found[0]["resumed"], "losses": found[0]["losses"], "killed_at": at}


def launcher_study(
    corpus: DirectoryArtifact, settings: ParallelSettings, *, seed: int, checkpoints: Path, progress: Callable[[str], None]
) -> StudyResult:
    """Every launcher of the settings, then every broken run. Finished ones in ``checkpoints`` are taken up again."""
    blocks, vocab_size = read_blocks(corpus, settings)
    cells, folder = Cells(checkpoints, progress), checkpoints / "runs"
    apart = {"launchers", "deepspeed", "deepspeed_stages", "stages", "micro_batches", "parts"}
    kept = [settings.model_dump(mode="json", exclude=apart), seed, vocab_size]

    def job(name: str) -> Job:
        written = write_blocks(blocks, folder)
        return Job(strategy="single", settings=settings, vocab_size=vocab_size, seed=seed, blocks=written, out=str(folder / name))

    remarks, found = list(REMARKS), {}
    reference = cells.get("reference", kept, lambda: {"losses": fork(job("reference"), 1, progress)[0]["losses"]})["losses"]
    there = deepspeed_folder(settings) is not None
    if "deepspeed" in settings.launchers and not there:
        remarks.append(NO_DEEPSPEED)
    for name, run in runs_of(settings).items():
        if run[0] != "deepspeed" or there:
            found[name] = cells.get(name, kept, lambda name=name, run=run: launched(*run, job(name), settings, progress))
    breaks = {name: cells.get(f"broken {name}", kept, lambda name=name: broken(name, job(name), settings, progress)) for name in RESUMED}
    shutil.rmtree(folder, ignore_errors=True)
    runs = {**found, **{f"killed, {name.replace('_', ' ')}": run for name, run in breaks.items()}}
    losses = pd.DataFrame({
        "example_id": [f"step {step}" for step in range(settings.steps)], "reference": reference,
        **{name: run["losses"] for name, run in runs.items()},
    })  # fmt: skip
    return StudyResult(
        study="launcher_study", metrics=_metrics(reference, found, breaks, settings), settings=settings.model_dump(mode="json"), seeds=[seed],
        remarks=remarks, per_example=losses, tables={"launchers": _launchers(found), "broken": _broken(reference, breaks)},
        plots={"differences": _plot(reference, runs)},
    )  # fmt: skip


def resumed_difference(reference: list[float], run: dict[str, Any]) -> float:
    """How far a resumed run's curve is from the unbroken one; NaN where it began anew instead of going on."""
    return curve_difference(reference, run["losses"]) if 0 < run["resumed"] <= run["killed_at"] else float("nan")


def _metrics(
    reference: list[float], found: dict[str, dict[str, Any]], breaks: dict[str, dict[str, Any]], settings: ParallelSettings
) -> list[Metric]:
    steps = settings.steps
    by_launcher = pd.Series([curve_difference(found["plain"]["losses"], run["losses"]) for run in found.values()], dtype=float)
    return [
        Metric(name="launcher_difference", value=by_launcher.max(skipna=False), n=steps * len(found), higher_is_better=False),
        Metric(name="launchers", value=len(found), n=len(runs_of(settings))),
        *(Metric(name=f"launched__{name}", value=name in found, n=1) for name in runs_of(settings)),
        Metric(name="killed_rank_named", value=sum(run["named"] for run in breaks.values()) / len(breaks), n=len(breaks)),
        *(
            Metric(name=f"resumed__{name}", value=resumed_difference(reference, run), n=steps, higher_is_better=False)
            for name, run in breaks.items()
        ),
    ]


def _launchers(found: dict[str, dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([
        {"launcher": name, "ranks": run["ranks"], "strategy": run["strategy"], "model_is": run["wrapped"], "final_loss": run["losses"][-1],
         "difference": curve_difference(found["plain"]["losses"], run["losses"])}
        for name, run in found.items()
    ])  # fmt: skip


def _broken(reference: list[float], breaks: dict[str, dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([
        {"run": name, "killed": RESUMED[name][0], "then": RESUMED[name][1],
         "killed_at": run["killed_at"], "resumed_at": run["resumed"], "difference": resumed_difference(reference, run), "message": run["message"]}
        for name, run in breaks.items()
    ])  # fmt: skip


def _plot(reference: list[float], runs: dict[str, dict[str, Any]]) -> bytes:
    def paint(axes: Axes) -> None:
        for name, run in runs.items():
            apart = [abs(a - b) / abs(a) for a, b in zip(reference, run["losses"], strict=True)]
            axes.plot(range(1, len(reference) + 1), apart, marker=".", label=name)
        axes.set_yscale("symlog", linthresh=1e-16)

    return draw(paint, title="Difference from one rank in double precision", x="step", y="relative", size=(6.0, 3.6))
