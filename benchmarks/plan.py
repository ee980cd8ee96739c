"""A plan on paper for 10 million and 1 billion passages: ``docs/scale.md``, from the recorded races and the arithmetic of the indexes.

python -m benchmarks.plan          reads results/benchmarks/{search,search_pipeline,ingest,cluster}.json, writes the page

What is measured here is multiplied; what is not (more machines, other hardware, the network between them) is named as assumed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, ROOT
from curriculum.vector_search.kinds import choose_kind, index_bytes
from curriculum.vector_search.settings import VectorSearchSettings

PAGE = ROOT / "docs" / "scale.md"
SIZES = {"10 million": 10_000_000, "1 billion": 1_000_000_000}
TOKENS, WORDS = 130, 90  # of a passage
INGESTED_WORDS = 60  # of a passage in the race of taking in: its work is taken to grow with the words
DIMENSION, GIB, DAY = 384, 2**30, 86_400.0
WORKERS = 64  # assumed: of a Ray cluster, a core each
MACHINE_GIB = 64  # assumed: memory of one machine, of which three quarters hold an index


_PAGE = """\
# 10 million and 1 billion passages: a plan on paper

Written by `benchmarks/plan.py`. Multiplied from what the races in [benchmarks.md](benchmarks.md) measured on {measured} passages and fewer.
Assumed: machines of {memory} GiB, three quarters of it for an index; passages of {words} words; growth in proportion to words and passages.

| | {sizes} |
|---|---|---|
{table}

## What follows

- **Encoding is the bill.** It is proportional to the tokens, and no two machines need to talk: shards are encoded apart and kept by the
  digest of their texts, and a killed one is encoded again alone. A GPU changes the price of this line and of no other. A Ray cluster of
  two nodes on one machine took {ratio:.2f} of the time of two plain processes and was {speed:.2f} times as fast as one; with a node killed
  half-way it took {killed:.2f} of one's time. More nodes are taken to lose no more each: their network carries texts and vectors alone.
- **A flat scan ends first.** By latency it does between a hundred thousand vectors and a million; by memory, graphs do at some millions.
  Then codes are in memory and the vectors on disk, 100 candidates re-scored. What that loses is measured to 50,000 vectors
  (`vector_index_study.recall_lowest__ivf_pq_rescored`); beyond, recall at fixed probes falls, and the probes are to be set on a sample
  that an exact scan has answered.
- **Shards by document, not by leg.** Each shard answers with its own best of both legs. BM25 then needs the collection's statistics
  (document frequencies, mean length) on every shard, or scores of different shards do not compare; fusion by rank asks for less.
- **The tail decides.** A query waits for its slowest shard: with 20 shards, one query in three meets some shard's slowest 2%.
- **Updates.** Only changed documents are parsed, cut and encoded; Lucene merges segments; a graph loses and gains vertices, and codes are
  made under the cells that were trained, until half as many vectors have changed as there were: then both are built anew.
- **Not measured here:** anything across a network, reads of re-scored vectors from disk under load, and texts that are not these.
"""


def measured(results: Path = RESULTS) -> dict[str, float]:
    """What the plan multiplies: per core and per passage, as the races recorded it."""

    def found(name: str) -> dict[str, Any]:
        return json.loads((results / f"{name}.json").read_text(encoding="utf-8"))["found"]

    def seconds(*stages: str) -> float:
        """Of the processor where the race took them, which other work on the machine changes less."""
        return sum(ingest[stage].get("cpu_seconds", ingest[stage]["seconds"]) for stage in stages)

    encode, cluster = found("search")["encode"], found("cluster")
    runs = [run for run in found("ingest")["runs"] if run.get("encoder", "words") == "words"]
    ingest = max(runs, key=lambda run: run["documents"])["first"]
    passages = ingest["counts"]["passages"]
    of_this_length = passages * INGESTED_WORDS / WORDS
    return {
        "tokens_per_core_s": encode["tokens"] / encode["ours_ms"] * 1000,
        "index_s_per_passage": seconds("index") / of_this_length,
        "parse_s_per_passage": seconds("documents", "passages") / of_this_length,
        "lexical_bytes_per_passage": ingest["disk_mib"]["bm25"] * 2**20 / of_this_length,
        "query_s": found("search_pipeline")["ours"]["p50_ms"] / 1000,
        "scan_bytes_per_s": 100_000 * DIMENSION * 4 / found("search")["scan"]["faiss_ms"] * 1000,
        "measured_passages": passages,
        "cluster_ratio": cluster["ratio_to_two_processes"],
        "cluster_speed": cluster["speed_over_one_process"],
        "cluster_killed": cluster["killed_over_one_process"],
    }


def plan(passages: int, per: dict[str, float], settings: VectorSearchSettings) -> list[tuple[str, str]]:
    """(what, how much) for one size."""
    room = 0.75 * MACHINE_GIB * GIB
    encode = passages * TOKENS / per["tokens_per_core_s"] / DAY
    kinds = {kind: index_bytes(kind, passages, DIMENSION, settings) for kind in ("flat", "hnsw", "ivf_pq")}
    machines = {kind: math.ceil(size / room) for kind, size in kinds.items()}
    lexical = passages * per["lexical_bytes_per_passage"]
    scan = kinds["flat"] / per["scan_bytes_per_s"]
    return [
        ("parsing and cutting", f"{passages * per['parse_s_per_passage'] / DAY:.3g} core-days"),
        (f"encoding, {TOKENS} tokens a passage", f"{encode:,.3g} core-days: {math.ceil(encode):,} cores for a day"),
        (f"the same by a Ray cluster of {WORKERS} workers, a core each", f"{encode / (WORKERS * per['cluster_speed'] / 2):,.3g} days"),
        ("BM25 index, building", f"{passages * per['index_s_per_passage'] / DAY:.3g} core-days"),
        ("BM25 index, on disk", f"{lexical / GIB:,.3g} GiB; indexes by Lucene's limit of 2^31 documents: {math.ceil(passages / 2**31)}"),
        ("vectors in float32 (flat)", f"{kinds['flat'] / GIB:,.4g} GiB; machines: {machines['flat']}; {scan:,.3g} s a query on one core"),
        ("vectors with their HNSW graph", f"{kinds['hnsw'] / GIB:,.4g} GiB; machines: {machines['hnsw']}"),
        ("codes (IVF-PQ), the vectors on disk", f"{kinds['ivf_pq'] / GIB:,.3g} GiB; machines: {machines['ivf_pq']}"),
        ("what dense_index would take by default", choose_kind(passages, DIMENSION, settings)),
        ("re-scoring and reranking a query", f"as now: {per['query_s']:.2g} s on one core, for it does not grow with the corpus"),
    ]


def page(results: Path = RESULTS) -> str:
    """The plan as Markdown."""
    per, settings = measured(results), VectorSearchSettings()
    plans = {name: plan(size, per, settings) for name, size in SIZES.items()}
    rows = zip(*plans.values(), strict=True)
    table = [f"| {cells[0][0]} | {' | '.join(value for _, value in cells)} |" for cells in rows]
    return _PAGE.format(
        measured=f"{per['measured_passages']:,.0f}", memory=MACHINE_GIB, words=WORDS, sizes=" | ".join(SIZES), table="\n".join(table),
        ratio=per["cluster_ratio"], speed=per["cluster_speed"], killed=per["cluster_killed"],
    )  # fmt: skip


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
