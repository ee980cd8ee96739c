"""Races of the parts of a search against peers on one thread, in turns in one process; how far both sides' results agree is printed too.

python -m benchmarks.search --corpus DIR [--races encode bm25 scan] [--documents 5000] [--queries 200] [--vectors 100000]

``DIR`` is a folder in BEIR layout (corpus.jsonl, queries.jsonl). encode: our encoder against ``SentenceTransformer.encode``, the arithmetic
limit and, where what it needs is installed, int8 in onnxruntime (``benchmarks/onnx_encoder.py``). bm25: Lucene through pyserini against bm25s
(an optional peer: ``pip install bm25s==0.2.14``) at equal k1, b and analysis. scan: faiss' flat index against numpy and the time that reading
the vectors from memory takes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import onnx_encoder
from benchmarks.turns import in_turns
from curriculum.corpora.readers import read_beir
from curriculum.hardware import describe_hardware, matmul_peak_flops, memory_bandwidth, use_threads
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.sources import model_folder

SETTINGS = RetrievalSettings()
TOP = 10


def medians(runs: dict[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds a call of each side, as ``SIDE_ms``; the first two rounds are left out."""
    return {f"{name}_ms": median(values) for name, values in in_turns(runs, rounds, warm_up=2)[0].items()}


def overlap(ours: list[list[str]], theirs: list[list[str]]) -> float:
    """The mean share of our first ten that the peer has among its first ten."""
    return float(np.mean([len(set(a) & set(b)) / max(1, len(a)) for a, b in zip(ours, theirs, strict=True)]))


def race_scan(vectors: int, dimension: int = 384, rounds: int = 50) -> dict[str, float]:
    """One query over unit vectors drawn at random: the time of an exact scan does not depend on what they are."""
    import faiss

    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    base = rng.standard_normal((vectors, dimension), dtype=np.float32)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(dimension)
    index.add(base)
    queries = rng.standard_normal((rounds + 2, 1, dimension), dtype=np.float32)

    def by_numpy(number: int) -> list[int]:
        scores = base @ queries[number, 0]
        best = np.argpartition(-scores, TOP)[:TOP]
        return best[np.argsort(-scores[best])].tolist()

    def by_faiss(number: int) -> list[int]:
        return index.search(queries[number], TOP)[1][0].tolist()

    same = overlap(*([[str(i) for i in search(n)] for n in range(rounds)] for search in (by_faiss, by_numpy)))
    times = medians({"faiss": by_faiss, "numpy": by_numpy}, rounds)
    limit = 1000 * base.nbytes / memory_bandwidth()
    return {**times, "ratio_to_numpy": times["faiss_ms"] / times["numpy_ms"], "memory_limit_ms": limit,
            "times_the_memory_limit": times["faiss_ms"] / limit, "top10_equal_share": same}  # fmt: skip


def race_bm25(documents: pd.DataFrame, queries: list[str], folder: Path) -> dict[str, Any]:
    """Query by query, and building the index; both read the same terms: Lucene's English analysis."""
    from curriculum.retrieval.bm25 import Bm25Index, build_bm25
    from curriculum.retrieval.passages import contents

    begun = time.perf_counter()
    build_bm25(documents, SETTINGS, folder)
    built = time.perf_counter() - begun
    ours = Bm25Index(folder, "bench", k1=SETTINGS.k1, b=SETTINGS.b)
    found: dict[str, Any] = {"documents": len(documents), "queries": len(queries), "lucene_build_s": built}
    if importlib.util.find_spec("bm25s") is None:
        times = medians({"lucene": lambda n: ours.search([queries[n % len(queries)]], TOP)}, len(queries))
        return {**found, **times, "bm25s": "not installed"}
    import bm25s
    from pyserini.analysis import Analyzer, get_lucene_analyzer

    analyzer = Analyzer(get_lucene_analyzer())
    terms = [analyzer.analyze(text) for text in contents(documents)]
    asked = [analyzer.analyze(text) for text in queries]
    peer = bm25s.BM25(method="lucene", k1=SETTINGS.k1, b=SETTINGS.b)
    begun = time.perf_counter()
    peer.index(terms, show_progress=False)
    found["bm25s_build_after_analysis_s"] = time.perf_counter() - begun
    ids = documents["passage_id"].to_numpy()

    def by_peer(number: int) -> list[str]:
        # the analysis of the query is part of a query for Lucene: it is here too
        words = analyzer.analyze(queries[number % len(queries)])
        rows, _ = peer.retrieve([words], k=TOP, show_progress=False, n_threads=0)
        return ids[rows[0]].tolist()

    def by_lucene(number: int) -> list[str]:
        return [passage for passage, _ in ours.search([queries[number % len(queries)]], TOP)[0]]

    numbers = [n for n in range(len(queries)) if asked[n]]
    same = overlap([by_lucene(n) for n in numbers], [by_peer(n) for n in numbers])
    times = medians({"lucene": by_lucene, "bm25s": by_peer}, len(queries))
    return {**found, **times, "ratio_to_bm25s": times["lucene_ms"] / times["bm25s_ms"], "top10_equal_share": same}


