"""Race: one optimizer step of the mini-Transformer against transformers' Llama and GPT-2 of the same shape, in turns in one process.

python -m benchmarks.train_step [--steps 20] [--threads 1] [--vocabulary 4096] [--compile]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F

from benchmarks.turns import in_turns
from curriculum.hardware import describe_hardware, matmul_peak_flops, use_threads
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.model import Transformer
from curriculum.transformer.objectives import NextToken
from curriculum.transformer.settings import TransformerSettings
from curriculum.transformer.training import make_optimizer, train_step

BATCH, LENGTH, LAYERS, HEADS, WIDTH = 12, 64, 4, 4, 128
SETTINGS = TransformerSettings()
Step = Callable[[torch.Tensor], object]


def shapes(vocabulary: int) -> dict[str, ModelConfig]:
    """Ours, one configuration a peer."""
    gpt2 = {"norm": "layer", "activation": "gelu_tanh", "position": "learned", "max_positions": LENGTH, "biases": True}
    return {
        "llama": ModelConfig(vocabulary, LAYERS, WIDTH, HEADS, HEADS, SETTINGS.hidden),
        "gpt2": ModelConfig(vocabulary, LAYERS, WIDTH, HEADS, HEADS, 4 * WIDTH, **gpt2),
    }


def peers(vocabulary: int) -> dict[str, torch.nn.Module]:
    """transformers' modules of the same shapes, with their fused attention and without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    llama = LlamaConfig(
        vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=SETTINGS.hidden, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, tie_word_embeddings=True,
    )
    gpt2 = GPT2Config(
        vocab_size=vocabulary, n_positions=LENGTH, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return {"llama": LlamaForCausalLM(llama).train(), "gpt2": GPT2LMHeadModel(gpt2).train()}


def our_step(config: ModelConfig, *, compiled: bool) -> Step:
    """The training loop's own step."""
    model = Transformer(config).train()
    optimizer = make_optimizer(model, SETTINGS)
    if compiled:
        model.compile()
    return lambda blocks: train_step(model, optimizer, [NextToken().batch(blocks)], 0, SETTINGS)


def peer_step(model: torch.nn.Module) -> Step:
    """The same step as ours, as their users write it: loss, backward, clipping, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(blocks: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        logits = model(input_ids=blocks[:, :-1], use_cache=False).logits
        F.cross_entropy(logits.flatten(0, 1), blocks[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.clip_norm)
        optimizer.step()

    return step


def race(steps: int, vocabulary: int, *, compiled: bool) -> dict[str, float]:
    """Median milliseconds a step of each, taken in turns so that all see the same machine; the first two steps are left out."""
    torch.manual_seed(0)
    configs = shapes(vocabulary)
    runs = {f"ours_{name}": our_step(config, compiled=compiled) for name, config in configs.items()}
    runs |= {f"transformers_{name}": peer_step(model) for name, model in peers(vocabulary).items()}
    blocks = torch.randint(vocabulary, (BATCH, LENGTH + 1))
    spent, _ = in_turns({name: lambda _, run=run: run(blocks) for name, run in runs.items()}, steps, warm_up=2)
    times = {f"{name}_ms": median(values) for name, values in spent.items()}
    peak = matmul_peak_flops()
    for name, config in configs.items():
        floor = config.train_flops_per_token(LENGTH) * BATCH * LENGTH / peak * 1000
        times[f"{name}_ratio"] = times[f"ours_{name}_ms"] / times[f"transformers_{name}_ms"]
        times[f"{name}_matmul_peak_share"] = floor / times[f"ours_{name}_ms"]
        times[f"{name}_ratio_if_only_matmul"] = floor / times[f"transformers_{name}_ms"]
    fastest = min(times["transformers_llama_ms"], times["transformers_gpt2_ms"])
    return {**times, "ratio_to_the_faster_peer": times["ours_llama_ms"] / fastest, "matmul_peak_gflops": peak / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="0: one a core")
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--compile", action="store_true", help="ours through torch.compile (needs a C++ compiler)")
    asked = parser.parse_args()
    threads = use_threads(asked.threads)
    found = race(asked.steps, asked.vocabulary, compiled=asked.compile)
    print(json.dumps({"hardware": describe_hardware("cpu"), "threads": threads, **found}, indent=1))


if __name__ == "__main__":
    main()
