"""Dense retrieval: a sentence-transformers encoder with its own prompts, and exact inner-product search by faiss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from curriculum.artifacts import DirectoryArtifact, IndexArtifact
from curriculum.errors import DataError
from curriculum.retrieval.bm25 import Hits
from curriculum.retrieval.passages import contents
from curriculum.retrieval.settings import RetrievalSettings

SHARD = 512


class Encoder:
    """Texts as unit vectors. Pooling is the model's own; the prompts are what it was trained with."""

    def __init__(self, model: Path, settings: RetrievalSettings, device: str = "cpu") -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(model), device=device, local_files_only=True)
        self._model.max_seq_length = min(settings.max_tokens, self._model.max_seq_length or settings.max_tokens)
        self._settings = settings

    def queries(self, texts: list[str]) -> np.ndarray:
        """float32 [queries, dimension], unit length."""
        return self._encode([self._settings.query_prompt + t for t in texts])

    def passages(self, texts: list[str]) -> np.ndarray:
        """float32 [passages, dimension], unit length."""
        return self._encode([self._settings.passage_prompt + t for t in texts])

    def _encode(self, texts: list[str]) -> np.ndarray:
        vectors = self._model.encode(
            texts, batch_size=self._settings.batch_size, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return np.ascontiguousarray(vectors, dtype=np.float32)


def embed_passages(
    passages: pd.DataFrame, encoder: Encoder, settings: RetrievalSettings, out: Path, checkpoints: Path, progress: Callable[[str], None]
) -> DirectoryArtifact:
    """Write ``out/COLLECTION/{vectors.safetensors, ids.json}``. Shards of 512 are kept in ``checkpoints``, so a kill loses one."""
    facts: dict[str, object] = {"encoder": settings.encoder, "dimension": 0, "passages": {}}
    counts: dict[str, int] = {}
    for collection, group in passages.groupby("collection"):
        texts, shards = contents(group), []
        for start in range(0, len(texts), SHARD):
            shards.append(_shard(encoder, texts[start : start + SHARD], checkpoints / f"{collection}-{start:09d}.safetensors"))
            progress(f"{collection}: {min(start + SHARD, len(texts))}/{len(texts)} passages")
        vectors = np.concatenate(shards)
        (out / str(collection)).mkdir(parents=True)
        save_file({"vectors": torch.from_numpy(vectors)}, out / str(collection) / "vectors.safetensors")
        (out / str(collection) / "ids.json").write_text(json.dumps(group["passage_id"].tolist()))
        counts[str(collection)] = len(texts)
        facts["dimension"] = int(vectors.shape[1])
    return DirectoryArtifact(out, facts | {"passages": counts})


def _shard(encoder: Encoder, texts: list[str], kept: Path) -> np.ndarray:
    if kept.exists():
        return load_file(kept)["vectors"].numpy()
    vectors = encoder.passages(texts)
    unfinished = kept.with_suffix(".part")
    save_file({"vectors": torch.from_numpy(vectors)}, unfinished)
    unfinished.replace(kept)
    return vectors


def build_dense(embeddings: DirectoryArtifact, out: Path) -> IndexArtifact:
    """Exact inner-product indexes, ``out/COLLECTION/{index.faiss, ids.json}``.

    Raises:
        DataError: vectors and ids differ in number.
    """
    for folder in sorted(p for p in embeddings.path.iterdir() if p.is_dir()):
        vectors = load_file(folder / "vectors.safetensors")["vectors"].numpy()
        ids = json.loads((folder / "ids.json").read_text())
        if len(ids) != len(vectors):
            raise DataError(f"{folder} holds {len(vectors)} vectors for {len(ids)} ids; materialise passage_embeddings again")
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        (out / folder.name).mkdir(parents=True)
        faiss.write_index(index, str(out / folder.name / "index.faiss"))
        (out / folder.name / "ids.json").write_text(json.dumps(ids))
    return IndexArtifact(out, dict(embeddings.facts))


class DenseIndex:
    """A faiss index of one collection."""

    def __init__(self, path: Path, collection: str = "project") -> None:
        if not (path / collection).exists():
            raise DataError(f"the dense index {path} holds no collection '{collection}'; materialise dense_index with it")
        self._index = faiss.read_index(str(path / collection / "index.faiss"))
        self._ids: list[str] = json.loads((path / collection / "ids.json").read_text())

    def search(self, vectors: np.ndarray, k: int) -> Hits:
        """For each row of ``vectors`` [queries, dimension] its ``k`` best (passage_id, inner product), best first."""
        scores, rows = self._index.search(np.ascontiguousarray(vectors, dtype=np.float32), min(k, len(self._ids)))
        return [
            [(self._ids[r], float(s)) for s, r in zip(line_s, line_r, strict=True) if r >= 0]
            for line_s, line_r in zip(scores, rows, strict=True)
        ]
