"""Taking in a folder of documents: seconds and peak memory of every stage at several sizes, the growth, and what a change costs.

python -m benchmarks.ingest [--sizes 1000,5000] [--encoder words|packaged:minilm] [--changed 0.01] [--threads 1]

Each size runs in a process of its own. ``words`` sums a fixed random vector a word (384 numbers): it measures all but the encoder, whose speed
is a matter of its own (with MiniLM some 20 passages of 128 tokens a core-second). The peer is the same folder taken in from nothing.
"""

from __future__ import annotations

import argparse
import json
import math
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

STAGES = ("documents", "passages", "vectors", "index", "known items")
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


def take_in(folder: Path, work: Path, encoder: Any, settings: Any, earlier: Path | None) -> dict[str, dict[str, float]]:
    """stage -> seconds and peak MiB above what was resident before the first stage."""
    from curriculum.ingest.corpus import build_documents, build_passages
    from curriculum.ingest.index import build_index
    from curriculum.ingest.known_items import choose_items
    from curriculum.ingest.parts import read_batches
    from curriculum.ingest.settings import CorpusSettings
    from curriculum.ingest.vectors import embed_corpus

    spent: dict[str, dict[str, float]] = {}

    def stage(name: str, call: Callable[[], Any]) -> Any:
        reset_peak()
        begun = time.perf_counter()
        value = call()
        spent[name] = {"seconds": time.perf_counter() - begun, "peak_mib": peak_resident_bytes() / MIB}
        return value

    def kept(name: str) -> dict[str, Any]:
        (work / "kept" / name).mkdir(parents=True)
        found = None if earlier is None else earlier / name
        return {"previous": lambda how: found, "checkpoints": work / "kept" / name, "progress": lambda line: None}

    limits = CorpusSettings(path=str(folder))
    documents = stage("documents", lambda: build_documents(folder, limits, work / "documents", **kept("documents")))
    passages = stage("passages", lambda: build_passages(documents, settings.passage_words, work / "passages", **kept("passages")))
    vectors = stage("vectors", lambda: embed_corpus(passages, encoder, settings, work / "vectors", identity="bench", **kept("vectors")))
    lexical = {name: value for name, value in kept("index").items() if name != "checkpoints"}
    stage("index", lambda: build_index(passages, vectors, work / "index", **lexical))
    stage("known items", lambda: choose_items(lambda: read_batches(passages.path), 2 * settings.max_queries))
    disk = {leg: sum(f.stat().st_size for f in (work / "index" / leg).rglob("*") if f.is_file()) / MIB for leg in ("bm25", "dense")}
    spent["disk_mib"] = disk | {"documents": sum(f.stat().st_size for f in (work / "passages").rglob("*") if f.is_file()) / MIB}
    spent["counts"] = {"documents": documents.facts["documents"], "passages": passages.facts["passages"], "encoded": vectors.facts["encoded"]}
    return spent


def measure(count: int, source: str, changed: float, threads: int) -> dict[str, Any]:
    """One size: from nothing, then again after a share of the files changed."""
    from curriculum.retrieval.dense import Encoder
    from curriculum.retrieval.settings import RetrievalSettings
    from curriculum.sources import model_folder

    use_threads(threads)
    settings = RetrievalSettings(max_tokens=128)
    with tempfile.TemporaryDirectory() as scratch:
        work, folder = Path(scratch), Path(scratch) / "corpus"
        folder.mkdir()
        write_documents(folder, count)
        encoder = Words() if source == "words" else Encoder(model_folder(source, work), settings)
        base = resident_bytes() / MIB
        first = take_in(folder, work / "first", encoder, settings, None)
        files = sorted(folder.rglob("*.md"))
        for path in files[:: max(1, round(1 / changed))]:
            path.write_text(path.read_text(encoding="utf-8") + "\nOne more sentence that was not there before.\n", encoding="utf-8")
        again = take_in(folder, work / "again", encoder, settings, work / "first")
    return {"documents": count, "base_mib": base, "first": first, "again": again}


def total(run: dict[str, dict[str, float]], key: str) -> float:
    """Seconds over the stages, or the highest of their peaks."""
    values = [run[stage][key] for stage in STAGES]
    return sum(values) if key == "seconds" else max(values)


def fitted(sizes: list[int], values: list[float]) -> tuple[float, float]:
    """(exponent, value at 100,000) of a power law through the first and the last size."""
    exponent = math.log(values[-1] / values[0]) / math.log(sizes[-1] / sizes[0])
    return exponent, values[-1] * (100_000 / sizes[-1]) ** exponent


def report(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Prints a table of the stages; the growth, where there is more than one size."""
    for run in runs:
        counts = run["first"]["counts"]
        print(f"\n{counts['documents']} documents, {counts['passages']} passages; {run['base_mib']:.0f} MiB resident before", file=sys.stderr)
        print(f"{'stage':12} {'seconds':>9} {'peak MiB':>9} {'again, s':>9} {'peak MiB':>9}", file=sys.stderr)
        for stage in STAGES:
            first, again = run["first"][stage], run["again"][stage]
            print(f"{stage:12} {first['seconds']:9.2f} {first['peak_mib']:9.0f} {again['seconds']:9.2f} {again['peak_mib']:9.0f}", file=sys.stderr)
    found = {"changed_over_first": total(runs[-1]["again"], "seconds") / total(runs[-1]["first"], "seconds")}
    if len(runs) > 1:
        sizes = [run["documents"] for run in runs]
        grown = [max(1.0, total(run["first"], "peak_mib") - run["base_mib"]) for run in runs]
        slope = (grown[-1] - grown[0]) / (sizes[-1] - sizes[0])
        exponent, seconds = fitted(sizes, [total(run["first"], "seconds") for run in runs])
        memory = runs[-1]["base_mib"] + grown[-1] + slope * (100_000 - sizes[-1])
        found |= {"seconds_exponent": exponent, "seconds_at_100k": seconds, "gib_at_100k": memory / 1024}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,5000")
    parser.add_argument("--encoder", default="words", help="words, or the source of a sentence-transformers model")
    parser.add_argument("--changed", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one, asked.encoder, asked.changed, asked.threads)))
        return
    same = ["--encoder", asked.encoder, "--changed", str(asked.changed), "--threads", str(asked.threads)]
    runs = []
    for size in map(int, asked.sizes.split(",")):
        done = subprocess.run([sys.executable, "-m", "benchmarks.ingest", "--one", str(size), *same], check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
    facts = {"hardware": describe_hardware("cpu"), "threads": asked.threads, "encoder": asked.encoder, "changed": asked.changed}
    print(json.dumps({**facts, **report(runs), "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
