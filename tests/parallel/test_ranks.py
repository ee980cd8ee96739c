"""Two real processes: the studies at toy size through the orchestrator, and ranks that skip their part seen by the claims."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import torch

from curriculum.artifacts import DirectoryArtifact
from curriculum.corpora.documents import document, documents_table
from curriculum.errors import DataError
from curriculum.parallel.job import Job
from curriculum.parallel.launch import RankDied, deepspeed_folder, fork, launch
from curriculum.parallel.launcher_study import broken, resumed_difference
from curriculum.parallel.parallelism_study import ledger_table, run_cell
from curriculum.parallel.runs import curve_difference, read_blocks, write_blocks
from curriculum.parallel.settings import ParallelSettings
from curriculum.tokenization.packing import build_tokenized_corpus
from curriculum.tokenization.settings import TokenizationSettings
from tests.parallel import forked
from tests.parallel.tiny import BLOCKS, TINY, VOCABULARY, passes

torch.set_num_threads(1)
STUDY = "parallelism_study"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return run_cell("single", BLOCKS, VOCABULARY, TINY, 0, tmp_path_factory.mktemp("reference"))["losses"]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(strategy="ddp", settings=TINY, vocab_size=VOCABULARY, seed=0, blocks=write_blocks(BLOCKS, tmp_path), out=str(tmp_path / "run"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DirectoryArtifact:
    texts = [f"Line {i}: the step of number {i * 7} reads what step {i * 3} wrote, and says so." for i in range(120)]
    table = documents_table([document(f"d{i}", f"d{i}", " ".join(texts[i : i + 5])) for i in range(100)], "lines")
    settings = TokenizationSettings(vocab_size=300, block_size=32, held_out_tokens=300, train_tokens=3000)
    return build_tokenized_corpus(table, settings, tmp_path_factory.mktemp("corpus"))


def test_every_strategy_learns_the_same_and_its_claims_are_green(corpus: DirectoryArtifact, tmp_path: Path) -> None:
    from assets.lineage import lineage_asset
    from curriculum.parallel.parallelism_study import parallelism_study
    from curriculum.profile import load_profile
    from curriculum.syllabus import load_syllabus
    from pipelines.guardrails import bar_checks
    from resources.build import build_resources

    @lineage_asset(group="test", name=STUDY, settings="parallel")
    def study(lab: Any) -> Any:
        """The real study at toy size."""
        return parallelism_study(corpus, TINY, seed=0, checkpoints=lab.checkpoints, progress=lab.progress)

    bars = bar_checks(load_syllabus(), load_profile("starter"))
    checks = [c for c in bars if any(f"{STUDY}_" in key.name for key in c.check_keys)]
    done = dg.materialize([study, *checks], resources=build_resources("starter", tmp_path, journal=False), raise_on_error=False)
    verdicts = {e.check_name.partition(f"{STUDY}_")[2]: e.passed for e in done.get_asset_check_evaluations()}
    verdicts.pop("bubble_fall")  # by the clock, at a toy's size
    assert done.success and len(verdicts) > 12 and all(verdicts.values()), verdicts


def test_ranks_that_skip_the_all_reduce_are_red(reference: list[float], tmp_path: Path) -> None:
    found = run_cell("ddp", BLOCKS, VOCABULARY, TINY, 0, tmp_path, target=forked.skips_the_all_reduce)
    assert not passes(STUDY, "loss_difference__ddp", curve_difference(reference, found["losses"]))
    sent = sum(t["sent"] for t in found["traffic"])
    assert not passes(STUDY, "traffic_over_formula__ddp", sent / (2 * found["parameters"] * 8))


def test_partial_results_that_are_not_summed_are_red(reference: list[float], tmp_path: Path) -> None:
    found = run_cell("tensor", BLOCKS, VOCABULARY, TINY, 0, tmp_path, target=forked.sums_no_partial_results)
    assert not passes(STUDY, "logit_error", max(e["logit_error"] / e["logit_scale"] for e in found["extra"]))
    assert not passes(STUDY, "loss_difference__tensor", curve_difference(reference, found["losses"]))


def test_our_split_of_columns_and_rows_is_torchs(job: Job) -> None:
    for found in fork(job, 2, lambda line: None, target=forked.compares_with_torch):
        assert [len(values) for values in found["ours"]] == [48, 48, 12 * 16, 16 * 12]
        for ours, theirs in zip(found["ours"], found["theirs"], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-6)


def test_a_stage_that_shards_too_little_is_red(tmp_path: Path) -> None:
    found = run_cell("zero2", BLOCKS, VOCABULARY, TINY, 0, tmp_path)
    table = ledger_table({"zero3": found}, TINY)
    assert not passes(STUDY, "memory_error__zero3", table[table["part"] == "parameters"]["error"].max())
    assert not passes(STUDY, "traffic_over_formula__zero3", (table["measured"] / table["formula"])[table["part"] == "sent"].mean())


@pytest.mark.parametrize("name", ["to_fewer", "to_more"])
def test_a_killed_rank_is_named_and_the_run_goes_on_with_another_number(reference: list[float], job: Job, name: str) -> None:
    found = broken(name, job, TINY, lambda line: None)
    assert found["named"] and found["resumed"] == 2 and passes("launcher_study", f"resumed__{name}", resumed_difference(reference, found)), found
    assert not [p for p in psutil.Process().children(recursive=True) if "rank" in " ".join(p.cmdline())]


def test_a_resume_without_the_moments_and_a_start_from_the_beginning_are_red(reference: list[float], job: Job) -> None:
    found = broken("same", job, TINY, lambda line: None, target=forked.forgets_the_moments)
    assert found["resumed"] == 2 and not passes("launcher_study", "resumed__same", resumed_difference(reference, found))
    assert not passes("launcher_study", "resumed__same", resumed_difference(reference, {"losses": reference, "resumed": 0, "killed_at": 3}))


def test_another_runs_checkpoint_and_a_damaged_one_start_anew(job: Job, tmp_path: Path) -> None:
    single = job.model_copy(update={"strategy": "single", "checkpoints": str(tmp_path / "kept")})
    first = fork(single, 1, lambda line: None)[0]
    again = fork(single, 1, lambda line: None)[0]
    assert (first["resumed"], again["resumed"]) == (0, 2) and again["losses"] == first["losses"]
    assert fork(single.model_copy(update={"seed": 1}), 1, lambda line: None)[0]["resumed"] == 0
    (tmp_path / "kept" / "ranks.safetensors").write_bytes(b"\x00" * 64)
    assert fork(single, 1, lambda line: None)[0]["resumed"] == 0


def test_whoever_stops_watching_leaves_no_rank(job: Job) -> None:
    pids: list[int] = []

    def interrupts(line: str) -> None:
        if " is process " in line:
            pids.append(int(line.split(" is process ")[1].split(",")[0]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fork(job.model_copy(update={"settings": TINY.model_copy(update={"steps": 10_000})}), 2, interrupts)
    until = time.monotonic() + 20
    while psutil.pid_exists(pids[0]) and time.monotonic() < until:
        time.sleep(0.05)
    assert not psutil.pid_exists(pids[0])


def test_a_rank_that_fails_says_why(job: Job) -> None:
    with pytest.raises(RankDied, match=r"rank 0 of 1 \(single\) failed: .*no such|No such"):
        fork(job.model_copy(update={"strategy": "single", "blocks": "/nowhere/blocks.safetensors"}), 1, lambda line: None)


def test_a_corpus_of_shorter_blocks_is_refused(corpus: DirectoryArtifact) -> None:
    with pytest.raises(DataError, match=r"lower parallel\.length \(64\)"):
        read_blocks(corpus, TINY.model_copy(update={"length": 64}))


needs_deepspeed = pytest.mark.skipif(deepspeed_folder(TINY) is None, reason="deepspeed is not there: `make deepspeed`")


@pytest.mark.e2e
@pytest.mark.parametrize(
    "name", ["plain", "torchrun", "accelerate", *(pytest.param(f"deepspeed_zero{s}", marks=needs_deepspeed) for s in (1, 2, 3))]
)
def test_every_launcher_of_the_environment_learns_the_same(name: str, job: Job) -> None:
    from curriculum.parallel.launcher_study import launched, runs_of

    launcher, strategy = runs_of(ParallelSettings())[name]
    plain = fork(job.model_copy(update={"strategy": "single", "precision": "float32"}), 1, lambda line: None)[0]["losses"]
    found = launched(launcher, strategy, job, TINY, lambda line: None)
    assert found["ranks"] == (1 if launcher == "plain" else 2)
    assert passes("launcher_study", "launcher_difference", curve_difference(plain, found["losses"]))


@pytest.mark.e2e
def test_torchrun_names_the_rank_that_was_killed(job: Job) -> None:
    with pytest.raises(RankDied, match="rank 1 of 2.*SIGKILL.*Run the same again"):
        launch(job.model_copy(update={"killed": (1, 2)}), "torchrun", 2, lambda line: None)
