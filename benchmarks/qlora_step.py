"""A QLoRA step at a model's shape: the peak that the ledger predicts, the peak that is measured, and tokens a second.

python -m benchmarks.qlora_step [--shape llama3-8b] [--device cuda] [--blocks 512 1024] [--batches 1 2]

The weights are drawn at random, because memory and time do not depend on what they are: a file a layer in bfloat16 (16 GB at 8B), read as
NF4. Adapters of rank 16 on every linear layer, recomputed activations, logits of 128 places at a time; on a GPU the paged optimizer under
bfloat16 autocast. A process of its own for each length and batch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from curriculum.adaptation.ledger import FLOAT32, LLAMA3_8B, ModelShape, predict, total
from curriculum.adaptation.meter import MeterRequest, measure_step
from curriculum.adaptation.settings import AdapterSettings
from curriculum.adaptation.training import uses_pages
from curriculum.hardware import describe_hardware, use_threads

SHAPES = {"llama3-8b": LLAMA3_8B, "smollm2-135m": ModelShape(49_152, 576, 1536, 30, 9, 3, 64, tied=True)}
_PLACES = {name: f"self_attn.{name}" if name[0] in "qkvo" else f"mlp.{name}" for name in LLAMA3_8B.matrices()}


def configuration(shape: ModelShape) -> dict[str, Any]:
    """transformers' ``config.json`` of a Llama of that shape."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": shape.vocabulary, "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "tie_word_embeddings": shape.tied, "dtype": "bfloat16",
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "hidden_act": "silu", "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def files(shape: ModelShape) -> Iterator[dict[str, torch.Tensor]]:
    """The tensors of each file: one a layer, and one for the embeddings and the last norm. Normal, std 0.02, as models begin."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*size: int) -> torch.Tensor:
        return (torch.randn(size, generator=generator) * 0.02).bfloat16()

    for layer in range(shape.layers):
        place = f"model.layers.{layer}."
        norms = {f"{place}{name}.weight": torch.ones(shape.hidden).bfloat16() for name in ("input_layernorm", "post_attention_layernorm")}
        yield norms | {f"{place}{_PLACES[name]}.weight": drawn(out, into) for name, (into, out) in shape.matrices().items()}
    ends = {"model.embed_tokens.weight": drawn(shape.vocabulary, shape.hidden), "model.norm.weight": torch.ones(shape.hidden).bfloat16()}
    yield ends if shape.tied else ends | {"lm_head.weight": drawn(shape.vocabulary, shape.hidden)}


def write_model(shape: ModelShape, folder: Path) -> None:
    """A model folder that transformers loads; one layer is in memory at a time."""
    places: dict[str, str] = {}
    for number, tensors in enumerate(files(shape)):
        name = f"model-{number:05d}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(configuration(shape)), encoding="utf-8")


def measured(folder: Path, shape: ModelShape, settings: AdapterSettings, device: str, threads: int) -> dict[str, float]:
    """One length and batch: predicted and measured peak in GB (1e9 bytes), their relative difference, and tokens a second."""
    on_gpu = device.startswith("cuda")
    request = MeterRequest(folder=str(folder), settings=settings, device=device, precision="bfloat16" if on_gpu else "float32", threads=threads)
    reading = measure_step(request)
    predicted = total(predict(shape, settings, value_bytes=2 if on_gpu else FLOAT32, paged=uses_pages(settings, device)))
    return {
        "predicted_gb": predicted / 1e9, "measured_gb": reading.step_peak / 1e9, "ledger_error": abs(predicted / reading.step_peak - 1),
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
    worst = {name: max(each[name] for each in found.values()) for name in ("measured_gb", "ledger_error")}
    return {**found, "highest_gb": worst["measured_gb"], "highest_ledger_error": worst["ledger_error"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama3-8b")
    parser.add_argument("--layers", type=int, default=0, help="of the shape; 0: as it has")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--blocks", type=int, nargs="+", default=[512, 1024], help="tokens a sequence")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2], help="sequences a forward pass")
    parser.add_argument("--threads", type=int, default=0, help="0: one a core")
    asked = parser.parse_args()
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no GPU here: give --device cpu and a shape that its memory holds, such as --shape smollm2-135m")
    threads, shape = use_threads(asked.threads), SHAPES[asked.shape]
    shape = replace(shape, layers=asked.layers) if asked.layers else shape
    found = race(shape, asked.device, asked.blocks, asked.batches, threads)
    print(json.dumps({"hardware": describe_hardware(asked.device), "threads": threads, "shape": asked.shape, **found}, indent=1))


if __name__ == "__main__":
    main()
