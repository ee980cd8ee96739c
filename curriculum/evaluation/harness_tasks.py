"""Local tasks for lm-evaluation-harness: YAML beside JSON lines, made of documents that no evaluated model was trained on."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tokenizers import Tokenizer

from curriculum.corpora.documents import cut_at_paragraph, text_digest
from curriculum.errors import DataError
from curriculum.tokenization.packing import TokenBlocks

PERPLEXITY, CHOICE = "domain_perplexity", "docstring_choice"
CHOICES = 4


def held_out_digests(tokenized: Path) -> set[str]:
    """SHA-256 of every document that stands whole in the validation or test split of a tokenized corpus.

    The splits themselves are read back, so this holds whatever rule made them.
    """
    found: set[str] = set()
    for split in ("validation", "test"):
        data = TokenBlocks(tokenized, split)
        tokenizer = Tokenizer.from_file(str(data.tokenizer_path))
        stream = [int(data.blocks[0, 0]), *data.blocks[:, 1:].flatten().tolist()]
        ends = [i for i, token in enumerate(stream) if token == data.end]
        for start, stop in pairwise(ends):
            found.add(text_digest(tokenizer.decode(stream[start + 1 : stop], skip_special_tokens=False)))
    return found


def held_out_texts(domain: pd.DataFrame, pydocs: pd.DataFrame, held_out: set[str], *, n: int, characters: int) -> list[str]:
    """Texts of the domain's test split that neither the adapter nor the mini-Transformer was trained on.

    A document of ``pydocs`` counts only when it is in ``held_out``; a user's own document was never in the other corpus.

    Raises:
        DataError: there are fewer than two.
    """
    test = domain[domain["split"] == "test"]
    unseen = test[~test["doc_id"].isin(pydocs["doc_id"]) | test["digest"].isin(held_out)]
    texts = [cut_at_paragraph(text, characters) for text in unseen["text"].iloc[:n]]
    if len(texts) < 2:
        raise DataError(
            f"only {len(texts)} documents are held out from both corpora; raise corpora.domain_test_characters "
            "or tokenization.held_out_tokens"
        )
    return texts


def build_multiple_choice(documents: pd.DataFrame, n: int, seed: int, *, asked: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """At most ``n`` questions "which summary belongs to this function?", of four choices.

    The wrong ones are summaries of other functions, of the same module while there are enough, so that the module's subject
    does not give the answer away. Equal summaries never stand in one question, and the right one's place is random.

    Args:
        documents: the documents table; functions, methods and classes with a one-sentence summary are used.
        asked: ids of the documents that may be asked about (all by default); any may lend a wrong choice.

    Returns:
        Records ``question_id``, ``question``, ``choices`` (4 texts), ``answer`` (index of the right one).

    Raises:
        DataError: fewer than four summaries, or nothing to ask.
    """
    usable = documents[documents["kind"].isin(["function", "method", "class"]) & documents["summary"].map(_fair)]
    usable = usable.drop_duplicates("summary").sort_values("doc_id")
    if len(usable) < CHOICES:
        raise DataError(f"{len(usable)} functions have a summary; a question of {CHOICES} choices needs as many")
    allowed = set(usable["doc_id"]) if asked is None else set(asked)
    candidates = [row for row in usable.to_dict("records") if row["doc_id"] in allowed]
    if not candidates:
        raise DataError("no function with a summary is held out; raise tokenization.held_out_tokens")
    rng = random.Random(seed)
    by_module: dict[str, list[str]] = defaultdict(list)
    for row in usable.to_dict("records"):
        by_module[row["module"]].append(row["summary"])
    everything = list(usable["summary"])
    return [_question(row, by_module[row["module"]], everything, rng) for row in rng.sample(candidates, min(n, len(candidates)))]


def _fair(summary: str) -> bool:
    return 20 <= len(summary) <= 200


def _question(row: dict[str, Any], near: list[str], everything: list[str], rng: random.Random) -> dict[str, Any]:
    right = row["summary"]
    pool = [s for s in near if s != right]
    wrong = rng.sample(pool, min(CHOICES - 1, len(pool)))
    while len(wrong) < CHOICES - 1:
        other = rng.choice(everything)
        if other != right and other not in wrong:
            wrong.append(other)
    answer = rng.randrange(CHOICES)
    choices = [*wrong[:answer], right, *wrong[answer:]]
    name = row["qualified_name"] or row["title"]
    question = f"The documentation of the Python {row['kind']} {name} begins with this sentence:"
    return {"question_id": row["doc_id"], "question": question, "choices": choices, "answer": answer}


def name_overlap(questions: list[dict[str, Any]]) -> float:
    """Accuracy of choosing the summary that shares most of its words' stems with the function's name: a baseline without a model."""
    right = 0
    for q in questions:
        name = {w[:5].lower() for w in re.findall(r"[a-zA-Z]{3,}", q["question_id"])}
        shared = [len(name & {w[:5].lower() for w in re.findall(r"[a-zA-Z]{3,}", c)}) for c in q["choices"]]
        right += max(range(len(shared)), key=lambda i: shared[i]) == q["answer"]
    return right / len(questions)


def write_tasks(folder: Path, texts: list[str], questions: list[dict[str, Any]]) -> list[str]:
    """Write both tasks (YAML and JSON lines) under ``folder``; returns their names."""
    documents = [{"document_id": f"document-{i:03d}", "text": text} for i, text in enumerate(texts)]
    perplexity = {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "text",
        "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    }
    choice = {
        "output_type": "multiple_choice", "doc_to_text": "question", "doc_to_target": "answer", "doc_to_choice": "choices",
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
    }
    for name, records, task in ((PERPLEXITY, documents, perplexity), (CHOICE, questions, choice)):
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
        source = {"dataset_path": "json", "test_split": "test",
                  "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")}}
        config = {"task": name, **source, **task, "metadata": {"version": 1.0}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return [PERPLEXITY, CHOICE]
