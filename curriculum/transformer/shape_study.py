"""Shapes of published models: the computed counts beside the stated ones, and beside those of transformers' own modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from curriculum.plots import draw
from curriculum.results import Metric, StudyResult
from curriculum.transformer.shapes import (
    PUBLISHED,
    TRAINING_BYTES,
    Published,
    Shape,
    active_parameters,
    forward_flops,
    kv_cache_bytes,
    parameters,
    total_parameters,
    training_bytes,
    training_flops,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# One small shape a family, with the sizes apart from each other, so that a wrong factor shows
TINY = {
    "gpt2": Shape(97, 24, 4, 56, 3, positions=40, tied=True, biases=True, norm_vectors=2),
    "bert": Shape(97, 24, 4, 56, encoder_layers=3, positions=40, segments=2, biases=True, norm_vectors=2, pooler=True),
    "t5": Shape(97, 24, 3, 56, 2, 3, head_dim=10, bias_buckets=12, tied=True),
    "llama": Shape(97, 24, 6, 56, 3, kv_heads=2, head_dim=8, gated=True),
    "mistral": Shape(97, 24, 6, 56, 3, kv_heads=3, head_dim=8, gated=True, window=16),
    "mixtral": Shape(97, 24, 6, 56, 3, kv_heads=2, head_dim=8, gated=True, experts=5, active_experts=2),
    "llama4": Shape(97, 24, 6, 56, 4, kv_heads=2, head_dim=8, gated=True, experts=5, active_experts=1, shared_experts=1, window=16, window_layers=3),
}
REMARKS = [
    "Counts, caches, FLOPs and bytes are arithmetic from the configuration; nothing was loaded or run. The column published, and "
    "published_active, are what the source prints. relative_difference is computed / published - 1.",
    "beyond_last_digit counts the published figures that are off by a whole step of their last digit, so that neither rounding nor "
    "cutting explains it: GPT-2's two, of which the authors took back the first, and Llama 4 Scout's total, which includes an image "
    "encoder that is not counted here. The other differences, up to 3.7%, are within a step of figures as short as 7B.",
    "Parity: each published shape, and a tiny one a family, is built as the module of transformers without memory (meta device), and "
    "its parameters are counted, shared matrices once. It shows that the arithmetic is right, not that the shapes are the authors'.",
    "Cache in 16 bits. A window stops its growth; an encoder-decoder keeps in addition as much for every source token; an encoder "
    "keeps nothing. Lengths beyond a model's learned positions (1,024 in GPT-2, 2,048 in GPT-3, 512 in BERT) are hypothetical.",
    "FLOPs a token: a token compared with the whole context. Half of GPT-3's layers are banded, with a width that the paper does not "
    "give; they count as dense here. Bytes to train: " + ", ".join(f"{part} {size}" for part, size in TRAINING_BYTES.items())
    + " a parameter with AdamW; activations come on top.",
]


def reference_model(family: str, shape: Shape, device: str = "meta") -> torch.nn.Module:
    """The module of transformers with this shape, untrained; on ``meta`` it has sizes and no values.

    T5's class shares its output matrix with the embeddings whatever ``shape.tied`` says.

    Raises:
        ValueError: a family that is none of ``TINY``.
    """
    if family not in TINY:
        raise ValueError(f"family '{family}' is none of {', '.join(TINY)}")
    import transformers as library

    names = {
        "gpt2": "GPT2LMHeadModel", "bert": "BertModel", "t5": "T5ForConditionalGeneration", "llama4": "Llama4ForCausalLM",
    }  # fmt: skip
    model_class = getattr(library, names.get(family, f"{family.capitalize()}ForCausalLM"))
    config = model_class.config_class(**_configuration(family, shape))
    with torch.device(device):
        return model_class(config, add_pooling_layer=shape.pooler) if family == "bert" else model_class(config)


def _configuration(family: str, shape: Shape) -> dict[str, Any]:
    """The keyword arguments of the family's configuration class."""
    common = {"vocab_size": shape.vocabulary, "tie_word_embeddings": shape.tied, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if family == "gpt2":
        sizes = {"n_positions": shape.positions, "n_embd": shape.width, "n_layer": shape.layers, "n_head": shape.heads, "n_inner": shape.inner}
        return common | sizes
    if family == "t5":
        return common | {
            "d_model": shape.width, "d_kv": shape.head_dim, "d_ff": shape.inner, "num_heads": shape.heads,
            "num_layers": shape.encoder_layers, "num_decoder_layers": shape.decoder_layers,
            "relative_attention_num_buckets": shape.bias_buckets, "feed_forward_proj": "gated-gelu" if shape.gated else "relu",
        }
    common |= {
        "hidden_size": shape.width, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "intermediate_size": shape.inner,
    }
    if family == "bert":
        return common | {"max_position_embeddings": shape.positions, "type_vocab_size": shape.segments}
    common |= {"num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim}
    own: dict[str, dict[str, Any]] = {
        "llama": {"attention_bias": shape.biases, "mlp_bias": shape.biases},
        "mistral": {"sliding_window": shape.window or None},
        "mixtral": {"num_local_experts": shape.experts, "num_experts_per_tok": shape.active_experts},
        "llama4": {"num_local_experts": shape.experts, "num_experts_per_tok": shape.active_experts, "attention_chunk_size": shape.window},
    }
    return common | own[family]


def reference_parameters(family: str, shape: Shape) -> int:
    """Parameters of transformers' module; ``Module.parameters`` gives a shared matrix once."""
    return sum(parameter.numel() for parameter in reference_model(family, shape).parameters())


def parity_table() -> pd.DataFrame:
    """One row a shape, tiny and published: the computed count, transformers' count, and their relative difference."""
    cases = [(f"tiny {family}", family, shape) for family, shape in TINY.items()]
    cases += [(model.name, model.family, model.shape) for model in PUBLISHED]
    rows = []
    for name, family, shape in cases:
        computed, counted = total_parameters(shape), reference_parameters(family, shape)
        rows.append({"name": name, "family": family, "computed": computed, "transformers": counted, "difference": (computed - counted) / counted})
    return pd.DataFrame(rows)


def shape_study(
    *, cache_tokens: int = 8192, context: int = 2048, progress: Callable[[str], None] = lambda line: None
) -> StudyResult:
    """Every published shape: its counts beside the stated ones, its cache at ``cache_tokens``, its FLOPs a token at ``context``."""
    table = pd.DataFrame([_row(model, cache_tokens, context) for model in PUBLISHED])
    parity = parity_table()
    stated = pd.concat([table["relative_difference"], table["active_difference"].dropna()]).abs()
    gpt3 = table.loc[table["name"] == "GPT-3 175B", "relative_difference"].abs().item()
    progress(f"{len(table)} shapes, at most {stated.max():.2%} from the published counts, {parity['difference'].abs().max():.2g} from transformers'")
    values = {
        "published_max_difference": (stated.max(), len(stated)), "gpt3_175b_difference": (gpt3, 1),
        "parity_max_difference": (parity["difference"].abs().max(), len(parity)),
        "beyond_last_digit": (table["beyond_last_digit"].sum(), len(stated)),
    }
    parts = pd.DataFrame([{"name": model.name, **parameters(model.shape)} for model in PUBLISHED])
    return StudyResult(
        study="shape_arithmetic", remarks=REMARKS, settings={"cache_tokens": cache_tokens, "context": context},
        metrics=[Metric(name=name, value=float(value), n=n, higher_is_better=False) for name, (value, n) in values.items()],
        per_example=table[["name", "relative_difference"]].rename(columns={"name": "example_id"}),
        tables={"shapes": table, "parts": parts, "parity": parity}, plots={"cache": _plot(table)},
    )


def _row(model: Published, cache_tokens: int, context: int) -> dict[str, Any]:
    total, active, flops = total_parameters(model.shape), active_parameters(model.shape), forward_flops(model.shape, context)
    figures = [(total, model.parameters, model.unit)] + ([(active, model.active, model.active_unit)] if model.active else [])
    return {
        "name": model.name, "source": model.source, "kind": model.shape.kind, "parameters": total, "active": active, "published": model.parameters,
        "published_active": model.active or None, "relative_difference": total / model.parameters - 1,
        "active_difference": active / model.active - 1 if model.active else None,
        "beyond_last_digit": sum(abs(computed - stated) >= unit for computed, stated, unit in figures),
        "cache_bytes_a_token": kv_cache_bytes(model.shape, 1), f"cache_bytes_at_{cache_tokens}": kv_cache_bytes(model.shape, cache_tokens),
        "flops_weights": flops["weights"], f"flops_attention_at_{context}": flops["attention"],
        f"flops_at_{context}": sum(flops.values()), "training_flops_a_token": training_flops(model.shape, 1),
        "training_bytes": sum(training_bytes(model.shape).values()), "note": model.note,
    }


def _plot(table: pd.DataFrame) -> bytes:
    """Stored parameters against the cache that a token leaves; encoders have none and are left out."""
    rows = table[table["cache_bytes_a_token"] > 0]
    below = {"T5-base", "Mistral 7B", "Llama-3.1-405B"}  # their names would lie on a neighbour's

    def paint(axes: Axes) -> None:
        axes.loglog(rows["parameters"], rows["cache_bytes_a_token"] / 1024, "o", markersize=4)
        for name, x, y in zip(rows["name"], rows["parameters"], rows["cache_bytes_a_token"] / 1024, strict=True):
            axes.annotate(name, (x, y), xytext=(0, -12 if name in below else 5), textcoords="offset points", fontsize=7, ha="center")
        axes.margins(0.12)

    return draw(paint, title="Cache a token leaves, 16 bits", x="parameters", y="KiB a token", size=(6.4, 4.0))
