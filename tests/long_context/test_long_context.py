"""The study at toy size: the same tokens at every length, keys that are recalled or not, resume, its asset, and what is seen when it is broken."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import dagster as dg
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from curriculum.artifacts import DirectoryArtifact
from curriculum.cells import Cells
from curriculum.corpora.documents import document, documents_table
from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge
from curriculum.long_context import perplexity, scaling
from curriculum.long_context import study as subject
from curriculum.long_context.passkey import Recall, recalled, sequences, vocabulary
from curriculum.long_context.perplexity import Text, last_nats, read_text, sliding_nats, targets, windows
from curriculum.long_context.scaling import METHODS, change_at_factor_one, frequency_error, rescaled
from curriculum.long_context.settings import LongContextSettings, PasskeySettings
from curriculum.long_context.study import Runs, long_context_study, ratio_table
from curriculum.results import StudyResult
from curriculum.storage import ArtifactStore
from curriculum.syllabus import load_syllabus
from curriculum.tokenization.packing import build_tokenized_corpus
from curriculum.tokenization.settings import TokenizationSettings
from curriculum.transformer import positions
from curriculum.transformer.config import ModelConfig, RopeScaling
from curriculum.transformer.model import Transformer
from curriculum.transformer.objectives import mean_nats
from curriculum.transformer.settings import AttentionStudySettings

torch.set_num_threads(1)
KEYS = PasskeySettings(digits=2, symbols=4, fillers=4, cases=4, depths=(0.0, 1.0), steps=4, batch_size=4, warmup_steps=1, layers=1, width=16, heads=1, hidden=16)
TINY = LongContextSettings(
    seeds=2, length=16, stretch=3, windows=12, vocab_size=300, steps=4, batch_size=4, warmup_steps=1, layers=1, width=16, heads=1, hidden=16, passkey=KEYS,
    attention=AttentionStudySettings(lengths=(256, 1024), heads=1, head_dim=16, tile=64, repeats=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DirectoryArtifact:
    pages = {f"{name}/{i}": part for name, page in sorted(topics.items()) for i, part in enumerate(page.split("\n\n")) if len(part) > 200}
    table = documents_table([document(name, name, text) for name, text in list(pages.items())[:150]], "pages")
    settings = TokenizationSettings(vocab_size=400, block_size=32, held_out_tokens=2000, train_tokens=10_000)
    return build_tokenized_corpus(table, settings, tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def text(corpus: DirectoryArtifact) -> Text:
    return read_text(corpus, TINY)


@pytest.fixture(scope="module")
def made(corpus: DirectoryArtifact, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, dict[str, bool]]:
    """The asset's result, and which of its claims held, by metric."""
    from assets.inference import long_context_study as asset
    from assets.lineage import Lab, lineage_asset
    from resources.build import build_resources
    from tests.lineage import claims_on

    @lineage_asset(group="test")
    def tokenized_corpus(lab: Lab) -> DirectoryArtifact:
        """The pages of the language reference, packed."""
        shutil.copytree(corpus.path, lab.out, dirs_exist_ok=True)
        return DirectoryArtifact(lab.out, corpus.facts)

    home, overrides = tmp_path_factory.mktemp("home"), {"long_context": TINY.model_dump(mode="json")}
    checks = claims_on("long_context_study")
    done = dg.materialize(
        [tokenized_corpus, asset, *checks], instance=dg.DagsterInstance.ephemeral(), raise_on_error=False,
        resources=build_resources("starter", home, overrides=overrides, journal=False),
    )  # fmt: skip
    manifest = done.output_for_node("long_context_study").manifest
    held = {e.check_name.removeprefix("claim_long_context_study_"): e.passed for e in done.get_asset_check_evaluations()}
    return StudyResult.load(ArtifactStore(str(home / "artifacts" / "starter")).path(manifest)), held


@pytest.fixture
def result(made: tuple[StudyResult, dict[str, bool]]) -> StudyResult:
    return made[0]


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    found = Transformer(ModelConfig(50, 2, 32, 2, 2, 32)).eval()
    with torch.no_grad():
        for weight in found.parameters():
            weight.mul_(3.0)  # so that attention is not even, and positions matter
    return found


def verdict(metric: str, value: float) -> Verdict:
    return judge(next(bar for bar in load_syllabus().claims if bar.asset == "long_context_study" and bar.metric == metric), value).verdict


def test_every_length_scores_the_same_tokens(text: Text) -> None:
    starts = targets(text.stream, TINY)
    assert len(set(starts)) == len(starts) == 12 and min(starts) == 2 * 16
    asked = windows(text.stream, starts, 1, 16)[:, 1:]
    for times in (1, 2, 3):
        found = windows(text.stream, starts, times, 16)
        assert found.shape == (12, times * 16 + 1) and torch.equal(found[:, -16:], asked)


