"""The ablation study at toy size: fair comparisons, resume, its asset, and what is seen when a part or a comparison is broken."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import dagster as dg
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from curriculum.artifacts import DirectoryArtifact
from curriculum.corpora.documents import document, documents_table
from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge
from curriculum.results import StudyResult
from curriculum.syllabus import load_syllabus
from curriculum.tokenization.packing import TokenBlocks, build_tokenized_corpus
from curriculum.tokenization.settings import TokenizationSettings
from curriculum.transformer import ablation_probes, blocks
from curriculum.transformer import ablation_study as subject
from curriculum.transformer.ablation_cells import Text, Variant, read_text, recut, train_cell, variants
from curriculum.transformer.ablation_study import Runs, ablation_study, change_of, rows_table, run_cells
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.model import Transformer
from curriculum.transformer.settings import AblationSettings

torch.set_num_threads(1)
TINY = AblationSettings(
    seeds=2, length=16, stretch=2, test_windows=20, validation_blocks=4, small_tokens=160, timing_rounds=2, steps=10, batch_size=4, warmup_steps=2,
    validate_every=5, layers=2, width=16, heads=2, hidden=32, experts=4,
)  # fmt: skip
CONFIG = variants(TINY)[0].config(TINY, 90)
PAGES = {f"{name}/{i}": part for name, page in sorted(topics.items()) for i, part in enumerate(page.split("\n\n")) if len(part) > 200}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DirectoryArtifact:
    table = documents_table([document(name, name, text) for name, text in list(PAGES.items())[:300]], "pages")
    settings = TokenizationSettings(vocab_size=400, block_size=32, held_out_tokens=4000, train_tokens=50_000)
    return build_tokenized_corpus(table, settings, tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def text(corpus: DirectoryArtifact) -> Text:
    return read_text(corpus, TINY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cells")


@pytest.fixture(scope="module")
def result(corpus: DirectoryArtifact, folder: Path) -> StudyResult:
    return ablation_study(corpus, TINY, seed=0, checkpoints=folder, progress=lambda line: None)


@pytest.fixture
def runs(result: StudyResult, text: Text, folder: Path) -> Runs:
    rows = variants(TINY)
    return Runs(rows, [0, 1], run_cells(text, rows, TINY, [0, 1], folder, lambda line: None), {})


def row(label: str) -> Variant:
    return next(found for found in variants(TINY) if found.label == label)


def verdict(metric: str, value: float) -> Verdict:
    """What the syllabus's bar on the study's ``metric`` says of ``value``."""
    return judge(next(bar for bar in load_syllabus().claims if bar.asset == "ablation_study" and bar.metric == metric), value).verdict


def test_the_rows_compare_what_the_topics_ask_for() -> None:
    rows = variants(AblationSettings())
    assert len({found.label for found in rows}) == len(rows) == 21
    sizes = {found.label: found.config(AblationSettings(), 4096).parameters() for found in rows}
    assert sizes["swiglu"] == sizes["geglu"] == sizes["gelu"] == sizes["relu"]
    assert sizes["rms_pre"] == sizes["rms_post"] == sizes["layer_pre"] - 9 * 64 and sizes["layer_post"] == sizes["layer_pre"]
    assert sizes["untied"] - sizes["tied"] == 4096 * 64 and sizes["balanced"] > 1.5 * sizes["dense"]
    routed, without = (next(found for found in rows if found.label == label) for label in ("balanced", "unbalanced"))
    assert routed.change == without.change and routed.budget(AblationSettings()).balance_weight > 0 == without.budget(AblationSettings()).balance_weight


def test_every_token_is_scored_once_at_any_length(corpus: DirectoryArtifact, text: Text) -> None:
    packed = TokenBlocks(corpus.path, "test").blocks
    stream = packed[:, 1:].flatten()
    for length in (1, 7, 16, 100):
        cut = recut(packed, length)
        assert torch.equal(cut[:, 1:].flatten(), stream[: len(cut) * length]) and len(stream) - cut[:, 1:].numel() < length
        assert torch.equal(cut[1:, 0], cut[:-1, -1])
    assert torch.equal(text.test[:, 1:].flatten(), text.long[:, 1:].flatten()), "the same tokens inside and past the length"
    assert len(recut(packed[:1], 33)) == 0 and text.small[:, 1:].numel() == 160


def test_the_study(result: StudyResult) -> None:
    assert all(math.isfinite(metric.value) for metric in result.metrics)
    names = {metric.name for metric in result.metrics}
    assert {bar.metric for bar in load_syllabus().claims if bar.asset == "ablation_study"} <= names
    table = result.tables["rows"].set_index("row")
    for label, reference in (("relu", "swiglu"), ("untied", "tied"), ("no_position", "rope"), ("dropout_20", "dropout_0")):
        metric = result.metric(f"change__{label}")
        assert metric.value == pytest.approx(result.value(f"nats__{label}") - result.value(f"nats__{reference}"))
        assert metric.low <= min(table.loc[label, ["block_low", "seed_low"]]) and metric.high >= max(table.loc[label, ["block_high", "seed_high"]])
    assert table.loc["rope", "nats"] == table.loc["dense", "nats"] and np.isnan(table.loc["rope", "change"])
    assert result.value("learned_refused") == 1 and "past_change__learned" not in names and "past_change__alibi" in names
    assert len(result.per_example) == 2 * 40 and result.per_example["example_id"].is_unique
    curves = result.tables["curves"]
    assert set(curves["step"]) == {5, 10} and len(curves) == 21 * 2 * 2
    assert all(png.startswith(b"\x89PNG") and len(png) < 50_000 for png in result.plots.values()) and len(result.plots) == 8


def test_a_killed_study_goes_on_with_the_next_cell(
    text: Text, result: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, trained, lines = subject.train_cell, [], []

    def dies(*given: Any) -> dict[str, Any]:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(1)
        return real(*given)

    rows = [found for found in variants(TINY) if found.group in {"norm", "embedding"}]  # five cells: both begin with the reference
    monkeypatch.setattr(subject, "train_cell", dies)
    with pytest.raises(KeyboardInterrupt):
        run_cells(text, rows, TINY, [0], tmp_path, lines.append)
    monkeypatch.setattr(subject, "train_cell", real)
    resumed = run_cells(text, rows, TINY, [0], tmp_path, lines.append)
    assert [line.split(":")[0] for line in lines if line.endswith("kept from before")] == ["rms_pre, seed 0", "layer_pre, seed 0"]
    assert [line.split(" ")[0] for line in lines if " nats a token " in line] == [f"{n}/5" for n in (1, 2, 3, 4, 5)]
    for found in rows:
        assert resumed[found.label, 0]["nats"] == list(result.per_example[f"nats__{found.label}"][:40]), "as in an uninterrupted run"
    assert not list(tmp_path.glob("training*"))


def test_the_asset_and_its_claims(corpus: DirectoryArtifact, resources: Callable[..., dict[str, Any]]) -> None:
    from assets.foundations import ablation_study as asset
    from assets.lineage import Lab, lineage_asset
    from tests.lineage import claims_on

    @lineage_asset(group="test")
    def tokenized_corpus(lab: Lab) -> DirectoryArtifact:
        """The pages of the language reference, packed."""
        shutil.copytree(corpus.path, lab.out, dirs_exist_ok=True)
        return DirectoryArtifact(lab.out, corpus.facts)

    checks = claims_on("ablation_study")
    made = resources(ablations={**TINY.model_dump(mode="json"), "steps": 2, "validate_every": 1})
    done = dg.materialize([tokenized_corpus, asset, *checks], resources=made, instance=dg.DagsterInstance.ephemeral(), raise_on_error=False)
    passed = {e.check_name.removeprefix("claim_ablation_study_") for e in done.get_asset_check_evaluations() if e.passed}
    assert len(done.get_asset_check_evaluations()) == len(checks) == 18
    assert passed >= {
        "norm_max_error", "activation_parameter_spread", "rope_shift_error", "learned_refused", "dropout_eval_change", "dropout_expectation_z",
        "lookup_max_error", "tables_saved_by_tying", "mask_leak",
    }  # fmt: skip


def test_a_row_that_sees_the_future_is_seen(text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdict("mask_leak", train_cell(text, row("alibi"), TINY, 0, tmp_path)["mask_leak"]) is Verdict.PASSED
    monkeypatch.setattr(blocks, "visible", lambda query, key, *rest, **more: torch.ones(len(query), len(key), dtype=torch.bool)[None])
    assert verdict("mask_leak", train_cell(text, row("alibi"), TINY, 0, tmp_path)["mask_leak"]) is Verdict.FAILED


def test_a_skewed_router_needs_the_balancing_loss(text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Transformer._initialise

    def skewed(model: Transformer) -> None:
        real(model)
        for block in model.decoder.blocks:
            with torch.no_grad():  # one of the first two experts always beats the others
                block.feed_forward.router.weight[1] = -block.feed_forward.router.weight[0]
                block.feed_forward.router.weight[2:] *= 1e-3

    monkeypatch.setattr(Transformer, "_initialise", skewed)
    settings = TINY.model_copy(update={"steps": 60, "balance_weight": 1.0, "experts_per_token": 1, "learning_rate": 2e-2, "layers": 1})
    lowest = {}
    for found in variants(settings):
        if found.label in {"balanced", "unbalanced"}:
            lowest[found.label] = min(train_cell(text, found, settings, 0, tmp_path)["entropy"])
    assert verdict("lowest_load_entropy__balanced", lowest["unbalanced"]) is Verdict.FAILED
    assert verdict("lowest_load_entropy__balanced", lowest["balanced"]) is Verdict.PASSED


def test_blocks_paired_with_others_are_seen(runs: Runs) -> None:
    new, old = runs.nats("layer_pre"), runs.nats("rms_pre")
    right, wrong = change_of(new, old), change_of(np.roll(new, 1, axis=1), old)
    assert wrong["change"] == pytest.approx(right["change"]), "the mean does not tell"
    assert wrong["block_high"] - wrong["block_low"] > 3 * (right["block_high"] - right["block_low"])
    paired = rows_table(runs).set_index("row")["pairing"]
    for seed in runs.seeds:
        cell = runs.cells["layer_pre", seed]
        runs.cells["layer_pre", seed] = {**cell, "nats": list(np.roll(cell["nats"], 1))}
    mixed = rows_table(runs).set_index("row")["pairing"]
    assert verdict("lowest_pairing", paired["layer_pre"]) is Verdict.PASSED and verdict("lowest_pairing", mixed["layer_pre"]) is Verdict.FAILED
    with pytest.raises(ValueError, match="one non-empty shape"):
        change_of(new[:, 1:], old)


def test_a_difference_of_one_seed_is_not_told_apart() -> None:
    old = np.random.default_rng(0).normal(5, 1, (3, 200))
    lucky = old + np.array([[-0.6], [0.0], [0.02]])
    steady = old - np.array([[0.2], [0.21], [0.19]])
    assert change_of(lucky, old)["block_high"] < 0 < change_of(lucky, old)["high"], "over blocks alone it would seem certain"
    assert change_of(steady, old)["high"] < 0


def test_gated_blocks_of_the_plain_width_are_seen(runs: Runs, text: Text) -> None:
    for seed in runs.seeds:
        more = ModelConfig(**{**vars(CONFIG), "hidden": TINY.hidden * 3 // 2}).parameters() - CONFIG.parameters()
        cell = runs.cells["geglu", seed]
        runs.cells["geglu", seed] = {**cell, "parameters": cell["parameters"] + more}
    spread = next(m.value for m in subject._conservation(runs, text, TINY) if m.name == "activation_parameter_spread")
    assert verdict("activation_parameter_spread", spread) is Verdict.FAILED


def _added_epsilon(config: ModelConfig) -> torch.nn.Module:
    norm = blocks.make_norm(config)
    norm.eps += 1e-3
    return norm


BROKEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "norm_max_error": lambda patch: patch.setattr(ablation_probes, "make_norm", _added_epsilon),
    "rope_shift_error": lambda patch: patch.setattr(  # angles that grow with the square of the place
        ablation_probes, "rope_angles", lambda places, size, theta, real=ablation_probes.rope_angles: real(places**2 / 50, size, theta)
    ),
    "lookup_max_error": lambda patch: patch.setattr(  # gradients of the table divided by how often an id comes
        torch.nn.Embedding, "forward", lambda layer, ids: torch.nn.functional.embedding(ids, layer.weight, scale_grad_by_freq=True)
    ),
    "dropout_eval_change": lambda patch: patch.setattr(  # the functional form without the mode
        blocks.F, "dropout", lambda x, share, training=True, real=torch.nn.functional.dropout: real(x, share)
    ),
    "dropout_expectation_z": lambda patch: patch.setattr(  # not divided by what is kept
        ablation_probes.F, "dropout", lambda x, share, training=True: x * (torch.rand_like(x) >= share)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_part_that_is_not_what_it_is_called_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdict(name, ablation_probes.PROBES[name](CONFIG, 0)) is Verdict.PASSED
    BROKEN[name](monkeypatch)
    assert verdict(name, ablation_probes.PROBES[name](CONFIG, 0)) is Verdict.FAILED


def test_a_model_without_dropout_cannot_pass_for_one_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks.F, "dropout", lambda x, share, training=True: x)
    monkeypatch.setattr(blocks, "fused_attention", lambda *given, dropout=0.0, real=blocks.fused_attention, **more: real(*given, **more))
    assert verdict("dropout_eval_change", ablation_probes.dropout_eval_change(CONFIG, 0)) is Verdict.FAILED


@pytest.mark.parametrize(
    ("change", "message"),
    [({"hidden": 33}, "hidden 33 must divide by 2"), ({"width": 18, "heads": 4}, "width 18 must divide"), ({"dropouts": (1.5,)}, "shares between"),
     ({"experts": 2, "experts_per_token": 4}, "more than experts 2")],
)  # fmt: skip
def test_settings_that_would_compare_unequal_things(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AblationSettings(**change)


def test_too_little_text(corpus: DirectoryArtifact) -> None:
    with pytest.raises(DataError, match="fewer than two test windows of 4000 tokens"):
        read_text(corpus, TINY.model_copy(update={"length": 40, "stretch": 100}))
