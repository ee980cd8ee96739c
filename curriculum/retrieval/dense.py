"""Dense retrieval: a sentence-transformers encoder with its own prompts, and exact inner-product search by faiss."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from curriculum.artifacts import DirectoryArtifact, IndexArtifact
from curriculum.corpora.documents import text_digest
from curriculum.disk import fsync
from curriculum.errors import DataError
from curriculum.retrieval.bm25 import Hits
from curriculum.retrieval.passages import contents
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.vector_search.kinds import Codes, chosen, vectors_of
from curriculum.vector_search.settings import VectorSearchSettings

SHARD = 512


class Encoder:
    """Texts as vectors. Pooling, prompts and similarity are the model's own, unless the settings give prompts.

    Vectors have unit length, but for a model whose files name the dot product as its similarity.
    """

    def __init__(self, model: Path, settings: RetrievalSettings, device: str = "cpu") -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(model), device=device, local_files_only=True)
        self._model.max_seq_length = min(settings.max_tokens, self._model.max_seq_length or settings.max_tokens)
        self._settings, similarity = settings, self._model.similarity_fn_name
        self._how: dict[str, Any] = {
            "batch_size": settings.batch_size or (8 if device == "cpu" else 64), "convert_to_numpy": True, "show_progress_bar": False,
            "normalize_embeddings": getattr(similarity, "value", similarity) != "dot",
        }

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._model.get_embedding_dimension() or 0)

    def queries(self, texts: list[str]) -> np.ndarray:
        """float32 [queries, dimension]."""
        return self._matrix(self._model.encode_query(texts, prompt=self._settings.query_prompt, **self._how))

    def passages(self, texts: list[str]) -> np.ndarray:
        """float32 [passages, dimension]; the library batches them by length."""
        return self._matrix(self._model.encode_document(texts, prompt=self._settings.passage_prompt, **self._how))

    def _matrix(self, vectors: Any) -> np.ndarray:
        return np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1, self.dimension)


def embed_passages(
    passages: pd.DataFrame, encoder: Any, settings: RetrievalSettings, out: Path, checkpoints: Path, progress: Callable[[str], None]
) -> DirectoryArtifact:
    """Write ``out/COLLECTION/{vectors.safetensors, ids.json}``. Shards of 512 are kept in ``checkpoints``: a kill loses what is in hand.

    ``encoder`` is an :class:`Encoder`, or what encodes as one: on the workers of a cluster, say.

    Raises:
        DataError: there are no passages, or the encoder gave a vector that is not finite.
    """
    if passages.empty:
        raise DataError("there are no passages to encode")
    counts: dict[str, int] = {}
    for collection, group in passages.groupby("collection"):
        texts, made = contents(group), list[np.ndarray]()
        starts = range(0, len(texts), SHARD)
        shards = (Shard(texts[start : start + SHARD], checkpoints / f"{collection}-{start:09d}.safetensors") for start in starts)
        for _, encoded in encoded_shards(encoder, settings, shards):
            made.append(encoded)
            progress(f"{collection}: {min(len(made) * SHARD, len(texts))}/{len(texts)} passages")
        vectors = np.concatenate(made)
        if not np.isfinite(vectors).all():
            raise DataError(f"the encoder {settings.encoder} gives vectors that are not finite; its weights are broken")
        (out / str(collection)).mkdir(parents=True)
        save_file({"vectors": torch.from_numpy(vectors)}, out / str(collection) / "vectors.safetensors")
        (out / str(collection) / "ids.json").write_text(json.dumps(group["passage_id"].tolist()), encoding="utf-8")
        counts[str(collection)] = len(texts)
    return DirectoryArtifact(out, {"encoder": settings.encoder, "dimension": vectors.shape[1], "passages": counts})


@dataclass(frozen=True)
class Shard:
    """Texts that are encoded together, the file that keeps their vectors, and what they are called where that is asked for."""

    texts: list[str]
    kept: Path
    ids: list[str] = field(default_factory=list)


def encoded_shards(encoder: Any, settings: RetrievalSettings, shards: Iterable[Shard]) -> Iterator[tuple[Shard, np.ndarray]]:
    """Every shard with its vectors, in order: from its file where that holds exactly these texts by this encoder, else computed and kept there.

    ``shards`` is read as far ahead as the encoder works. What is finished is kept at once, and given out when its turn comes.
    """
    taken: dict[int, tuple[Shard, str, bool]] = {}  # number -> the shard, its digest, and whether it was kept before
    finished, turn = set[int](), 0

    def missing() -> Iterator[list[str]]:
        for number, shard in enumerate(shards):
            digest = text_digest(json.dumps([settings.encoder, settings.passage_prompt, settings.max_tokens, shard.texts]))
            taken[number] = shard, digest, _kept(shard.kept, digest) is not None
            yield [] if taken[number][2] else shard.texts

    for number, vectors in encoded_batches(encoder, missing()):
        shard, digest, before = taken[number]
        if not before:
            _keep(vectors, shard.kept, digest)
        finished.add(number)
        while turn in finished:
            shard, digest, before = taken.pop(turn)
            found = vectors if turn == number and not before else _kept(shard.kept, digest)
            if found is None:
                raise DataError(f"{shard.kept} was written and is no longer whole; another process may use the same folder: run again")
            yield shard, found
            finished.discard(turn)
            turn += 1


def encoded_batches(encoder: Any, batches: Iterable[list[str]]) -> Iterator[tuple[int, np.ndarray]]:
    """(number, vectors) of each batch as it is finished. An empty batch is finished as it is: nothing is asked of the encoder.

    One after another, unless the encoder has a ``map`` of its own, which may have several in hand and finish them in any order.
    """
    if hasattr(encoder, "map"):
        yield from encoder.map(batches)
        return
    for number, texts in enumerate(batches):
        yield number, encoder.passages(texts) if texts else np.empty((0, 0), dtype=np.float32)


def _kept(file: Path, digest: str) -> np.ndarray | None:
    """The vectors in ``file``; None where it is not there, not whole, damaged, or of other texts or another encoder."""
    try:
        with safe_open(file, "pt") as held:
            said = held.metadata() or {}
            if said.get("digest") == digest:
                vectors = held.get_tensor("vectors").numpy()
                return vectors if said.get("sha256") == _sha256(vectors) else None
    except (FileNotFoundError, SafetensorError):
        pass  # not kept yet, or not whole: encode it
    return None


def _keep(vectors: np.ndarray, file: Path, digest: str) -> None:
    unfinished = file.with_suffix(".part")
    save_file({"vectors": torch.from_numpy(vectors)}, unfinished, metadata={"digest": digest, "sha256": _sha256(vectors)})
    fsync(unfinished)
    unfinished.replace(file)


def _sha256(vectors: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(vectors).data).hexdigest()


def build_dense(
    embeddings: DirectoryArtifact, out: Path, search: VectorSearchSettings | None = None, codes: Codes | None = None
) -> IndexArtifact:
    """Inner-product indexes, ``out/COLLECTION/{index.faiss, ids.json}``, of vectors in one file or in shards.

    Exact, or of the kind that ``search`` chooses for the collection's size; ``codes`` fills what is made of codes in faiss's place.

    Raises:
        DataError: vectors and ids differ in number.
    """
    kinds: dict[str, str] = {}
    for folder in sorted(p for p in embeddings.path.iterdir() if p.is_dir()):
        ids, index = json.loads((folder / "ids.json").read_text(encoding="utf-8")), None
        for shard in sorted(folder.glob("vectors*.safetensors")):
            vectors = load_file(shard)["vectors"].numpy()
            index = faiss.IndexFlatIP(vectors.shape[1]) if index is None else index
            index.add(vectors)
        if index is None or len(ids) != index.ntotal:
            found = 0 if index is None else index.ntotal
            raise DataError(f"{folder} holds {found} vectors for {len(ids)} ids; materialise passage_embeddings again")
        kinds[folder.name], index = chosen(index, search, codes=codes) if search else ("flat", index)
        (out / folder.name).mkdir(parents=True)
        faiss.write_index(index, str(out / folder.name / "index.faiss"))
        (out / folder.name / "ids.json").write_text(json.dumps(ids), encoding="utf-8")
    return IndexArtifact(out, {**embeddings.facts, "kinds": kinds})


class DenseIndex:
    """A faiss index of one collection, kept in the folder ``path`` as :func:`build_dense` writes it.

    Raises:
        DataError: there is no such collection.
    """

    def __init__(self, path: Path, collection: str = "project") -> None:
        if not (path / collection).exists():
            raise DataError(f"the dense index {path} holds no collection '{collection}'; materialise dense_index with it")
        file = str(path / collection / "index.faiss")
        self._index = faiss.read_index(file, faiss.IO_FLAG_MMAP_IFC)
        if not isinstance(self._index, faiss.IndexRefineFlat):  # re-scored codes leave the vectors on disk; what scans them all reads them
            self._index = faiss.read_index(file)
        self._ids: list[str] = json.loads((path / collection / "ids.json").read_text(encoding="utf-8"))

    @property
    def ids(self) -> Sequence[str]:
        """The passage of each vector, in their order."""
        return self._ids

    @property
    def vectors(self) -> np.ndarray:
        """float32 [passages, dimension], in place: they go with this object."""
        return vectors_of(self._index)

    def search(self, vectors: np.ndarray, k: int) -> Hits:
        """For each row of ``vectors`` [queries, dimension] its ``k`` best (passage_id, inner product), best first.

        Raises:
            DataError: the vectors are of another dimension than the index, so of another encoder.
        """
        if vectors.shape[1] != self._index.d:
            raise DataError(
                f"queries have {vectors.shape[1]} dimensions and the index {self._index.d}: it was built by another encoder; "
                "materialise passage_embeddings and dense_index with this one (setting retrieval.encoder)"
            )
        scores, rows = self._index.search(np.ascontiguousarray(vectors, dtype=np.float32), min(k, len(self._ids)))
        return [
            [(self._ids[r], float(s)) for s, r in zip(line_s, line_r, strict=True) if r >= 0]
            for line_s, line_r in zip(scores, rows, strict=True)
        ]
