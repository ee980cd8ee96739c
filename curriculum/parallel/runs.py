"""What the parallelism studies share: the blocks every run reads, and how far one loss curve is from another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from curriculum.artifacts import DirectoryArtifact
from curriculum.errors import DataError
from curriculum.parallel.settings import ParallelSettings
from curriculum.tokenization.packing import TokenBlocks


def read_blocks(corpus: DirectoryArtifact, settings: ParallelSettings) -> tuple[Tensor, int]:
    """The first training blocks, int64 [n, length + 1], and the size of the vocabulary.

    Raises:
        DataError: the corpus's blocks are shorter than ``length``, or its vocabulary does not divide among the ranks.
    """
    data = TokenBlocks(corpus.path, "train")
    if data.block_size < settings.length:
        raise DataError(f"the corpus has blocks of {data.block_size} tokens; lower parallel.length ({settings.length}) or raise its block_size")
    if data.vocab_size % settings.ranks:
        raise DataError(f"a vocabulary of {data.vocab_size} does not divide by parallel.ranks ({settings.ranks}); change tokenization.vocab_size")
    return data.blocks[: settings.blocks, : settings.length + 1].contiguous(), data.vocab_size


def write_blocks(blocks: Tensor, folder: Path) -> str:
    """Keep ``blocks`` where ranks can read them; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"blocks": blocks}, folder / "blocks.safetensors")
    return str(folder / "blocks.safetensors")


def curve_difference(reference: Sequence[float], other: Sequence[float]) -> float:
    """Largest relative difference of two loss curves, step by step; NaN where one is not as long or not a number."""
    if len(reference) != len(other) or not all(map(math.isfinite, [*reference, *other])):
        return math.nan
    return max(abs(a - b) / abs(a) for a, b in zip(reference, other, strict=True))
