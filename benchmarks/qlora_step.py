"""A QLoRA step at a model's shape: the peak that the ledger predicts, the peak that is measured, and tokens a second.

python -m benchmarks.qlora_step [--shape llama3-8b] [--device cuda] [--blocks 512 1024] [--batches 1 2]

The weights are drawn at random, because memory and time do not depend on what they are, written in bfloat16 (16 GB at 8B) and read as NF4:
the whole peak holds that reading too, and of a CPU the interpreter and its libraries; the step's is what the ledger predicts. Adapters of
rank 16 on every linear layer, recomputed activations, logits of 128 places at a time; on a GPU the paged optimizer under bfloat16 autocast.
A process of its own for each length and batch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from curriculum.adaptation.ledger import FLOAT32, LLAMA3_8B, ModelShape, predict, total
from curriculum.adaptation.meter import MeterRequest, measure_step
from curriculum.adaptation.settings import AdapterSettings
from curriculum.adaptation.training import uses_pages
from curriculum.hardware import describe_hardware, use_threads

SHAPES = {"llama3-8b": LLAMA3_8B, "smollm2-135m": ModelShape(49_152, 576, 1536, 30, 9, 3, 64, tied=True)}


def write_model(shape: ModelShape, folder: Path) -> None:
    """A Llama of that shape with the weights that transformers starts one from, in bfloat16."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim, tie_word_embeddings=shape.tied,
        max_position_embeddings=8192, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder, max_shard_size="1GB")


def measured(folder: Path, shape: ModelShape, settings: AdapterSettings, device: str, threads: int) -> dict[str, float]:
    """One length and batch, in GB (1e9 bytes): the whole peak, a step's as predicted and as measured, their difference, and tokens a second."""
    on_gpu = device.startswith("cuda")
    request = MeterRequest(folder=str(folder), settings=settings, device=device, precision="bfloat16" if on_gpu else "float32", threads=threads)
    reading = measure_step(request)
    predicted = total(predict(shape, settings, value_bytes=2 if on_gpu else FLOAT32, paged=uses_pages(settings, device)))
    return {
        "peak_gb": reading.whole_peak / 1e9, "predicted_step_gb": predicted / 1e9, "step_gb": reading.step_peak / 1e9,
        "ledger_error": abs(predicted / reading.step_peak - 1),
        "tokens_per_second": settings.batch_size * settings.block_size / reading.seconds_a_step,
    }  # fmt: skip


def race(
    shape: ModelShape, device: str, blocks: list[int], batches: list[int], threads: int, changes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Every length and batch, as ``LENGTHxBATCH``, and the worst of them; ``changes`` are to the adapter's settings."""
    settings = AdapterSettings(**{"gradient_checkpointing": True, **(changes or {})})
    with tempfile.TemporaryDirectory() as folder:
        write_model(shape, Path(folder))
        found = {
            f"{block}x{batch}": measured(Path(folder), shape, settings.model_copy(update={"block_size": block, "batch_size": batch}), device, threads)
            for block in blocks for batch in batches
        }  # fmt: skip
    return {**found, **{f"highest_{name}": max(each[name] for each in found.values()) for name in ("peak_gb", "ledger_error")}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama3-8b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--blocks", type=int, nargs="+", default=[512, 1024], help="tokens a sequence")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2], help="sequences a forward pass")
    parser.add_argument("--threads", type=int, default=0, help="0: one a core")
    asked = parser.parse_args()
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no GPU here: give --device cpu and a shape that its memory holds, such as --shape smollm2-135m")
    threads = use_threads(asked.threads)
    found = race(SHAPES[asked.shape], asked.device, asked.blocks, asked.batches, threads)
    print(json.dumps({"hardware": describe_hardware(asked.device), "threads": threads, asked.shape: found}, indent=1))


if __name__ == "__main__":
    main()
