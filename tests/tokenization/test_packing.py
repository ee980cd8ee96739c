"""The packed corpus: every token predicted once, bytes counted exactly, nothing on two sides, the same files twice."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.artifacts import DirectoryArtifact
from curriculum.corpora.documents import document, documents_table
from curriculum.errors import DataError
from curriculum.tokenization import packing
from curriculum.tokenization.packing import TokenBlocks, build_tokenized_corpus, pack
from curriculum.tokenization.settings import TokenizationSettings
from curriculum.tokenization.training import END

torch.set_num_threads(1)
SETTINGS = TokenizationSettings(vocab_size=300, block_size=16, train_tokens=100_000, held_out_tokens=100_000)
WORDS = ["naïve", "токен", "😀", "alpha", "beta", "gamma", "delta", END, "\n\n", "  two", "x = 1"]


def corpus(size: int = 120, seed: int = 0) -> pd.DataFrame:
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=40)) + f" number {i}" for i in range(size)]
    return documents_table([document(f"d{i:03}", "t", text) for i, text in enumerate(texts)], "test")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> DirectoryArtifact:
    return build_tokenized_corpus(corpus(), SETTINGS, tmp_path_factory.mktemp("packed"))


def stream(blocks: torch.Tensor) -> list[int]:
    return [int(blocks[0, 0]), *blocks[:, 1:].flatten().tolist()]


@settings(max_examples=100, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(1, 50), max_size=12), min_size=1, max_size=8),
    block=st.integers(1, 9), limit=st.integers(1, 60),
)
def test_every_token_is_predicted_once_and_in_order(documents: list[list[int]], block: int, limit: int) -> None:
    blocks = pack(documents, 0, block, limit)
    whole = [0, *(token for ids in documents for token in [*ids, 0])]
    count = min(limit, len(whole) - 1) // block
    assert blocks.shape == (count, block + 1) and blocks.dtype == np.int32
    if count:
        assert stream(torch.from_numpy(blocks)) == whole[: count * block + 1]


def test_what_is_packed_is_the_text(built: DirectoryArtifact) -> None:
    texts = set(corpus()["text"])
    seen: list[str] = []
    for split in TokenBlocks.load(built.path).values():
        tokenizer = split.tokenizer()
        pieces = np.split(np.array(stream(split.blocks)), np.flatnonzero(np.array(stream(split.blocks)) == split.end))
        found = [tokenizer.decode(piece[1:].tolist(), skip_special_tokens=False) for piece in pieces if len(piece) > 1]
        assert set(found[:-1]) <= texts and any(text.startswith(found[-1].rstrip("\ufffd")) for text in texts)
        assert len(found) == split.documents
        seen += found[:-1]
    assert len(seen) == len(set(seen)) > 100
    assert any(END in text for text in seen), "an end token written out in a text is text"


def test_bytes_are_those_of_the_predicted_tokens(built: DirectoryArtifact) -> None:
    for split in TokenBlocks.load(built.path).values():
        text = split.tokenizer().decode([t for t in stream(split.blocks) if t != split.end], skip_special_tokens=False)
        cut = 4 if text.endswith("\ufffd") else 0  # the tail may end inside a character
        assert abs(split.bytes - len(text.rstrip("\ufffd").encode())) <= cut
        assert split.tokens == split.blocks[:, 1:].numel() == len(split) * split.block_size
        assert split.blocks.dtype == torch.int64 and split.blocks.max() < split.vocab_size


def test_facts_are_for_checks(built: DirectoryArtifact) -> None:
    assert built.facts["leaked_documents"] == 0 and built.facts["vocab_size"] == 300
    assert set(built.facts["splits"]) == {"train", "validation", "test"}
    assert json.loads((built.path / "meta.json").read_text())["splits"] == built.facts["splits"]


def test_near_duplicates_do_not_leak_and_a_split_by_document_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = corpus(60)
    copies = table.assign(doc_id=table["doc_id"] + "-copy", text=table["text"] + " once more")
    doubled = documents_table(pd.concat([table, copies])[["doc_id", "title", "text"]].to_dict("records"), "test")
    doubled = doubled.assign(digest=[f"{i * 7919 % 120:03}" for i in range(120)])
    assert build_tokenized_corpus(doubled, SETTINGS, tmp_path).facts["leaked_documents"] == 0

    def by_document(texts: list[str], shares: dict[str, float], threshold: float) -> list[str]:
        return [("train", "validation", "test")[hash_of % 3] for hash_of in range(len(texts))]

    monkeypatch.setattr(packing, "split_by_cluster", by_document)
    assert build_tokenized_corpus(doubled, SETTINGS, tmp_path).facts["leaked_documents"] > 20


def test_the_same_corpus_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        build_tokenized_corpus(corpus().sample(frac=1, random_state=len(name)), SETTINGS, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["meta.json", "test.safetensors", "tokenizer.json", "train.safetensors", "validation.safetensors"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_the_tokenizer_sees_no_held_out_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on: list[str] = []
    real = packing.train_tokenizer
    monkeypatch.setattr(packing, "train_tokenizer", lambda kind, texts, size: trained_on.extend(texts) or real(kind, texts, size))
    build_tokenized_corpus(corpus(), SETTINGS, tmp_path)
    blocks = TokenBlocks(tmp_path, "test")
    held_out = blocks.tokenizer().decode(stream(blocks.blocks), skip_special_tokens=False)
    assert trained_on and not [text for text in trained_on if text in held_out]


def test_token_budgets_hold(tmp_path: Path) -> None:
    limits = SETTINGS.model_copy(update={"train_tokens": 1000, "held_out_tokens": 100})
    splits = build_tokenized_corpus(corpus(), limits, tmp_path).facts["splits"]
    assert splits["train"]["tokens"] == 992 and splits["test"]["tokens"] == 96
    assert splits["train"]["documents"] < 30


def test_too_little_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split holds less than one block of 16 tokens; add text"):
        build_tokenized_corpus(documents_table([document("d", "t", "short")], "test"), SETTINGS, tmp_path)


def test_a_folder_that_is_no_corpus(tmp_path: Path, built: DirectoryArtifact) -> None:
    with pytest.raises(DataError, match="no tokenized corpus"):
        TokenBlocks.load(tmp_path)
    with pytest.raises(DataError, match="no split 'dev'; it has train, validation, test"):
        TokenBlocks(built.path, "dev")
