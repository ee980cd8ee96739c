"""The whole query - encode, BM25, scan, fuse, rerank 20 - against a Haystack pipeline of the same models, in turns on one thread.

python -m benchmarks.search_pipeline --corpus DIR [--documents 5000] [--queries 60] [--threads 1]

``DIR`` is a folder in BEIR layout (corpus.jsonl, queries.jsonl). The peer is optional: ``pip install haystack-ai==3.4.1
sentence-transformers-haystack==2.0.0 faiss-haystack==3.0.0``; its BM25 is its in-memory store's, its vectors are in its faiss store. The
cross-encoder is untrained: the time of a product does not depend on the numbers in it. ``ours_bfloat16`` is served so by
``serving: {reranker_precision: bfloat16}``. Cold start is that of a process of its own, from its
first line to the first answer, with indexes that lie on disk.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turns import in_turns

BEGUN = time.perf_counter()
RERANKED, TOP, LEG, MAX_LENGTH = 20, 10, 100, 256
Search = Callable[[str], list[tuple[str, float]]]


def ours(folder: Path, precision: str = "float32") -> Search:
    """The retriever and the reranker that ``curriculum serve`` holds, over the indexes in ``folder``."""
    from curriculum.reranking.reranker import Reranker
    from curriculum.retrieval.dense import Encoder
    from curriculum.retrieval.hybrid import HybridRetriever
    from curriculum.retrieval.settings import RetrievalSettings

    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    settings = RetrievalSettings(max_tokens=MAX_LENGTH)
    retriever = HybridRetriever(folder / "bm25", folder / "dense", Encoder(folder / "encoder", settings), depth=LEG)
    reranker = Reranker.load(folder / "cross-encoder")
    reranker.encoder.precision = precision

    def search(query: str) -> list[tuple[str, float]]:
        candidates = retriever.search([query], LEG, "bench")[0][:RERANKED]
        scores = reranker.score([query], [candidates], texts)[0]
        return [(candidates[i][0], float(scores[i])) for i in np.argsort(-scores, kind="stable")[:TOP]]

    return search


def haystack(folder: Path) -> Search:
    """Haystack's components in the same order, over its own stores in ``folder``."""
    from haystack import Pipeline
    from haystack.components.joiners import DocumentJoiner
    from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersTextEmbedder
    from haystack_integrations.components.rankers.sentence_transformers import SentenceTransformersSimilarityRanker
    from haystack_integrations.components.retrievers.faiss import FAISSEmbeddingRetriever
    from haystack_integrations.document_stores.faiss import FAISSDocumentStore

    store = FAISSDocumentStore(index_path=str(folder / "haystack-faiss"), index_string="Flat", embedding_dim=384)
    words, whole = InMemoryDocumentStore.load_from_disk(str(folder / "haystack.json")), Pipeline()
    whole.add_component("encode", SentenceTransformersTextEmbedder(
        model=str(folder / "encoder"), progress_bar=False, normalize_embeddings=True, local_files_only=True))  # fmt: skip
    whole.add_component("dense", FAISSEmbeddingRetriever(document_store=store, top_k=LEG))
    whole.add_component("bm25", InMemoryBM25Retriever(document_store=words, top_k=LEG))
    whole.add_component("fuse", DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=RERANKED))
    whole.add_component("rerank", SentenceTransformersSimilarityRanker(
        model=str(folder / "cross-encoder"), top_k=TOP, scale_score=False, tokenizer_kwargs={"model_max_length": MAX_LENGTH}))  # fmt: skip
    for out, into in (("encode.embedding", "dense.query_embedding"), ("dense", "fuse.documents"), ("bm25", "fuse.documents"), ("fuse", "rerank")):
        whole.connect(out, into)

    def search(query: str) -> list[tuple[str, float]]:
        found = whole.run({"encode": {"text": query}, "bm25": {"query": query}, "rerank": {"query": query}})
        return [(d.meta["passage_id"], d.score) for d in found["rerank"]["documents"]]

    return search


def ours_bfloat16(folder: Path) -> Search:
    """The same with ``serving: {reranker_precision: bfloat16}``."""
    return ours(folder, "bfloat16")


SIDES = {"ours": ours, "ours_bfloat16": ours_bfloat16, "haystack": haystack}


