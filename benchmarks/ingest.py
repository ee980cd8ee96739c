"""Taking in a folder of documents: time and peak memory of every stage at several sizes, the growth, and what a change costs.

python -m benchmarks.ingest [--sizes 1000,10000,100000] [--encoder words|packaged:minilm] [--also packaged:minilm] [--changed 0.01] [--threads 1]

Each size runs in a process of its own. ``words`` sums a fixed random vector a word (384 numbers): it measures all but the encoder, whose speed
is a matter of its own; ``--also`` names a real one, for the first size alone. The peer is the same folder taken in from nothing. Beside the
clock's seconds are those of the processor, which other work on the machine changes less: what is fitted is fitted to them. The vectors are
scanned at every size (``--scan-ms``): what a graph or codes cost instead is measured by ``benchmarks.index_update``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from curriculum.hardware import describe_hardware, peak_resident_bytes, reset_peak, resident_bytes, use_threads
from curriculum.vector_search.growth import slope

UPDATED = ("documents", "passages", "vectors", "index")  # what of these is unchanged is not done again
STAGES = (*UPDATED, "report")
MIB = 2**20


class Words:
    """Texts as sums of a fixed random vector a word, of unit length."""

    dimension = 384

    def __init__(self) -> None:
        self._table = np.random.default_rng(0).standard_normal((4096, self.dimension)).astype(np.float32)

    def passages(self, texts: list[str]) -> np.ndarray:
        """float32 [texts, 384]."""
        sums = np.stack([self._table[[zlib.crc32(w.encode()) % 4096 for w in text.split()]].sum(axis=0) for text in texts])
        return sums / np.linalg.norm(sums, axis=1, keepdims=True)

    queries = passages


def write_documents(folder: Path, count: int) -> None:
    """``count`` Markdown files of 300 words (2 kB) in paragraphs of sentences, in subfolders of a thousand."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(3, 9))) for _ in range(20_000)]
    for number in range(count):
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.md"
        path.parent.mkdir(exist_ok=True)
        sentences = [" ".join(rng.choices(words, k=12)).capitalize() + "." for _ in range(25)]
        paragraphs = "\n\n".join(" ".join(sentences[at : at + 5]) for at in range(0, 25, 5))
        path.write_text(f"# Document {number}\n\n{paragraphs}\n", encoding="utf-8")


def take_in(folder: Path, work: Path, encoder: Any, settings: Any, scan_ms: float, earlier: Path | None) -> dict[str, dict[str, float]]:
    """stage -> seconds by the clock and of the processor, and peak MiB; ``scan_ms`` decides to what size the vectors stay flat."""
    from curriculum.ingest.corpus import build_documents, build_passages
    from curriculum.ingest.index import build_index
    from curriculum.ingest.report import Corpus, corpus_report
    from curriculum.ingest.settings import CorpusSettings
    from curriculum.ingest.vectors import embed_corpus
    from curriculum.vector_search.settings import VectorSearchSettings

    spent: dict[str, dict[str, float]] = {}

    def stage(name: str, call: Callable[[], Any]) -> Any:
        reset_peak()
        begun, busy = time.perf_counter(), time.process_time()
        value = call()
        spent[name] = {
            "seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - busy, "peak_mib": peak_resident_bytes() / MIB,
        }  # fmt: skip
        return value

    def kept(name: str) -> dict[str, Any]:
        (work / "kept" / name).mkdir(parents=True)
        found = None if earlier is None else earlier / name
        return {"previous": lambda how: found, "checkpoints": work / "kept" / name, "progress": lambda line: None}

    limits = CorpusSettings(path=str(folder))
    documents = stage("documents", lambda: build_documents(folder, limits, work / "documents", **kept("documents")))
    passages = stage("passages", lambda: build_passages(documents, settings.passage_words, work / "passages", **kept("passages")))
    vectors = stage("vectors", lambda: embed_corpus(passages, encoder, settings, work / "vectors", identity="bench", **kept("vectors")))
    search = VectorSearchSettings(scan_ms=scan_ms)
    index = stage("index", lambda: build_index(passages, vectors, search, work / "index", **kept("index")))
    if earlier is None:  # a report is made anew whatever changed
        corpus, kept_report = Corpus(folder, documents, passages, index), kept("report")["checkpoints"]
        stage("report", lambda: corpus_report(corpus, encoder, settings, kept_report, seed=0, identities=[], progress=lambda line: None))
    disk = {leg: sum(f.stat().st_size for f in (work / "index" / leg).rglob("*") if f.is_file()) / MIB for leg in ("bm25", "dense")}
    spent["disk_mib"] = disk | {"documents": sum(f.stat().st_size for f in (work / "passages").rglob("*") if f.is_file()) / MIB}
    spent["counts"] = {"documents": documents.facts["documents"], "passages": passages.facts["passages"], "encoded": vectors.facts["encoded"]}
    return spent


