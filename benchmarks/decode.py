"""Race: greedy decoding with a KV cache against transformers' generate, from the same weights, in turns in one process.

python -m benchmarks.decode [--tokens 64] [--repeats 7] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
from statistics import median

import torch

from benchmarks.turns import in_turns
from curriculum.hardware import describe_hardware, use_threads
from curriculum.transformer.bridges import bridge

VOCABULARY, PROMPT = 4096, 16


def peer() -> torch.nn.Module:
    """transformers' Llama in the mini-Transformer's shape, with sharp random weights so that the argmax has no ties."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None, **shape))
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.1)
    return model.eval()


def race(tokens: int, repeats: int) -> dict[str, float | bool]:
    """Median milliseconds a new token of each; the tokens must be the same."""
    theirs = peer()
    ours = bridge(theirs)
    prompt = torch.randint(VOCABULARY, (1, PROMPT))
    asked = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0, "use_cache": True}
    runs = {
        "ours": lambda _: ours.generate(prompt[0].tolist(), tokens),
        "transformers": lambda _: theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **asked)[0].tolist(),
    }
    spent, said = in_turns(runs, repeats, warm_up=1)
    times = {f"{name}_ms_a_token": median(values) / tokens for name, values in spent.items()}
    ratio = times["ours_ms_a_token"] / times["transformers_ms_a_token"]
    return {**times, "ratio": ratio, "same_tokens": said["ours"] == said["transformers"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="0: one a core")
    asked = parser.parse_args()
    threads = use_threads(asked.threads)
    print(json.dumps({"hardware": describe_hardware("cpu"), "threads": threads, **race(asked.tokens, asked.repeats)}, indent=1))


if __name__ == "__main__":
    main()