def write_indexes(corpus: Path, documents: int, queries: int, folder: Path, peer: bool) -> list[str]:
    """Both sides' indexes of the first documents, and the models, in ``folder``; the first queries."""
    import torch
    from safetensors.torch import save_file

    from benchmarks.search import read_corpus
    from curriculum.artifacts import DirectoryArtifact
    from curriculum.crossencoder.model import CrossEncoder
    from curriculum.reranking.reranker import Reranker, passage_texts
    from curriculum.retrieval.bm25 import build_bm25
    from curriculum.retrieval.dense import Encoder, build_dense
    from curriculum.retrieval.passages import contents
    from curriculum.retrieval.settings import RetrievalSettings
    from curriculum.sources import model_folder

    passages, asked = read_corpus(corpus, documents, queries)
    settings, model = RetrievalSettings(max_tokens=MAX_LENGTH), model_folder("packaged:minilm", folder / "models")
    (folder / "encoder").symlink_to(model)
    Reranker(CrossEncoder.start(model, max_length=MAX_LENGTH, seed=0)).save(folder / "cross-encoder")
    (folder / "texts.json").write_text(json.dumps(passage_texts(passages)), encoding="utf-8")
    vectors = Encoder(model, settings).passages(contents(passages))
    (folder / "vectors" / "bench").mkdir(parents=True)
    save_file({"vectors": torch.from_numpy(vectors)}, folder / "vectors" / "bench" / "vectors.safetensors")
    (folder / "vectors" / "bench" / "ids.json").write_text(json.dumps(passages["passage_id"].tolist()), encoding="utf-8")
    build_bm25(passages, settings, folder / "bm25")
    build_dense(DirectoryArtifact(folder / "vectors", {}), folder / "dense")
    if peer:
        write_haystack(passages["passage_id"].tolist(), passage_texts(passages), vectors, folder)
    return asked


def write_haystack(ids: list[str], texts: dict[str, str], vectors: np.ndarray, folder: Path) -> None:
    """The peer's two stores of the same passages and vectors."""
    from haystack import Document
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack_integrations.document_stores.faiss import FAISSDocumentStore

    def entry(number: int, **more: Any) -> Document:
        return Document(id=ids[number], content=texts[ids[number]], meta={"passage_id": ids[number]}, **more)

    words = InMemoryDocumentStore(bm25_algorithm="BM25Okapi", bm25_parameters={"k1": 0.9, "b": 0.4})
    words.write_documents([entry(n) for n in range(len(ids))])
    words.save_to_disk(str(folder / "haystack.json"))
    store = FAISSDocumentStore(index_path=str(folder / "haystack-faiss"), index_string="Flat", embedding_dim=vectors.shape[1])
    store.write_documents([entry(n, embedding=vectors[n].tolist()) for n in range(len(ids))])
    store.save(str(folder / "haystack-faiss"))


def cold_start(side: str, folder: Path, query: str, threads: int) -> float:
    """Seconds of a new process from its first line to the first answer."""
    given = ["--cold", side, "--folder", str(folder), "--query", query, "--threads", str(threads)]
    command = [sys.executable, "-m", "benchmarks.search_pipeline", *given]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])


def race(searches: dict[str, Search], queries: list[str]) -> dict[str, Any]:
    """Each query by each side in turn, the first two left out: milliseconds at the median and the 95th percentile, and how alike the answers are."""
    runs = {name: lambda number, search=search: search(queries[number]) for name, search in searches.items()}
    spent, found = in_turns(runs, len(queries) - 2, warm_up=2)
    result: dict[str, Any] = {n: {"p50_ms": float(np.percentile(v, 50)), "p95_ms": float(np.percentile(v, 95))} for n, v in spent.items()}
    for name in [name for name in searches if name != "ours"]:
        pairs = [(dict(a), dict(b)) for a, b in zip(found["ours"], found[name], strict=True)]
        shared = [abs(a[p] - b[p]) for a, b in pairs for p in a.keys() & b.keys()]
        result[name]["top10_shared"] = float(np.mean([len(a.keys() & b.keys()) / TOP for a, b in pairs]))
        result[name]["largest_score_difference"] = max(shared, default=float("nan"))  # of what both reranked: the models are the same
    for name in [name for name in searches if name != "haystack" and "haystack" in searches]:
        result[name]["ratio_p50"], result[name]["ratio_p95"] = (result[name][q] / result["haystack"][q] for q in ("p50_ms", "p95_ms"))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="a folder in BEIR layout")
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    for hidden in ("--cold", "--folder", "--query"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", HAYSTACK_TELEMETRY_ENABLED="False")
    from curriculum.hardware import describe_hardware, use_threads

    use_threads(asked.threads)
    if asked.cold:
        SIDES[asked.cold](Path(asked.folder))(asked.query)
        print(time.perf_counter() - BEGUN)
        return
    if asked.corpus is None:
        parser.error("--corpus names a folder in BEIR layout")
    peer = importlib.util.find_spec("haystack_integrations") is not None
    sides = [side for side in SIDES if peer or side != "haystack"]
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        queries = write_indexes(asked.corpus, asked.documents, asked.queries, folder, peer)
        cold = {side: cold_start(side, folder, queries[0], asked.threads) for side in sides}
        found = race({side: SIDES[side](folder) for side in sides}, queries)
    missing = {} if peer else {"haystack": "not installed"}
    print(json.dumps({"hardware": describe_hardware("cpu"), "threads": asked.threads, "cold_start_s": cold, **found, **missing}, indent=1))


if __name__ == "__main__":
    main()
