"""What the size of the vocabulary does to a language model, at equal bytes of training text and equal bytes of context.

A larger vocabulary packs more bytes into a token: fewer positions a byte, but a larger table and output layer. Loss a token cannot
compare them, since tokens differ; bits per byte can.
"""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer

from curriculum.artifacts import DirectoryArtifact
from curriculum.cells import Cell, Cells, side_by_side
from curriculum.errors import DataError
from curriculum.evaluation.statistics import mean_interval
from curriculum.plots import draw
from curriculum.results import Metric, StudyResult
from curriculum.tokenization.packing import TokenBlocks, pack, token_bytes
from curriculum.tokenization.training import END, train_tokenizer
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.objectives import block_nats
from curriculum.transformer.settings import VocabularyStudySettings
from curriculum.transformer.training import batch_rows, train_config

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REMARKS = [
    "All sizes read the same documents in the same number of steps, and a block stands for the same number of bytes; it has fewer "
    "tokens the larger the vocabulary. training_bytes_spread is how far the bytes that were read differ all the same.",
    "The body of the model has one shape throughout, so a larger vocabulary also means more parameters and more FLOPs in the output "
    "layer; both are in the table. One learning rate serves all sizes.",
    "Intervals are Student's t over the seeds, which change the weights' start and the order of the blocks, not the text or the tokenizer.",
    "Each tokenizer is trained on the training split alone. Bits per byte divide by the bytes of the test documents; end tokens are "
    "predicted and stand for no bytes.",
]


@dataclass(frozen=True)
class Packed:
    """Text under one tokenizer, in blocks of about equal bytes: ``train`` and ``test`` are int64 [blocks, tokens + 1]."""

    vocab_size: int
    sizes: np.ndarray  # int64 [vocabulary]: bytes behind each token
    train: torch.Tensor
    test: torch.Tensor

    def bytes_of(self, blocks: torch.Tensor) -> int:
        """Bytes of text behind the tokens that ``blocks`` predict."""
        return int(self.sizes[blocks[:, 1:].numpy()].sum())


def documents_of(data: TokenBlocks) -> list[str]:
    """The whole documents of a split, read back from its packed blocks; byte-level tokens give the very text.

    The last one is left out, as packing may have cut it.

    Raises:
        DataError: no document ends in the split.
    """
    stream = torch.cat([data.blocks[:, :-1].flatten(), data.blocks[-1, -1:]]).numpy()
    ends = np.flatnonzero(stream == data.end)
    tokenizer = data.tokenizer()
    texts = tokenizer.decode_batch([stream[a + 1 : b].tolist() for a, b in itertools.pairwise(ends)], skip_special_tokens=False)
    if not any(texts):
        raise DataError(f"the {data.split} split of {data.folder} holds no whole document; raise tokenization.held_out_tokens")
    return [text for text in texts if text]


def pack_at(size: int, train: list[str], test: list[str], context_bytes: int) -> Packed:
    """A tokenizer of ``size`` entries trained on ``train``, and both splits in blocks of ``context_bytes`` bytes on average.

    Raises:
        DataError: a split fills no block.
    """
    tokenizer = train_tokenizer("bpe", train, size)
    end = tokenizer.token_to_id(END)
    ids = {name: _encoded(tokenizer, texts) for name, texts in (("train", train), ("test", test))}
    sizes = token_bytes(tokenizer, end)
    tokens = sum(len(document) + 1 for document in ids["train"])
    length = max(2, round(context_bytes * tokens / sum(int(sizes[document].sum()) for document in ids["train"])))
    blocks = {name: torch.from_numpy(pack(documents, end, length, 10**9)).long() for name, documents in ids.items()}
    small = [name for name, found in blocks.items() if not len(found)]
    if small:
        raise DataError(f"the {' and '.join(small)} text fills no block of {length} tokens; add text or lower the study's context_bytes")
    return Packed(tokenizer.get_vocab_size(), sizes, blocks["train"], blocks["test"])


