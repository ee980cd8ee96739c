"""Shape arithmetic: the same numbers as transformers' modules, caches and torch's FLOP counter, and as the papers'."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, DynamicCache, EncoderDecoderCache, GPT2Config, Llama4TextConfig, LlamaConfig, MistralConfig, MixtralConfig

from curriculum.transformer.shape_study import REMARKS, TINY, reference_model, reference_parameters, shape_study
from curriculum.transformer.shapes import (
    PUBLISHED,
    Shape,
    active_parameters,
    forward_flops,
    kv_cache_bytes,
    parameters,
    total_parameters,
    training_bytes,
    training_flops,
)

torch.set_num_threads(1)
BY_NAME = {model.name: model for model in PUBLISHED}
VARIANTS = {
    "tied Llama with biases": ("llama", replace(TINY["llama"], tied=True, biases=True)),
    "Llama, one key-value head": ("llama", replace(TINY["llama"], kv_heads=1)),
    "gated T5, stacks of two depths": ("t5", replace(TINY["t5"], gated=True, encoder_layers=1)),
    "BERT without pooler": ("bert", replace(TINY["bert"], pooler=False)),
    "untied GPT-2": ("gpt2", replace(TINY["gpt2"], tied=False)),
}


@pytest.mark.parametrize("family", TINY)
def test_tiny_shapes_have_transformers_count(family: str) -> None:
    assert total_parameters(TINY[family]) == reference_parameters(family, TINY[family])


@pytest.mark.parametrize("name", BY_NAME)
def test_published_shapes_have_transformers_count(name: str) -> None:
    assert total_parameters(BY_NAME[name].shape) == reference_parameters(BY_NAME[name].family, BY_NAME[name].shape)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_have_transformers_count(name: str) -> None:
    family, shape = VARIANTS[name]
    assert total_parameters(shape) == reference_parameters(family, shape)


@pytest.mark.parametrize(
    ("name", "config"),
    [("GPT-2 small", GPT2Config), ("BERT-base", BertConfig), ("Llama-2-7B", LlamaConfig), ("Mistral 7B", MistralConfig), ("Mixtral 8x7B", MixtralConfig), ("Llama 4 Scout", Llama4TextConfig)],
)
def test_published_shapes_are_the_defaults_of_transformers(name: str, config: type) -> None:
    """The one test here of the sizes themselves: the library's defaults were written down by others."""
    built = type(reference_model(BY_NAME[name].family, BY_NAME[name].shape))
    with torch.device("meta"):
        model = built(config())
    assert sum(p.numel() for p in model.parameters()) == total_parameters(BY_NAME[name].shape)
    window = getattr(config(), "sliding_window", None) or getattr(config(), "attention_chunk_size", None) or 0
    assert window == BY_NAME[name].shape.window
    chunked = [kind for kind in getattr(config(), "layer_types", None) or () if kind == "chunked_attention"]
    assert not chunked or len(chunked) == BY_NAME[name].shape.window_layers


@pytest.mark.parametrize("family", ["mixtral", "llama4"])
def test_active_parameters_leave_out_the_experts_that_are_not_taken(family: str) -> None:
    shape = TINY[family]
    weights = dict(reference_model(family, shape).named_parameters())
    routed = sum(p.numel() for name, p in weights.items() if ".experts." in name)
    assert routed and active_parameters(shape) == sum(p.numel() for p in weights.values()) - routed + routed * shape.active_experts // shape.experts


def test_the_counts_that_the_notes_derive() -> None:
    gpt3, mixtral = BY_NAME["GPT-3 175B"].shape, BY_NAME["Mixtral 8x7B"].shape
    assert total_parameters(gpt3) == 174_604_259_328 and kv_cache_bytes(gpt3, 1, "float16") == 9 * 2**19
    assert total_parameters(BY_NAME["BERT-base"].shape) == 109_482_240 and total_parameters(BY_NAME["T5-base"].shape) == 222_903_552
    assert total_parameters(mixtral) == 46_702_792_704 and active_parameters(mixtral) == 12_879_925_248
    assert total_parameters(BY_NAME["Llama-3.1-405B"].shape) == 405_853_388_800
    assert kv_cache_bytes(BY_NAME["Mistral 7B"].shape, 32_768) == kv_cache_bytes(BY_NAME["Mistral 7B"].shape, 4_096) == 2**29
    assert kv_cache_bytes(BY_NAME["Llama 4 Scout"].shape, 10**7) == (12 * 10**7 + 36 * 8_192) * 4_096