def race_encode(documents: pd.DataFrame, sample: int = 64, rounds: int = 5) -> dict[str, Any]:
    """``sample`` passages a call; the arithmetic limit counts the matrix products of the tokens that there are, without padding."""
    import torch
    from sentence_transformers import SentenceTransformer

    from curriculum.retrieval.dense import Encoder
    from curriculum.retrieval.passages import contents

    folder = model_folder(SETTINGS.encoder, Path(tempfile.gettempdir()))
    ours, peer = Encoder(folder, SETTINGS), SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    peer.max_seq_length = SETTINGS.max_tokens
    texts = contents(documents)[:sample]
    how = {"normalize_embeddings": True, "show_progress_bar": False}
    expected = ours.passages(texts)
    difference = float(np.abs(expected - peer.encode(texts, **how)).max())
    sides: dict[str, Callable[[int], object]] = {"ours": lambda _: ours.passages(texts), "sentence_transformers": lambda _: peer.encode(texts, **how)}
    quantised: dict[str, Any] = {"onnxruntime_int8": "onnx and onnxscript are not installed"}
    if onnx_encoder.available():
        with tempfile.TemporaryDirectory() as out:
            int8 = onnx_encoder.Int8Encoder(folder, SETTINGS.max_tokens, Path(out))
        sides["onnxruntime_int8"] = lambda _: int8.passages(texts)
        quantised = {"int8_lowest_cosine": float((expected * int8.passages(texts)).sum(axis=1).min())}
    times = medians(sides, rounds)
    if "onnxruntime_int8_ms" in times:
        quantised["ratio_to_onnxruntime_int8"] = times["ours_ms"] / times["onnxruntime_int8_ms"]
    lengths = [min(len(ids), SETTINGS.max_tokens) for ids in peer.tokenizer(texts)["input_ids"]]
    model = peer[0].auto_model
    weights = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embeddings" not in name and "pooler" not in name)
    config = model.config
    flops = sum(2 * weights * n + 4 * config.num_hidden_layers * n * n * config.hidden_size for n in lengths)
    limit = 1000 * flops / matmul_peak_flops()
    return {**times, **quantised, "passages": len(texts), "tokens": int(sum(lengths)), "threads": torch.get_num_threads(),
            "max_abs_difference": difference,
            "ratio_to_sentence_transformers": times["ours_ms"] / times["sentence_transformers_ms"],
            "arithmetic_limit_ms": limit, "times_the_arithmetic_limit": times["ours_ms"] / limit}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="a folder in BEIR layout; scan needs none")
    parser.add_argument("--races", nargs="+", choices=("encode", "bm25", "scan"), default=("encode", "bm25", "scan"))
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--vectors", type=int, default=100_000)
    asked = parser.parse_args()
    if asked.corpus is None and set(asked.races) != {"scan"}:
        parser.error("--corpus names a folder in BEIR layout")
    use_threads(1)
    found: dict[str, Any] = {"hardware": describe_hardware("cpu"), "threads": 1}
    if "scan" in asked.races:
        found["scan"] = race_scan(asked.vectors)
    if asked.corpus is not None:
        documents, queries = read_corpus(asked.corpus, asked.documents, asked.queries)
        if "encode" in asked.races:
            found["encode"] = race_encode(documents)
        if "bm25" in asked.races:
            with tempfile.TemporaryDirectory() as folder:
                found["bm25"] = race_bm25(documents, queries, Path(folder))
    print(json.dumps(found, indent=1))


def read_corpus(folder: Path, documents: int, queries: int) -> tuple[pd.DataFrame, list[str]]:
    """The first documents as passages of one collection, and the first queries, of a folder in BEIR layout."""
    beir = read_beir(folder)
    table = beir.corpus.head(documents)
    passages = pd.DataFrame({"passage_id": table["doc_id"], "title": table["title"], "section": "", "text": table["text"], "collection": "bench"})
    return passages, beir.queries["text"].astype(str).head(queries).tolist()


if __name__ == "__main__":
    main()