def _encoded(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


def cell_config(settings: VocabularyStudySettings, vocab_size: int) -> ModelConfig:
    """The model's shape at one size: only the table of tokens differs."""
    return ModelConfig(vocab_size, settings.layers, settings.width, settings.heads, settings.kv_heads, settings.hidden)


def train_cell(packed: Packed, settings: VocabularyStudySettings, seed: int, folder: Path) -> dict[str, Any]:
    """Train one model and score it: bits per byte, what it read, and what it cost."""
    config = cell_config(settings, packed.vocab_size)
    run = train_config(config, packed.train, settings, seed=seed, checkpoints=folder, progress=lambda line: None)
    nats = block_nats(run.model.eval(), packed.test)
    shutil.rmtree(folder, ignore_errors=True)  # the cell's result stands for the weights
    length = packed.test.shape[1] - 1
    read = [batch_rows(step, len(packed.train), settings.batch_size, seed) for step in range(settings.steps)]
    read_bytes = sum(packed.bytes_of(packed.train[torch.from_numpy(rows)]) for rows in read)
    tokens = settings.steps * settings.batch_size * length
    return {
        "bits_per_byte": float(nats.sum()) * length / packed.bytes_of(packed.test) / math.log(2), "nats_per_token": float(nats.mean()),
        "training_bytes": read_bytes, "training_tokens": tokens, "block_tokens": length, "parameters": config.parameters(),
        "table_parameters": config.vocab_size * config.width, "train_flops_per_byte": config.train_flops_per_token(length) * tokens / read_bytes,
        "test_bytes": packed.bytes_of(packed.test), "seconds": run.seconds,
    }  # fmt: skip


def vocabulary_study(
    corpus: DirectoryArtifact, settings: VocabularyStudySettings, *, seed: int, checkpoints: Path, progress: Callable[[str], None]
) -> StudyResult:
    """Every size under every seed. ``checkpoints`` belongs to this corpus: finished runs in it are taken up again."""
    train = documents_of(TokenBlocks(corpus.path, "train"))
    test = bounded(documents_of(TokenBlocks(corpus.path, "test")), settings.test_bytes)
    kept = settings.model_dump(mode="json", exclude={"vocab_sizes", "seeds"})
    packs = {size: pack_at(size, train, test, settings.context_bytes) for size in settings.vocab_sizes}
    runs = [(size, run) for size in packs for run in range(seed, seed + settings.seeds)]
    wanted = [
        Cell(f"vocabulary {size}, seed {run}", kept, train_cell, (packs[size], settings, run, checkpoints / f"training-{size}-{run}"))
        for size, run in runs
    ]
    cells = Cells(checkpoints, progress).get_all(
        wanted, side_by_side(), lambda _, found: f"{found['bits_per_byte']:.3f} bits a byte in {found['seconds']:.0f} s"
    )
    rows = [{"vocabulary": packs[size].vocab_size, "seed": run, **found} for (size, run), found in zip(runs, cells, strict=True)]
    return _result(pd.DataFrame(rows), settings)


def bounded(texts: list[str], limit: int) -> list[str]:
    """The first of the texts, whole ones, of ``limit`` bytes together at most, and one at least."""
    ends = np.cumsum([len(text.encode("utf-8")) for text in texts])
    return texts[: max(1, int(np.searchsorted(ends, limit, side="right")))]


def _result(runs: pd.DataFrame, settings: VocabularyStudySettings) -> StudyResult:
    bits = runs.pivot(index="seed", columns="vocabulary", values="bits_per_byte")
    table = runs.drop(columns=["seed", "bits_per_byte", "nats_per_token", "seconds", "training_bytes"]).groupby("vocabulary").first()
    mean = runs.groupby("vocabulary")[["training_bytes", "nats_per_token", "seconds"]].mean()
    intervals = {size: mean_interval(bits[size].to_numpy()) for size in bits}
    table = table.join(mean).assign(
        bytes_per_token=mean["training_bytes"] / table["training_tokens"], bits_per_byte=bits.mean(),
        low=pd.Series({size: low for size, (low, _) in intervals.items()}), high=pd.Series({size: high for size, (_, high) in intervals.items()}),
    ).reset_index()  # fmt: skip
    metrics = [
        Metric(name=f"bits_per_byte__{row.vocabulary}", value=row.bits_per_byte, low=row.low, high=row.high, n=settings.seeds,
               higher_is_better=False) for row in table.itertuples()
    ]  # fmt: skip
    smallest, largest = bits.columns.min(), bits.columns.max()
    for name, other in (("gain_of_largest", largest), ("gain_of_middle", sorted(bits.columns)[len(bits.columns) // 2])):
        gain = (bits[smallest] - bits[other]).to_numpy()
        low, high = mean_interval(gain)
        metrics.append(Metric(name=name, value=float(gain.mean()), low=low, high=high, n=len(gain), unit="bits/byte"))
    read = runs["training_bytes"]
    metrics.append(Metric(name="training_bytes_spread", value=float((read.max() - read.min()) / read.mean()), n=len(runs), higher_is_better=False))
    per_example = runs.assign(example_id=[f"{row.vocabulary}/{row.seed}" for row in runs.itertuples()])
    return StudyResult(
        study="vocabulary_study", metrics=metrics, settings=settings.model_dump(mode="json"), seeds=sorted(runs["seed"].unique().tolist()),
        remarks=REMARKS, per_example=per_example[["example_id", "vocabulary", "seed", "bits_per_byte"]],
        tables={"vocabularies": table, "runs": runs}, plots={"bits_per_byte": _plot(table)},
    )


def _plot(table: pd.DataFrame) -> bytes:
    def paint(axes: Axes) -> None:
        below, above = table["bits_per_byte"] - table["low"], table["high"] - table["bits_per_byte"]
        axes.errorbar(table["vocabulary"], table["bits_per_byte"], yerr=[below, above], marker="o", capsize=3)
        for row in table.itertuples():
            label = f"{row.train_flops_per_byte / 1e6:.2f} MFLOP a byte"
            axes.annotate(label, (row.vocabulary, row.bits_per_byte), xytext=(4, 6), textcoords="offset points", fontsize=7)
        axes.set_xscale("log", base=2)
        axes.margins(0.15)

    return draw(paint, title="Equal bytes of training text and of context", x="vocabulary", y="bits per byte of held-out text", size=(5.8, 3.8))
