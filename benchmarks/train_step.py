"""Race: one optimizer step of the mini-Transformer against transformers' Llama of the same shape, in turns in one process.

python benchmarks/train_step.py [--steps 12] [--threads 0]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F

from curriculum.hardware import describe_hardware, matmul_peak_flops, use_threads
from curriculum.transformer.model import Transformer
from curriculum.transformer.objectives import NextToken
from curriculum.transformer.settings import TransformerSettings
from curriculum.transformer.training import make_optimizer, model_config, train_step

VOCABULARY, LENGTH = 4096, 128


def peer(settings: TransformerSettings) -> torch.nn.Module:
    """transformers' Llama of the same shape, with its fused attention."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": settings.width, "intermediate_size": settings.hidden, "num_hidden_layers": settings.layers}
    heads = {"num_attention_heads": settings.heads, "num_key_value_heads": settings.kv_heads}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=True, **shape, **heads)).train()


def peer_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, blocks: torch.Tensor, settings: TransformerSettings) -> None:
    """The same step as ours: loss, backward, clipping, AdamW."""
    optimizer.zero_grad(set_to_none=True)
    logits = model(input_ids=blocks[:, :-1], use_cache=False).logits
    F.cross_entropy(logits.flatten(0, 1), blocks[:, 1:].flatten()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    optimizer.step()


def race(steps: int) -> dict[str, float]:
    """Median seconds a step of each, taken in turns so that both see the same machine; the first step of each is left out."""
    settings = TransformerSettings()
    torch.manual_seed(0)
    ours, theirs = Transformer(model_config(settings, VOCABULARY)).train(), peer(settings)
    optimizers = make_optimizer(ours, settings), torch.optim.AdamW(theirs.parameters(), lr=1e-3)
    blocks = torch.randint(VOCABULARY, (settings.batch_size, LENGTH + 1))
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: train_step(ours, optimizers[0], [NextToken().batch(blocks)], 0, settings),
        "transformers": lambda: peer_step(theirs, optimizers[1], blocks, settings),
    }
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(steps + 1):
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            spent[name].append(time.perf_counter() - begun)
    seconds = {name: median(values[1:]) for name, values in spent.items()}
    tokens = settings.batch_size * LENGTH
    flops = ours.config.train_flops_per_token(LENGTH) * tokens
    return {
        **{f"{name}_ms": 1000 * value for name, value in seconds.items()},
        "ratio": seconds["transformers"] / seconds["ours"],
        "tokens_per_second": tokens / seconds["ours"],
        "matmul_peak_share": flops / seconds["ours"] / matmul_peak_flops(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=0, help="0: one a core")
    asked = parser.parse_args()
    threads = use_threads(asked.threads)
    print(json.dumps({"hardware": describe_hardware("cpu"), "threads": threads, **race(asked.steps)}, indent=1))


if __name__ == "__main__":
    main()