def test_training_costs_agree_with_the_papers() -> None:
    assert training_flops(BY_NAME["GPT-3 175B"].shape, 300 * 10**9) == pytest.approx(3.14e23, rel=2e-3)  # arXiv 2005.14165, table D.1
    assert training_flops(BY_NAME["T5-11B"].shape, 10**12) == pytest.approx(3.30e22, rel=3e-2)  # the same; it counts 11,000 million
    assert training_flops(BY_NAME["Llama-3.1-405B"].shape, 156 * 10**11) == pytest.approx(3.8e25, rel=2e-3)  # arXiv 2407.21783
    shape = TINY["mixtral"]
    assert sum(training_bytes(shape).values()) == 16 * total_parameters(shape) and training_bytes(shape)["gradients, 16 bits"] == 2 * total_parameters(shape)


def eager(family: str, shape: Shape) -> torch.nn.Module:
    """A real model whose attention is plain products, which the FLOP counter sees, in float32."""
    torch.manual_seed(0)
    model = reference_model(family, shape, "cpu").eval()
    model.set_attn_implementation("eager")
    if shape.experts:
        model.set_experts_implementation("eager")
    return model


def cached(cache: DynamicCache) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


@pytest.mark.parametrize(
    ("family", "shape"),
    [("llama", TINY["llama"]), ("llama", replace(TINY["llama"], kv_heads=0)), ("llama", replace(TINY["llama"], kv_heads=1)), ("gpt2", TINY["gpt2"]), ("mixtral", TINY["mixtral"])],
    ids=["grouped", "all heads", "one head", "GPT-2", "Mixtral"],
)
@torch.inference_mode()
def test_cache_is_that_of_a_real_model(family: str, shape: Shape) -> None:
    model = eager(family, shape)
    for length in (1, 29):
        cache = DynamicCache(config=model.config)
        model(torch.zeros(1, length, dtype=torch.long), past_key_values=cache)
        assert cached(cache) == kv_cache_bytes(shape, length, "float32")


@torch.inference_mode()
def test_a_window_stops_the_growth_of_the_cache() -> None:
    """Between steps the library keeps window - 1 positions: the next token is the last of its own window."""
    shape, model = TINY["mistral"], eager("mistral", TINY["mistral"])
    cache = DynamicCache(config=model.config)
    for step in range(1, 40):
        model(torch.zeros(1, 1, dtype=torch.long), past_key_values=cache)
        assert cached(cache) == kv_cache_bytes(shape, min(step, shape.window - 1), "float32")
    assert kv_cache_bytes(shape, 39) == kv_cache_bytes(shape, shape.window) < kv_cache_bytes(replace(shape, window=0, window_layers=0), 39)


@torch.inference_mode()
def test_an_encoder_decoder_keeps_the_source_too() -> None:
    shape, model = TINY["t5"], eager("t5", TINY["t5"])
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    model(torch.zeros(1, 11, dtype=torch.long), decoder_input_ids=torch.zeros(1, 7, dtype=torch.long), past_key_values=cache)
    assert cached(cache.self_attention_cache) == kv_cache_bytes(shape, 7, "float32")
    assert cached(cache.self_attention_cache) + cached(cache.cross_attention_cache) == kv_cache_bytes(shape, 7, "float32", source=11)
    assert kv_cache_bytes(TINY["bert"], 11) == 0


@pytest.mark.parametrize(
    ("family", "shape"),
    [("gpt2", TINY["gpt2"]), ("bert", replace(TINY["bert"], pooler=False)), ("t5", TINY["t5"]), ("llama", TINY["llama"]), ("mistral", TINY["mistral"]), ("mixtral", TINY["mixtral"])],
    ids=["GPT-2", "BERT", "T5", "Llama", "Mistral", "Mixtral"],
)
@torch.inference_mode()
def test_flops_are_those_of_torchs_counter(family: str, shape: Shape) -> None:
    """Exact: the counter sees the products of matrices, which are the parts that the formula counts, and nothing else."""
    model, length = eager(family, shape), 16  # within Mistral's window: eager attention computes the masked pairs as well
    tokens = torch.randint(97, (1, length))
    more = {"decoder_input_ids": tokens} if family == "t5" else {}
    with FlopCounterMode(display=False) as counter:
        model(tokens, use_cache=False, **more)
    assert counter.get_total_flops() == sum(forward_flops(shape, length).values()) * length * shape.stacks


def test_flops_of_a_window_stop_growing_and_weights_do_not_see_the_context() -> None:
    shape = TINY["mistral"]
    assert forward_flops(shape, 16) == forward_flops(shape, 1000)
    assert forward_flops(TINY["llama"], 20)["attention"] == 2 * forward_flops(TINY["llama"], 10)["attention"]