def measure(count: int, source: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One size: from nothing, then again after a share of the files changed."""
    from curriculum.retrieval.dense import Encoder
    from curriculum.retrieval.settings import RetrievalSettings
    from curriculum.sources import model_folder

    use_threads(asked.threads)
    settings = RetrievalSettings(max_tokens=128)
    with tempfile.TemporaryDirectory() as scratch:
        work, folder = Path(scratch), Path(scratch) / "corpus"
        folder.mkdir()
        write_documents(folder, count)
        encoder = Words() if source == "words" else Encoder(model_folder(source, work), settings)
        base, load = resident_bytes() / MIB, os.getloadavg()[0]
        first = take_in(folder, work / "first", encoder, settings, asked.scan_ms, None)
        files = sorted(folder.rglob("*.md"))
        for path in files[:: max(1, round(1 / asked.changed))]:
            path.write_text(path.read_text(encoding="utf-8") + "\nOne more sentence that was not there before.\n", encoding="utf-8")
        again = take_in(folder, work / "again", encoder, settings, asked.scan_ms, work / "first")
    return {"documents": count, "encoder": source, "base_mib": base, "load": load, "first": first, "again": again}


def total(run: dict[str, dict[str, float]], key: str, stages: tuple[str, ...] = STAGES) -> float:
    """Seconds over the stages, or the highest of their peaks."""
    values = [run[stage][key] for stage in stages]
    return max(values) if key == "peak_mib" else sum(values)


def growth(runs: list[dict[str, Any]], stages: tuple[str, ...]) -> dict[str, float]:
    """Exponents of the stages' processor time and of their memory beyond what was resident before, by least squares of the logarithms."""
    sizes = np.array([float(run["documents"]) for run in runs])
    seconds = np.array([total(run["first"], "cpu_seconds", stages) for run in runs])
    memory = np.array([max(1.0, total(run["first"], "peak_mib", stages) - run["base_mib"]) for run in runs])
    return {"cpu_seconds_exponent": float(slope(sizes, seconds)), "memory_exponent": float(slope(sizes, memory))}


def ratio(run: dict[str, Any]) -> float:
    """Processor time of bringing the indexes up to date after the change, over that of making them."""
    return total(run["again"], "cpu_seconds", UPDATED) / total(run["first"], "cpu_seconds", UPDATED)


def printed(run: dict[str, Any]) -> None:
    """A table of the stages of one size."""
    counts = run["first"]["counts"]
    said = f"{run['base_mib']:.0f} MiB resident and a load of {run['load']:.1f} before"
    print(f"\n{counts['documents']} documents, {counts['passages']} passages, {run['encoder']}; {said}", file=sys.stderr)
    print(f"{'stage':10}" + 2 * f" {'seconds':>9} {'CPU s':>9} {'peak MiB':>9}" + "   (the second time after the change)", file=sys.stderr)
    for stage in STAGES:
        both = (run[side][stage] for side in ("first", "again") if stage in run[side])
        cells = (f" {one['seconds']:9.2f} {one['cpu_seconds']:9.2f} {one['peak_mib']:9.0f}" for one in both)
        print(f"{stage:10}" + "".join(cells), file=sys.stderr)


def report(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the runs of one encoder say together; the growth, where there is more than one size."""
    found: dict[str, Any] = {"updated_over_first": ratio(runs[-1])}
    if len(runs) > 1:
        last, whole = runs[-1], growth(runs, STAGES)
        scale = 100_000 / last["documents"]
        memory = max(1.0, total(last["first"], "peak_mib") - last["base_mib"]) * scale ** whole["memory_exponent"]
        found |= whole | {
            "cpu_seconds_at_100k": total(last["first"], "cpu_seconds") * scale ** whole["cpu_seconds_exponent"],
            "gib_at_100k": (last["base_mib"] + memory) / 1024, "stages": {stage: growth(runs, (stage,)) for stage in STAGES},
        }  # fmt: skip
    return found


def with_encoder(run: dict[str, Any]) -> dict[str, float]:
    """Of a size with a real encoder: its passages a processor second, its share of the time, and what a change costs."""
    spent = run["first"]["vectors"]["cpu_seconds"]
    share = spent / total(run["first"], "cpu_seconds")
    return {"passages_per_cpu_second": run["first"]["counts"]["encoded"] / spent, "share_of_time": share, "updated_over_first": ratio(run)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--encoder", default="words", help="words, or the source of a sentence-transformers model")
    parser.add_argument("--also", default="", help="another encoder, for the first size")
    parser.add_argument("--changed", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scan-ms", type=float, default=200.0, help="the setting vector_search.scan_ms")
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one, asked.encoder, asked)))
        return
    same, runs = ["--changed", str(asked.changed), "--threads", str(asked.threads), "--scan-ms", str(asked.scan_ms)], []
    sizes = [int(size) for size in asked.sizes.split(",")]
    for size, encoder in [*((size, asked.encoder) for size in sizes), *([(sizes[0], asked.also)] if asked.also else [])]:
        command = [sys.executable, "-m", "benchmarks.ingest", "--one", str(size), "--encoder", encoder, *same]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
        printed(runs[-1])
    facts = {"hardware": describe_hardware("cpu"), "threads": asked.threads, "encoder": asked.encoder, "changed": asked.changed}
    also = {"with_encoder": with_encoder(runs[-1])} if asked.also else {}
    print(json.dumps({**facts, **report(runs[: len(sizes)]), **also, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
