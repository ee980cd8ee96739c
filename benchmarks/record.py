"""Run a race, keep what it printed under ``results/benchmarks/``, and write the table of them all, ``docs/benchmarks.md``.

python -m benchmarks.record NAME [arguments of benchmarks/NAME.py]      one race; none: the table alone

A figure is a path into what the race prints. Where it has an aim, the table says whether it was met; a missed one stays in.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "results" / "benchmarks", ROOT / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Figure:
    """One line of the table: what, where it stands in the output, and what it should be.

    What stands there is a number, or a share or a difference of shares with its interval and its number of cases.
    """

    what: str
    path: str
    most: float | None = None
    least: float | None = None
    unit: str = ""

    def row(self, found: Any) -> str | None:
        """The line; None where the race printed no such figure (its peer was not installed, or that part was not run)."""
        for key in self.path.split("."):
            if not isinstance(found, dict) or key not in found:
                return None
            found = found[key]
        if isinstance(found, dict):  # with an interval: it has no aim
            value = found["share"] if "share" in found else found["difference"]
            return f"| {self.what} | {value:.3g} [{found['low']:.3g}, {found['high']:.3g}] of {found['of']} |  |  |"
        aim = f"<= {self.most:g}" if self.most is not None else f">= {self.least:g}" if self.least is not None else ""
        met = (self.most is None or found <= self.most) and (self.least is None or found >= self.least)
        return f"| {self.what} | {found:.4g}{self.unit} | {aim} | {('met' if met else '**missed**') if aim else ''} |"


FIGURES = {
    "train_step": ("A training step of the mini-Transformer", [
        Figure("time over the faster of transformers' Llama and GPT-2", "ratio_to_the_faster_peer", most=0.7),
        Figure("share of the machine's matmul peak", "llama_matmul_peak_share"),
    ]),
    "decode": ("Greedy decoding with a KV cache", [Figure("time a token over transformers' generate", "ratio", most=0.5)]),
    "tokenizer_training": ("Learning a tokenizer", [
        Figure("BPE: time over the tokenizers library", "bpe_ratio"), Figure("WordPiece: time over the tokenizers library", "wordpiece_ratio"),
        Figure("Unigram: time over the tokenizers library", "unigram_ratio"),
    ]),
    "reader_step": ("Training the reader", [
        Figure("windows a second over the Trainer as in its question-answering example", "ratio_by_wall_time.trainer_padded_to_length", least=1.5),
        Figure("over the Trainer, padded to a batch's longest", "ratio_by_wall_time.trainer_padded_to_longest"),
        Figure("over the Trainer, grouped by length", "ratio_by_wall_time.trainer_grouped_by_length"),
    ]),
    "qlora_step": ("A QLoRA step at the shape of Llama-3-8B, activations recomputed", [  # of another shape there is no line here
        Figure("highest peak", "llama3-8b.highest_peak_gb", most=12, unit=" GB"),
        Figure("highest difference of the ledger", "llama3-8b.highest_ledger_error", most=0.1),
        *(
            Figure(f"sequence {length}, micro-batch {batch}: {what}", f"llama3-8b.{length}x{batch}.{path}", unit=unit)
            for length in (512, 1024) for batch in (1, 2)
            for what, path, unit in (("peak", "peak_gb", " GB"), ("tokens a second", "tokens_per_second", ""))
        ),
    ]),
    "search": ("The parts of a search", [
        Figure("encoding: time over SentenceTransformer.encode", "encode.ratio_to_sentence_transformers", most=1.0),
        Figure("encoding: time over the arithmetic limit", "encode.times_the_arithmetic_limit", most=1.3),
        Figure("encoding: time over int8 in onnxruntime", "encode.ratio_to_onnxruntime_int8", most=1.0),
        Figure("int8 in onnxruntime: lowest cosine with our vectors", "encode.int8_lowest_cosine"),
        Figure("BM25: time over bm25s", "bm25.ratio_to_bm25s", most=1.0),
        Figure("BM25: share of equal results in the first ten", "bm25.top10_equal_share"),
        Figure("flat scan: time over numpy", "scan.ratio_to_numpy", most=1.0),
        Figure("flat scan: time over reading the vectors from memory", "scan.times_the_memory_limit"),
    ]),
    "search_pipeline": ("The whole query: encode, BM25, scan, fuse, rerank 20", [
        Figure("p50", "ours.p50_ms", unit=" ms"), Figure("p95", "ours.p95_ms", unit=" ms"),
        Figure("p50 over Haystack's, the same arithmetic", "ours.ratio_p50"),
        Figure("p50 over Haystack's, reranking in bfloat16", "ours_bfloat16.ratio_p50", most=0.5),
        Figure("p95 over Haystack's, reranking in bfloat16", "ours_bfloat16.ratio_p95"),
        Figure("share of the first ten that bfloat16 leaves", "ours_bfloat16.top10_shared"),
        Figure("cold start", "cold_start_s.ours", unit=" s"), Figure("Haystack's cold start", "cold_start_s.haystack", unit=" s"),
    ]),
    "cluster": ("Encoding by a Ray cluster of two nodes on this machine", [
        Figure("time over two plain processes", "ratio_to_two_processes"), Figure("speed over one process", "speed_over_one_process"),
        Figure("a node killed half-way: time over one process", "killed_over_one_process"),
        Figure("until both workers are ready", "ready_s", unit=" s"), Figure("largest difference of a vector", "largest_difference", most=1e-5),
    ]),
    "serve_load": ("`curriculum serve` under load", [
        Figure("requests a second", "requests_per_second"), Figure("p50", "p50_ms", unit=" ms"), Figure("p95", "p95_ms", unit=" ms"),
        Figure("seconds held", "seconds", least=600), Figure("requests lost", "failed", most=0),
    ]),
    "ingest": ("Taking in a folder of documents", [
        Figure("exponent of the processor time's growth with the documents", "cpu_seconds_exponent"),
        Figure("exponent of the memory's, beyond what is resident before", "memory_exponent"),
        *(
            Figure(f"{stage}: exponent of {what}", f"stages.{stage}.{key}_exponent")
            for stage in ("documents", "passages", "vectors", "index", "report")
            for what, key in (("processor time", "cpu_seconds"), ("memory", "memory"))
        ),
        Figure("processor time for 100,000 documents, the report included, without the encoder", "cpu_seconds_at_100k", unit=" s"),
        Figure("memory for 100,000 documents", "gib_at_100k", most=6, unit=" GiB"),
        Figure("1% of the documents changed: time of the indexes over taking in all", "updated_over_first"),
        Figure("with a real encoder: passages a processor second", "with_encoder.passages_per_cpu_second"),
        Figure("with a real encoder: its share of the time, the report included", "with_encoder.share_of_time"),
        Figure("with a real encoder, 1% changed: time of the indexes over taking in all", "with_encoder.updated_over_first"),
    ]),
    "index_update": ("A vector index brought up to date after a share of its vectors was replaced", [
        Figure(f"{kind}: {what}", f"{kind}.{path}", unit=unit, most=most)
        for kind in ("flat", "hnsw", "ivf_pq_rescored")
        for what, path, unit, most in (
            ("processor time", "seconds", " s", None), ("time over building it anew", "ratio", "", None), ("recall@10", "recall", "", None),
            ("recall@10 below that of one built anew", "recall_lost", "", 0.01),
        )
    ]),
    "injection": ("An instruction planted in a passage: shares of answers, with exact 95% intervals", [
        Figure(f"{name}: {what}", f"{name}.{path}") for name in ("shipped", "email", "table", "code") for what, path in (
            ("cases", "cases"), ("passages cut so that the attack is read", "cut"), ("rows whose question the service refuses, not asked", "refused"),
            ("the draft holds the canary, plain prompt", "plain.followed"), ("the same, served", "served.followed"),
            ("the same, in what the verifier lets out", "served.followed_given"),
            ("the draft holds two words of the attack alone, plain prompt", "plain.echoes"), ("the same, served", "served.echoes"),
            ("the same, in what the verifier lets out", "served.echoes_given"),
            ("the same in the draft, served, where the attack's words are shuffled", "served.echoes_shuffled"),
            ("the same, where the attack is not there", "served.echoes_without"),
            ("served less plain prompt: two words of the attack alone", "served_less_plain.echoes"),
            ("the attack less its words shuffled, served: two words of the attack alone", "served.attack_less_shuffled.echoes"),
            ("the attack changes the draft, plain prompt", "plain.changed"), ("the same, served", "served.changed"),
            ("the same, served, by the attack's words shuffled", "served.changed_shuffled"),
            ("served less plain prompt: changed", "served_less_plain.changed"),
            ("something is let out, the attack not there", "served.answered_without"), ("something is let out, the attack there", "served.answered"),
            ("a sentence is let out that the attack alone supports", "served.by_attack"),
            ("the reader's span is taken out of the attack", "reader.copied"), ("the same, in what the verifier lets out", "reader.copied_given"),
        )
    ]),
}  # fmt: skip


def page(results: Path = RESULTS) -> str:
    """The table of every race that was recorded, as Markdown."""
    lines = ["# Races", "", "One run each, both sides in turns in it; written by `benchmarks/record.py` from `results/benchmarks/`.", ""]
    for name, (title, figures) in FIGURES.items():
        file = results / f"{name}.json"
        if file.exists():
            kept = json.loads(file.read_text(encoding="utf-8"))
            rows = [row for row in (figure.row(kept["found"]) for figure in figures) if row]
            threads = f", {kept['found']['threads']} thread" if "threads" in kept["found"] else ""
            where = f"{kept['found']['hardware']}{threads}: `python {kept['command']}`"
            lines += [f"## {title}", "", where, "", "| figure | value | aim | |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


def printed(stdout: str) -> str:
    """The race's own JSON, which begins with a brace on a line by itself; libraries may have printed other things before it."""
    begins = re.search(r"^\{$", stdout, re.MULTILINE)
    if begins is None:
        raise SystemExit(f"the race printed no result: {stdout[-500:]}")
    return stdout[begins.start() :]


def placeless(argument: str) -> str:
    """An argument as it is recorded: of an absolute path, or a ``path:`` source of one, the name alone. The rest is this machine's."""
    return re.sub(r"^(path:)?/.*/", r"\1", argument.rstrip("/"))


def main() -> None:
    if sys.argv[1:]:
        name, *arguments = sys.argv[1:]
        if name not in FIGURES:
            raise SystemExit(f"there is no race '{name}'; there are {', '.join(FIGURES)}")
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(done.returncode)
        RESULTS.mkdir(parents=True, exist_ok=True)
        kept = {"command": shlex.join(["-m", f"benchmarks.{name}", *map(placeless, arguments)]), "found": json.loads(printed(done.stdout))}
        (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