@settings(max_examples=200, deadline=None)
@given(
    groups=st.integers(1, 4), kv_heads=st.integers(1, 4), head_dim=st.integers(1, 16), width=st.integers(1, 64), inner=st.integers(1, 64),
    layers=st.integers(1, 4), gated=st.booleans(), biases=st.booleans(), tied=st.booleans(), norm_vectors=st.sampled_from([1, 2]), length=st.integers(1, 50),
)  # fmt: skip
def test_sharing_and_sparsity_cost_what_they_should(
    groups: int, kv_heads: int, head_dim: int, width: int, inner: int, layers: int, gated: bool, biases: bool, tied: bool, norm_vectors: int, length: int
) -> None:
    shape = Shape(50, width, groups * kv_heads, inner, layers, kv_heads=kv_heads, head_dim=head_dim, gated=gated, biases=biases, tied=tied, norm_vectors=norm_vectors)
    full = replace(shape, kv_heads=0)
    assert full == replace(shape, kv_heads=shape.heads), "without sharing, the two ways to say so are one"
    assert kv_cache_bytes(full, length) == groups * kv_cache_bytes(shape, length)
    saved = 2 * layers * (full.key_width - shape.key_width) * (width + biases)
    assert total_parameters(full) - total_parameters(shape) == saved
    assert active_parameters(shape) == total_parameters(shape) and parameters(shape) == parameters(shape, active=True)
    assert forward_flops(full, length)["attention"] == forward_flops(shape, length)["attention"]
    sparse = replace(shape, biases=False, experts=4, active_experts=2)
    idle = 2 * layers * (3 if gated else 2) * width * inner
    assert total_parameters(sparse) - active_parameters(sparse) == idle
    assert active_parameters(replace(sparse, active_experts=4)) == total_parameters(sparse)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 4}, "heads 6 is not a multiple of kv_heads 4"),
        ({"head_dim": 0, "width": 25}, "width 25 is not a multiple of heads 6"),
        ({"decoder_layers": 0}, "layers of one stack must be at least 1"),
        ({"inner": -1}, "no size negative"),
        ({"positions": -1}, "no size negative"),
        ({"norm_vectors": 3}, "norm_vectors is 1"),
        ({"experts": 4, "active_experts": 5}, "active_experts 5 must lie between 1 and experts 4"),
        ({"active_experts": 1}, "need experts"),
        ({"experts": 4, "active_experts": 1, "biases": True}, "experts with biases"),
        ({"window_layers": 1}, "does not fit a decoder"),
        ({"window": 8, "window_layers": 9}, "window 8 in 9 layers does not fit a decoder of 3 layers"),
    ],
)
def test_shapes_that_cannot_be_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY["llama"], **change)


def test_bad_lengths_and_names_are_named() -> None:
    shape = TINY["llama"]
    for call, message in (
        (lambda: kv_cache_bytes(shape, 8, "int5"), "dtype 'int5' is none of float32"), (lambda: kv_cache_bytes(shape, -1), "must not be negative"),
        (lambda: kv_cache_bytes(shape, 8, source=3), "only an encoder-decoder has a source"), (lambda: forward_flops(shape, 0), "at least 1, not 0"),
        (lambda: reference_model("gpt5", shape), "family 'gpt5' is none of gpt2"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_study_and_its_asset(resources: Callable[..., dict[str, Any]]) -> None:
    from assets.foundations import shape_arithmetic
    from resources.artifact_store import read_value
    from tests.lineage import claims_on

    checks = claims_on("shape_arithmetic")
    made = resources()
    done = dg.materialize([shape_arithmetic, *checks], resources=made, instance=dg.DagsterInstance.ephemeral())
    passed = {e.check_name for e in done.get_asset_check_evaluations() if e.passed}
    assert done.success and passed == {"claim_shape_arithmetic_gpt3_175b_difference", "claim_shape_arithmetic_parity_max_difference"}
    store = made["artifacts"].store()
    result = read_value(store.manifest("shape_arithmetic"), store.path(store.manifest("shape_arithmetic")))
    assert all(math.isfinite(m.value) for m in result.metrics) and result.value("parity_max_difference") == 0
    assert result.value("gpt3_175b_difference") < 0.01
    table = result.tables["shapes"].set_index("name")
    assert list(result.per_example["example_id"]) == list(table.index) == list(BY_NAME)
    off = table.loc[table["beyond_last_digit"] > 0]
    assert list(off.index) == ["GPT-2 small", "GPT-2 XL", "Llama 4 Scout"] and result.value("beyond_last_digit") == 3, "as the remarks say"
    assert round(100 * table.drop(index=off.index)["relative_difference"].abs().max(), 1) == 3.7 and "up to 3.7%" in " ".join(REMARKS)
    assert result.value("published_max_difference") == pytest.approx(total_parameters(BY_NAME["GPT-2 small"].shape) / 117e6 - 1)
    assert (result.tables["parts"].set_index("name").sum(axis=1) == table["parameters"]).all()
    assert result.plots["cache"][:4] == b"\x89PNG" and len(result.plots["cache"]) < 50_000


def test_a_count_that_is_wrong_by_one_norm_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from curriculum.transformer import shape_study as subject

    monkeypatch.setattr(subject, "total_parameters", lambda shape: total_parameters(shape) + shape.width)
    assert 0 < shape_study().value("parity_max_difference") < 0.01
