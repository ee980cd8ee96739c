"""Vectors of passages: a text that was encoded before, by the same encoder, keeps its vector wherever it stands now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open

from curriculum.artifacts import DirectoryArtifact
from curriculum.errors import DataError
from curriculum.ingest.parts import read_batches
from curriculum.retrieval.dense import SHARD, Shard, encoded_batches, encoded_shards
from curriculum.retrieval.passages import contents
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.storage import digest_of

_DIGESTS = pa.schema([("digest", pa.string()), ("shard", pa.int32())])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


class KnownVectors:
    """The vectors of an earlier version by the digest of their text; ``folder`` None: there are none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        table = pq.read_table(folder / "digests.parquet") if folder else pa.table({"digest": [], "shard": []}, schema=_DIGESTS)
        digests, shards = np.array(table["digest"].to_pylist(), dtype="S32"), table["shard"].to_numpy()
        starts = np.searchsorted(shards, np.arange(shards.max(initial=-1) + 1))
        order = np.argsort(digests, kind="stable")  # 40 bytes a passage, where a dict would take 200
        self._sorted, self._shard = digests[order], shards[order]
        self._row = (np.arange(len(shards)) - starts[shards])[order] if len(shards) else order

    def find(self, digests: list[str], out: np.ndarray) -> np.ndarray:
        """Write the known vectors of ``digests`` into the rows of ``out`` [digests, dimension]; which are known [digests]."""
        asked = np.array(digests, dtype="S32")
        at = np.minimum(np.searchsorted(self._sorted, asked), max(len(self._sorted) - 1, 0))
        known = self._sorted[at] == asked if len(self._sorted) else np.zeros(len(asked), dtype=bool)
        for shard in np.unique(self._shard[at[known]]) if known.any() else ():
            rows = np.flatnonzero(known & (self._shard[at] == shard))
            with safe_open(self._folder / _shard(int(shard)), "pt") as held:  # type: ignore[operator]
                out[rows] = held.get_tensor("vectors").numpy()[self._row[at[rows]]]
        return known


class Reusing:
    """An encoder of passages that asks ``known`` first, and counts what was ``encoded`` and what ``reused``."""

    def __init__(self, encoder: Any, known: KnownVectors) -> None:
        self._encoder, self._known = encoder, known
        self.encoded = self.reused = 0

    def map(self, batches: Iterable[list[str]]) -> Iterator[tuple[int, np.ndarray]]:
        """(number, float32 [passages, dimension]) of each batch as it is finished; the encoder is given the texts that are not known."""
        begun: dict[int, tuple[np.ndarray, np.ndarray]] = {}

        def unknown() -> Iterator[list[str]]:
            for number, texts in enumerate(batches):
                vectors = np.zeros((len(texts), self._encoder.dimension if texts else 0), dtype=np.float32)
                new = np.flatnonzero(~self._known.find([_digest(text) for text in texts], vectors))
                begun[number] = vectors, new
                yield [texts[n] for n in new]

        for number, encoded in encoded_batches(self._encoder, unknown()):
            vectors, new = begun.pop(number)
            if len(new):
                vectors[new] = encoded
            self.encoded += len(new)
            self.reused += len(vectors) - len(new)
            yield number, vectors


def embed_corpus(
    passages: DirectoryArtifact, encoder: Any, settings: RetrievalSettings, out: Path, *, identity: str,
    previous: Callable[[str], Path | None], checkpoints: Path, progress: Callable[[str], None],
) -> DirectoryArtifact:  # fmt: skip
    """Write ``out/COLLECTION/{vectors-00000.safetensors, ..., ids.json, digests.parquet}``; shards of at most 512 wait in ``checkpoints``.

    ``identity`` is the encoder's digest; ``previous`` finds an earlier version by the same encoder, prompt and length.

    Raises:
        DataError: the encoder gave a vector that is not finite.
    """
    name, total = passages.facts["name"], passages.facts["passages"]
    how = digest_of([identity, settings.passage_prompt, settings.max_tokens])[:20]
    earlier = previous(how)
    reusing, folder, ids = Reusing(encoder, KnownVectors(earlier / name if earlier else None)), out / name, list[str]()
    folder.mkdir(parents=True)
    batches = read_batches(passages.path, ["passage_id", "title", "section", "text"], SHARD)
    shards = (Shard(contents(batch), checkpoints / _shard(n), batch["passage_id"].tolist()) for n, batch in enumerate(batches))
    with pq.ParquetWriter(folder / "digests.parquet", _DIGESTS) as digests:
        for number, (shard, vectors) in enumerate(encoded_shards(reusing, settings, shards)):
            if not np.isfinite(vectors).all():
                raise DataError(f"the encoder {settings.encoder} gives vectors that are not finite; its weights are broken")
            copyfile(shard.kept, folder / _shard(number))
            known = {"digest": [_digest(text) for text in shard.texts], "shard": [number] * len(shard.texts)}
            digests.write_table(pa.table(known, schema=_DIGESTS))
            ids += shard.ids
            progress(f"{len(ids)} of {total} passages: {reusing.encoded} encoded, {reusing.reused} reused")
    (folder / "ids.json").write_text(json.dumps(ids), encoding="utf-8")
    facts = {"encoder": settings.encoder, "dimension": encoder.dimension, "passages": {name: len(ids)}, "name": name}
    return DirectoryArtifact(out, facts | {"how": how, "encoded": reusing.encoded, "reused": reusing.reused})


def _shard(number: int) -> str:
    return f"vectors-{number:05d}.safetensors"