def test_the_sliding_window_scores_each_token_once_and_never_reads_further_than_in_training(
    text: Text, model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Transformer(ModelConfig(text.vocab_size, 1, 16, 1, 1, 16)).eval()
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(perplexity, "last_nats", lambda m, w, scored: (seen.append(w[:, -scored:]), last_nats(m, w, scored))[1])
    starts = targets(text.stream, TINY)
    nats = sliding_nats(model, text.stream, starts, 16)
    assert torch.equal(torch.cat(seen, dim=1), windows(text.stream, starts, 1, 16)[:, 1:]) and all(part.shape[1] == 4 for part in seen)
    # token by token, each from the window that the slide gives it
    for row, start in enumerate(starts[:3]):
        each = [float(last_nats(model, text.stream[None, end - 16 : end + 1], 16 - 12 + 0)[0]) for end in range(start + 4, start + 17, 4)]
        assert nats[row] == pytest.approx(np.mean(each), abs=1e-6)


def test_methods_change_far_positions_and_nothing_where_nothing_is_stretched(model: Transformer) -> None:
    ids = torch.randint(50, (2, 48), generator=torch.Generator().manual_seed(0))
    assert verdict("change_at_factor_1", change_at_factor_one(model, ids[:, :16])) is Verdict.PASSED
    with torch.no_grad():
        plain = model(ids)
        for name, method in METHODS.items():
            change = float((rescaled(model, method.scaling(3, 16))(ids) - plain).abs().max())
            assert (change == 0) == (name == "plain"), name
    assert METHODS["ntk_wide"].scaling(3, 16).factor == 6 == 2 * METHODS["ntk"].scaling(3, 16).factor


@pytest.mark.parametrize("kind", ["linear", "ntk", "yarn"])
def test_a_factor_that_is_off_is_seen(kind: str, model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    real, ids = positions.rope_frequencies, torch.arange(16)[None]

    def off(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> tuple[torch.Tensor, float]:
        wrong = scaling and scaling.kind == kind
        return real(head_dim, theta, RopeScaling(kind, scaling.factor + 0.5, scaling.original_length) if wrong else scaling)

    assert verdict("frequency_error", frequency_error(32, 10_000.0, 64, (1, 2, 4))) is Verdict.PASSED
    for module in (positions, scaling):
        monkeypatch.setattr(module, "rope_frequencies", off)
    assert verdict("frequency_error", frequency_error(32, 10_000.0, 64, (1, 2, 4))) is Verdict.FAILED
    assert verdict("change_at_factor_1", change_at_factor_one(model, ids)) is Verdict.FAILED


def test_a_ratio_past_the_bar_is_red() -> None:
    rng, rows = np.random.default_rng(0), [f"{name} {times}" for name in METHODS for times in (2, 3)]
    base = rng.normal(4, 1, 12)
    for apart, expected in ((0.05, (Verdict.PASSED, Verdict.FAILED)), (0.15, (Verdict.FAILED, Verdict.PASSED))):
        cell = {"sliding": base.tolist(), "block": base.tolist(), "long": {r: (base + apart).tolist() for r in rows}, "short": {r: base.tolist() for r in rows}}
        table = ratio_table(Runs([cell, cell], []), TINY).set_index(["method", "times"])
        assert table.loc[("ntk", 2), "ratio"] == pytest.approx(math.exp(apart)) and table.loc[("ntk", 2), "short_ratio"] == pytest.approx(1)
        assert (verdict("ratio__ntk__2x", table.loc[("ntk", 2), "ratio"]), verdict("ratio__plain__2x", table.loc[("plain", 2), "ratio"])) == expected


def test_a_key_lies_where_the_depth_says_and_is_asked_for_at_the_end() -> None:
    question = vocabulary(KEYS) - 1
    for depth, begin in ((0.0, 0), (1.0, 12), (None, None)):
        made = sequences(KEYS, 500, 16, np.random.default_rng(0), depth)
        assert made.shape == (500, 17) and (made[:, -3] == question).all() and (made == question).sum() == 500
        first = (made >= KEYS.fillers).int().argmax(1)
        assert (first == begin).all() if depth is not None else set(first.tolist()) == set(range(13))
        keys = torch.stack([row[at : at + 2] for row, at in zip(made, first, strict=True)])
        assert torch.equal(keys, made[:, -2:]) and ((made >= KEYS.fillers).sum(1) == 5).all()
        assert torch.equal((keys - KEYS.fillers) // KEYS.symbols, torch.tensor([[0, 1]]).expand(500, 2)), "an alphabet a place"
    batch = Recall(2).batch(made)
    assert torch.equal(batch.targets_BT[batch.asked_BT].view(500, 2), made[:, -2:])


def test_a_key_counts_when_a_model_would_write_it() -> None:
    easy = PasskeySettings(digits=1, symbols=2, fillers=2)
    torch.manual_seed(0)
    model = Transformer(ModelConfig(5, 1, 32, 2, 2, 64))
    optimizer, rng = torch.optim.Adam(model.parameters(), 1e-2), np.random.default_rng(0)
    for _ in range(50):
        optimizer.zero_grad()
        mean_nats(model, Recall(1).batch(sequences(easy, 64, 16, rng))).backward()
        optimizer.step()
    blocks = sequences(easy, 40, 16, np.random.default_rng(1))
    right = recalled(model.eval(), blocks, 1)
    assert right == [model.generate(row[:-1].tolist(), 1)[-1] == int(row[-1]) for row in blocks] and np.mean(right) > 0.9
    assert np.mean(recalled(model, torch.cat([blocks[:, :-1], 5 - blocks[:, -1:]], dim=1), 1)) < 0.1, "the other symbol"


def test_the_asset_s_claims(made: tuple[StudyResult, dict[str, bool]]) -> None:
    held = made[1]
    assert set(held) == {bar.metric for bar in load_syllabus().claims if bar.asset == "long_context_study"}
    assert held["frequency_error"] and held["change_at_factor_1"] and held["memory_growth__naive"] and held["memory_growth__tiled"]
    assert not held["passkey_lowest_seed"], "four steps teach nobody"


def test_the_study(result: StudyResult) -> None:
    assert all(math.isfinite(metric.value) for metric in result.metrics)
    table = result.tables["ratios"]
    assert len(table) == 5 * 2 and set(table["tokens"]) == {32, 48}
    for row in table.itertuples():
        assert row.low <= row.ratio <= row.high and row.ratio == pytest.approx(row.perplexity / result.value("perplexity__sliding"))
    assert len(result.tables["passkey"]) == 5 * 3 and len(result.per_example) == 2 * 12 and result.per_example["example_id"].is_unique
    assert verdict("memory_growth__naive", result.value("memory_growth__naive")) is Verdict.PASSED
    assert verdict("memory_growth__tiled", result.value("memory_growth__tiled")) is Verdict.PASSED
    assert verdict("memory_growth__tiled", result.value("memory_growth__naive")) is Verdict.FAILED, "scores kept whole"
    assert all(png.startswith(b"\x89PNG") and len(png) < 50_000 for png in result.plots.values()) and len(result.plots) == 3


def test_a_killed_study_goes_on_with_the_next_cell(
    corpus: DirectoryArtifact, result: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lines = subject.passkey_cell, []
    monkeypatch.setattr(subject, "passkey_cell", lambda settings, seed, folder, progress: 1 / 0 if seed else real(settings, seed, folder, progress))
    cells = Cells(tmp_path, lines.append)
    with pytest.raises(ZeroDivisionError):
        long_context_study(corpus, TINY, seed=0, cells=cells, progress=lambda line: None)
    monkeypatch.undo()
    resumed = long_context_study(corpus, TINY, seed=0, cells=cells, progress=lambda line: None)
    assert lines == ["text, seed 0: kept from before", "keys, seed 0: kept from before", "text, seed 1: kept from before"]
    assert resumed.per_example.equals(result.per_example), "as in an uninterrupted run"


@pytest.mark.parametrize(
    ("change", "message"),
    [({"width": 18, "heads": 4}, "width 18 must divide"), ({"passkey": {"digits": 8}, "length": 16}, "two keys of 8 symbols do not fit 16 tokens"),
     ({"length": 18}, "multiple of 4")],
)  # fmt: skip
def test_settings_that_cannot_be_run(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LongContextSettings(**change)


def test_the_slowest_pair_turns_as_little_within_the_training_length_as_llama_s() -> None:
    settings = LongContextSettings()
    slowest = [2 * math.pi / float(positions.rope_frequencies(*shape)[0][-1]) for shape in ((32, settings.rope_theta), (128, 10_000.0))]
    assert slowest[0] / settings.length == pytest.approx(slowest[1] / 2048, rel=0.05)


def test_too_little_text(corpus: DirectoryArtifact) -> None:
    with pytest.raises(DataError, match="fewer than two test windows of 4000 tokens"):
        read_text(corpus, TINY.model_copy(update={"length": 1000, "stretch": 4}))
