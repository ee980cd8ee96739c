"""The mini-Transformer measured: bits per byte against n-grams on held-out text, speed, and a probe of its mask."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer

from curriculum.artifacts import DirectoryArtifact, ModelArtifact
from curriculum.evaluation.statistics import bootstrap_mean
from curriculum.hardware import matmul_peak_flops
from curriculum.plots import draw
from curriculum.results import Metric, StudyResult
from curriculum.tokenization.packing import TokenBlocks
from curriculum.transformer.model import Transformer, leak_probe, load_model
from curriculum.transformer.ngram import KneserNey
from curriculum.transformer.objectives import block_nats
from curriculum.transformer.settings import TransformerSettings
from curriculum.transformer.training import batch_rows


def trained_rows(facts: dict[str, Any], settings: TransformerSettings, blocks: int, seed: int) -> np.ndarray:
    """The training blocks the model has seen: what the n-grams may count, so that both had the same text."""
    size = settings.batch_size * settings.accumulate
    return np.unique(np.concatenate([batch_rows(step, blocks, size, seed) for step in range(facts["steps"])]))


def mini_transformer_report(
    model: ModelArtifact, corpus: DirectoryArtifact, settings: TransformerSettings, *, seed: int
) -> StudyResult:
    """Everything on the test split, which neither training nor the tokenizer saw."""
    network, test, train = load_model(model.path), TokenBlocks(corpus.path, "test"), TokenBlocks(corpus.path, "train")
    seen = train.blocks[torch.from_numpy(trained_rows(model.facts, settings, len(train.blocks), seed))].tolist()
    nats = {"mini_transformer": block_nats(network, test.blocks)}
    for name, order in (("unigram", 1), ("5gram", 5)):
        baseline = KneserNey(order, test.vocab_size).fit(seen)
        nats[name] = np.array([baseline.nats(block).mean() for block in test.blocks.tolist()])
    to_bits = test.tokens / test.bytes / math.log(2)
    per_example = pd.DataFrame({"example_id": [f"test/{i}" for i in range(len(test.blocks))], **{k: v * to_bits for k, v in nats.items()}})
    peak = matmul_peak_flops()
    achieved = model.facts["tokens_per_second"] * model.facts["train_flops_per_token"]
    metrics = [
        *_bits(per_example),
        Metric(name="perplexity", value=math.exp(nats["mini_transformer"].mean()), n=test.tokens, higher_is_better=False),
        Metric(name="mask_leak", value=leak_probe(network, test.vocab_size), higher_is_better=False),
        Metric(name="tokens_per_second", value=model.facts["tokens_per_second"], deterministic=False),
        Metric(name="matmul_peak_share", value=achieved / peak, deterministic=False),
        Metric(name="matmul_peak", value=peak / 1e9, unit="GFLOP/s", deterministic=False),
    ]
    losses = json.loads((model.path / "history.json").read_text())["loss"]
    return StudyResult(
        study="mini_transformer_report", metrics=metrics, settings=settings.model_dump(mode="json"), seeds=[seed],
        per_example=per_example, tables={"samples": _samples(network, model, settings, seed)}, plots={"loss": _plot(losses)},
    )


def _bits(per_example: pd.DataFrame) -> list[Metric]:
    names = {"mini_transformer": "bits_per_byte", "unigram": "bits_per_byte__unigram", "5gram": "bits_per_byte__5gram"}
    metrics = []
    for column, name in names.items():
        values = per_example[column].to_numpy()
        low, high = bootstrap_mean(values)
        metrics.append(Metric(name=name, value=float(values.mean()), low=low, high=high, n=len(values), higher_is_better=False))
    gain = per_example["5gram"] - per_example["mini_transformer"]
    low, high = bootstrap_mean(gain.to_numpy())
    return [*metrics, Metric(name="gain_over_5gram", value=float(gain.mean()), low=low, high=high, n=len(gain), unit="bits/byte")]


def _samples(network: Transformer, model: ModelArtifact, settings: TransformerSettings, seed: int) -> pd.DataFrame:
    tokenizer, rows = Tokenizer.from_file(str(model.path / "tokenizer.json")), []
    for prompt in settings.sample_prompts:
        for temperature in (0.0, 0.8):
            ids = network.generate(tokenizer.encode(prompt).ids, 40, temperature=temperature, seed=seed)
            rows.append({"prompt": prompt, "temperature": temperature, "text": tokenizer.decode(ids)})
    return pd.DataFrame(rows)


def _plot(losses: list[float]) -> bytes:
    def paint(axes: Any) -> None:
        width = max(1, len(losses) // 40)
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        axes.plot(losses, alpha=0.3)
        axes.plot(np.arange(len(smooth)) + width - 1, smooth, label=f"mean of {width} steps")

    return draw(paint, title="Training loss of the mini-Transformer", x="step", y="nats a token")
