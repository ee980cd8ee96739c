"""The vocabulary study at toy size: equal bytes, exact text, resume, and what would be seen if the budget were not equal."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pandas as pd
import pytest
import torch

from curriculum.artifacts import DirectoryArtifact
from curriculum.corpora.documents import document, documents_table
from curriculum.errors import DataError
from curriculum.results import StudyResult
from curriculum.tokenization.packing import TokenBlocks, build_tokenized_corpus
from curriculum.tokenization.settings import TokenizationSettings
from curriculum.transformer import vocabulary_study as subject
from curriculum.transformer.settings import VocabularyStudySettings
from curriculum.transformer.vocabulary_study import documents_of, pack_at, vocabulary_study

torch.set_num_threads(1)
TINY = VocabularyStudySettings(
    vocab_sizes=(300, 700), seeds=2, context_bytes=48, test_bytes=20_000, steps=30, batch_size=4, layers=1, width=32, heads=2, kv_heads=1,
    hidden=64, warmup_steps=5,
)  # fmt: skip
PAGES = {f"{name}/{i}": part for name, page in sorted(topics.items()) for i, part in enumerate(page.split("\n\n")) if len(part) > 200}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DirectoryArtifact:
    table = documents_table([document(name, name, text) for name, text in list(PAGES.items())[:500]], "pages")
    settings = TokenizationSettings(vocab_size=500, block_size=32, held_out_tokens=4000, train_tokens=100_000)
    return build_tokenized_corpus(table, settings, tmp_path_factory.mktemp("corpus"))


def run(corpus: DirectoryArtifact, folder: Path, lines: list[str] | None = None) -> StudyResult:
    return vocabulary_study(corpus, TINY, seed=0, checkpoints=folder, progress=(lines if lines is not None else []).append)


@pytest.fixture(scope="module")
def result(corpus: DirectoryArtifact, tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    return run(corpus, tmp_path_factory.mktemp("cells"))


def test_documents_come_back_as_they_were(corpus: DirectoryArtifact) -> None:
    known = set(PAGES.values())
    for split in ("train", "test"):
        texts = documents_of(TokenBlocks(corpus.path, split))
        assert len(texts) > 5 and set(texts) <= known


def test_blocks_of_every_size_stand_for_the_same_bytes(result: StudyResult) -> None:
    table: pd.DataFrame = result.tables["vocabularies"].set_index("vocabulary")
    assert result.value("training_bytes_spread") < 0.05
    assert table["block_tokens"][700] < table["block_tokens"][300] and table["bytes_per_token"][700] > table["bytes_per_token"][300]
    per_block = table["training_bytes"] / (TINY.steps * TINY.batch_size)
    assert per_block.to_numpy() == pytest.approx(TINY.context_bytes, rel=0.08)
    assert table["parameters"][700] - table["parameters"][300] == 400 * TINY.width


def test_bits_per_byte_are_the_loss_over_the_bytes(result: StudyResult) -> None:
    runs: pd.DataFrame = result.tables["runs"]
    assert len(runs) == 4 and result.seeds == [0, 1] and len(result.per_example) == 4
    tokens_a_byte = runs["block_tokens"] / TINY.context_bytes
    assert runs["bits_per_byte"].to_numpy() == pytest.approx((runs["nats_per_token"] / np.log(2) * tokens_a_byte).to_numpy(), rel=0.15)
    for size in TINY.vocab_sizes:
        metric = result.metric(f"bits_per_byte__{size}")
        assert metric is not None and metric.low <= metric.value <= metric.high and 1 < metric.value < 8 and metric.n == 2
    gain = result.value("bits_per_byte__300") - result.value("bits_per_byte__700")
    assert result.value("gain_of_largest") == pytest.approx(gain)
    assert result.plots["bits_per_byte"].startswith(b"\x89PNG") and len(result.plots["bits_per_byte"]) < 50_000


def test_two_processes_find_what_one_does(
    corpus: DirectoryArtifact, result: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "side_by_side", lambda: 2)
    assert run(corpus, tmp_path).per_example.equals(result.per_example)


def test_a_killed_study_goes_on_with_the_next_cell(corpus: DirectoryArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, trained = subject.train_cell, []

    def dies(*given: object, **more: object) -> dict[str, object]:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(1)
        return real(*given, **more)

    monkeypatch.setattr(subject, "train_cell", dies)
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path)
    monkeypatch.setattr(subject, "train_cell", real)
    lines: list[str] = []
    resumed, whole = run(corpus, tmp_path, lines), run(corpus, tmp_path / "whole")
    assert sum(line.endswith("kept from before") for line in lines) == 3
    assert list(resumed.per_example["bits_per_byte"]) == list(whole.per_example["bits_per_byte"])
    assert not list(tmp_path.glob("training*"))


def test_equal_tokens_instead_of_equal_bytes_would_be_seen(corpus: DirectoryArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subject.pack
    monkeypatch.setattr(subject, "pack", lambda documents, end, length, limit: real(documents, end, 24, limit))
    assert run(corpus, tmp_path).value("training_bytes_spread") > 0.1


def test_too_little_text() -> None:
    with pytest.raises(DataError, match="the test text fills no block"):
        pack_at(300, ["some words to learn from " * 20], ["x"], TINY.context_bytes)
