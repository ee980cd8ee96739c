"""Race: learning BPE, WordPiece and Unigram with our own trainers against the `tokenizers` library, in turns, one thread.

python -m benchmarks.tokenizer_training [--rounds 5] [--characters 400000] [--vocabulary 4096] [--kinds bpe wordpiece unigram]
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from statistics import median

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # read when the library is first used

from benchmarks.turns import in_turns
from curriculum.hardware import describe_hardware
from curriculum.tokenization import bpe, unigram_training, wordpiece
from curriculum.tokenization.parity import bounded
from curriculum.tokenization.training import END, KINDS, UNKNOWN, Kind, train_tokenizer

BYTES = 256  # symbols that BPE starts with; the end token is one entry more


def text(characters: int) -> list[str]:
    """Pages of the Python language reference, which every interpreter ships."""
    from pydoc_data.topics import topics

    return bounded([topics[name] for name in sorted(topics)], characters)


def ours(kind: Kind, texts: list[str], vocabulary: int) -> Callable[[], object]:
    """Our trainer of a kind, for as many entries as the library's."""
    run: dict[Kind, Callable[[], object]] = {
        "bpe": lambda: bpe.learn_merges(texts, vocabulary - BYTES - 1),
        "wordpiece": lambda: wordpiece.learn_vocabulary(texts, vocabulary, special=(UNKNOWN, END)),
        "unigram": lambda: unigram_training.train(texts, vocabulary),
    }
    return run[kind]


def same_merges(texts: list[str], vocabulary: int) -> float:
    """The share of BPE's merges that both learn, in order: what is raced has to be the same work."""
    library = [tuple(pair) for pair in json.loads(train_tokenizer("bpe", texts, vocabulary).to_str())["model"]["merges"]]
    learned = bpe.learn_merges(texts, vocabulary - BYTES - 1)
    return sum(a == b for a, b in zip(library, learned, strict=True)) / len(library)


def race(rounds: int, texts: list[str], vocabulary: int, kinds: tuple[Kind, ...]) -> dict[str, float]:
    """Median seconds of each trainer, taken in turns so that all see the same machine; the first round is left out."""
    runs: dict[str, Callable[[], object]] = {}
    for kind in kinds:
        runs[f"ours_{kind}"] = ours(kind, texts, vocabulary)
        runs[f"tokenizers_{kind}"] = lambda kind=kind: train_tokenizer(kind, texts, vocabulary)
    spent, _ = in_turns({name: lambda _, run=run: run() for name, run in runs.items()}, rounds, warm_up=1)
    times = {f"{name}_seconds": median(values) / 1000 for name, values in spent.items()}
    return times | {f"{kind}_ratio": times[f"ours_{kind}_seconds"] / times[f"tokenizers_{kind}_seconds"] for kind in kinds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--characters", type=int, default=400_000)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["bpe", "wordpiece"], help="unigram takes half a minute a round")
    asked = parser.parse_args()
    texts = text(asked.characters)
    found = race(asked.rounds, texts, asked.vocabulary, tuple(asked.kinds))
    facts = {"hardware": describe_hardware("cpu"), "threads": 1, "characters": sum(map(len, texts)), "vocabulary": asked.vocabulary}
    agreement = {"bpe_merge_agreement": same_merges(texts, asked.vocabulary)} if "bpe" in asked.kinds else {}
    print(json.dumps({**facts, **found, **agreement}, indent=1))


if __name__ == "__main__":
    main()
