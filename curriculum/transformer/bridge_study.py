"""Every family from transformers' weights in our blocks: how far the outputs are apart, and how far when something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import nn

from curriculum.plots import draw
from curriculum.results import Identity, Metric, StudyResult
from curriculum.transformer.bridge_parity import CONDITIONS, Batch, Condition, largest_difference, padding, random_batch
from curriculum.transformer.bridges import bridge, read_reference
from curriculum.transformer.bridges.toys import TOYS, VOCABULARY, toy
from curriculum.transformer.model import Transformer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOLERANCE, REAL_TOLERANCE = 1e-4, 1e-3  # the second for the real decoder: ten times a toy's layers, twelve times its width
GREEDY_TOKENS = 20
TEXTS = (
    "A compiler reads the whole program before it runs any of it, and that is why it can complain about a line you never reach.",
    "The harbour froze early that year; by November the ferries had stopped, and letters came over the ice.",
    "Water boils at a lower temperature on a mountain.",
)
# What a bridge can get wrong without any shape betraying it: the same weights under a configuration that is wrong in one field
BROKEN: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("bert_minilm", "tanh GELU", {"activation": "gelu_tanh"}),
    ("bert", "norms' epsilon 1e-5", {"norm_eps": 1e-5}),
    ("gpt2", "exact GELU", {"activation": "gelu"}),
    ("t5", "scores divided by sqrt(d)", {"score_scale": 0.0}),
    ("t5_v1_1", "buckets up to 64", {"bias_distance": 64}),
    ("llama", "no rope scaling", {"rope_scaling": None}),
    ("llama4", "router weighs the output", {"router": "softmax"}),
    ("llama4", "no temperature", {"temperature": None}),
    ("llama4", "head norms left out", {"qk_norm": ""}),
    ("mistral", "one more in the window", {"window": 9}),
    ("mixtral", "one expert a token", {"experts_per_token": 1}),
    ("gemma", "embeddings not scaled", {"embedding_scale": 1.0}),
    ("llama_smollm2", "base 10,000", {"rope_theta": 10_000.0}),
)
REMARKS = [
    "Largest absolute difference between transformers' output and that of our blocks from the same weights, at tokens that are no padding: "
    "of logits; for BERT of the hidden states after the embeddings and after every layer, and of the logits of the toy's head.",
    "Cached: our model reads pieces of 7, 1, 1, 1, 3 tokens and the rest, against transformers' whole pass; both cached: against its own "
    "cached pass in the same pieces. Toys are random, with windows, chunks and trained lengths shorter than the input of 40 tokens (T5's "
    "source has 140, beyond its farthest bucket).",
    "Positions count padding on the left, in both models: transformers' forward does so unless it is given position_ids.",
    "The controls keep the weights and change one field of our configuration; error_over_tolerance says by how much the plain comparison "
    "then fails. BERT's pooler is left out of the bridge, by name.",
]


def bridge_study(encoder: Path, decoder: Path, *, seed: int, identities: list[Identity], progress: Callable[[str], None]) -> StudyResult:
    """Toys of every family, and the real checkpoints in the folders ``encoder`` (BERT family) and ``decoder`` (Llama family)."""
    rows: list[dict[str, Any]] = []
    controls: list[dict[str, Any]] = []
    metrics: list[Metric] = []
    for name in ("bert_minilm", "llama_smollm2", *TOYS):
        theirs = read_reference({"bert_minilm": encoder, "llama_smollm2": decoder}[name]) if name not in TOYS else toy(name, seed=seed)
        ours = bridge(theirs)
        batches = _batches(name, encoder if name == "bert_minilm" else decoder, seed)
        rows += _rows(name, theirs, ours, batches)
        controls += _controls(name, theirs, ours, batches[""])
        if name == "llama_smollm2":
            metrics.append(_greedy(theirs, ours, batches[""]))
        progress(f"{name}: at most {max(row['max_abs_error'] for row in rows if row['family'] == name):.2g}")
    table = pd.DataFrame(rows)
    for name, part in table.groupby("family", sort=False):
        worst = float(part["max_abs_error"].max(skipna=False))
        metrics.append(Metric(name=f"max_abs_error__{name}", value=worst, n=len(part), higher_is_better=False))
    wrong = pd.DataFrame(controls)
    metrics.append(Metric(name="weakest_control", value=float(wrong["error_over_tolerance"].min(skipna=False)), n=len(wrong)))
    scores = pd.DataFrame({"example_id": table["family"] + ": " + table["condition"], "max_abs_error": table["max_abs_error"]})
    return StudyResult(
        study="weight_bridges", metrics=metrics, identities=identities, seeds=[seed], remarks=REMARKS, per_example=scores,
        tables={"parity": table, "controls": wrong}, plots={"errors": _plot(table, wrong)},
    )


def _batches(name: str, folder: Path, seed: int) -> dict[str, Batch]:
    """What is read, by the side that is padded (none of it: "")."""
    sides = ("", "right", "left")
    if name in TOYS:
        source = 140 if name.startswith("t5") else 0
        return {side: random_batch(VOCABULARY, source=source, padded=side, seed=seed) for side in sides}
    return {side: _text_batch(folder, side) for side in sides}


def _text_batch(folder: Path, side: str) -> Batch:
    """All of ``TEXTS`` padded to the longest, or the longest alone."""
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder, local_files_only=True)(list(TEXTS))["input_ids"]
    lengths = torch.tensor([len(ids) for ids in tokens])
    if not side:
        return Batch(torch.tensor([tokens[int(lengths.argmax())]]))
    mask = padding(lengths, int(lengths.max()), side)
    ids = torch.zeros(mask.shape, dtype=torch.long)
    ids[mask] = torch.tensor([token for row in tokens for token in row])
    return Batch(ids, mask)


def _rows(name: str, theirs: nn.Module, ours: Transformer, batches: dict[str, Batch]) -> list[dict[str, Any]]:
    encoder = ours.config.stack == "encoder"
    rows = []
    for condition in CONDITIONS:
        if encoder and condition.ours_cached:
            continue
        error = largest_difference(theirs, ours, batches[condition.padded], condition)
        rows.append({
            "family": name, "condition": condition.name, "max_abs_error": error, "tolerance": tolerance(name),
            "parameters": sum(value.numel() for value in ours.parameters()),
        })  # fmt: skip
    return rows


def tolerance(name: str) -> float:
    """The largest difference that the syllabus allows the family ``name``."""
    return REAL_TOLERANCE if name == "llama_smollm2" else TOLERANCE


def _controls(name: str, theirs: nn.Module, ours: Transformer, batch: Batch) -> list[dict[str, Any]]:
    """The plain comparison again for each way of ``BROKEN`` that concerns ``name``."""
    rows = []
    for family, label, change in BROKEN:
        if family == name:
            broken = Transformer(replace(ours.config, **change)).eval()
            broken.load_state_dict(ours.state_dict())
            error = largest_difference(theirs, broken, batch, Condition("plain"))
            rows.append({"family": name, "wrong": label, "max_abs_error": error, "error_over_tolerance": error / tolerance(name)})
    return rows


@torch.no_grad()
def _greedy(theirs: nn.Module, ours: Transformer, batch: Batch) -> Metric:
    """Share of equal tokens in a greedy continuation, each model with its own cache."""
    prompt = batch.ids_BT[0, :12].tolist()
    made = theirs(input_ids=torch.tensor([prompt]), use_cache=True)
    tokens = []
    for _ in range(GREEDY_TOKENS):
        tokens.append(int(made.logits[0, -1].argmax()))
        made = theirs(input_ids=torch.tensor([tokens[-1:]]), past_key_values=made.past_key_values, use_cache=True)
    equal = [mine == yours for mine, yours in zip(ours.generate(prompt, GREEDY_TOKENS)[len(prompt) :], tokens, strict=True)]
    return Metric(name="greedy_agreement__llama_smollm2", value=sum(equal) / len(equal), n=len(equal))


def _plot(table: pd.DataFrame, wrong: pd.DataFrame) -> bytes:
    """A dot a condition, a cross a control, and each family's tolerance."""
    names = list(dict.fromkeys(table["family"]))

    def paint(axes: Axes) -> None:
        axes.plot(table["max_abs_error"], [names.index(name) for name in table["family"]], "o", markersize=4, label="bridge")
        axes.plot(wrong["max_abs_error"], [names.index(name) for name in wrong["family"]], "x", markersize=5, label="one field wrong")
        axes.plot([tolerance(name) for name in names], range(len(names)), "k|", markersize=9, label="tolerance")
        axes.set(xscale="log", yticks=range(len(names)), yticklabels=names)

    return draw(paint, title="Distance from transformers' outputs", x="largest absolute difference", size=(6.0, 4.2))
