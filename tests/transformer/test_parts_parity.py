"""The parts that a whole model's parity may hide: positions, masks, norms and the router's loss against transformers' and torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.transformer.blocks import LayerNorm, RMSNorm, visible
from curriculum.transformer.config import ModelConfig, RopeScaling
from curriculum.transformer.experts import balance_loss
from curriculum.transformer.positions import ScoreBias, alibi_slopes, rope_frequencies, t5_buckets

torch.set_num_threads(1)


def library_frequencies(kind: str, head_dim: int, theta: float, length: int, seq_len: int | None = None, **given: Any) -> tuple[torch.Tensor, float]:
    """What transformers computes for a Llama configuration with this scaling."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_type": kind, "rope_theta": theta, "original_max_position_embeddings": length, **given}
    config = LlamaConfig(hidden_size=4 * head_dim, num_attention_heads=4, max_position_embeddings=length, rope_parameters=rope)
    return ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len)


@settings(deadline=None, max_examples=40)
@given(
    head_dim=st.sampled_from([8, 32, 64, 128]), theta=st.sampled_from([100.0, 10_000.0, 500_000.0]),
    length=st.sampled_from([64, 2048, 8192]), factor=st.floats(1.0, 64.0),
)
def test_rope_scalings_equal_the_librarys(head_dim: int, theta: float, length: int, factor: float) -> None:
    bands = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    cases = [
        (RopeScaling("linear", factor), library_frequencies("linear", head_dim, theta, length, factor=factor)),
        (RopeScaling("llama3", factor, length), library_frequencies("llama3", head_dim, theta, length, factor=factor, **bands)),
        (RopeScaling("yarn", factor, length), library_frequencies("yarn", head_dim, theta, length, factor=factor)),
        # the library's dynamic scaling grows with the input; at a fixed length it is NTK's with this factor
        (RopeScaling("ntk", 3 * factor - factor + 1), library_frequencies("dynamic", head_dim, theta, length, 3 * length, factor=factor)),
    ]
    for scaling, (frequency, attention) in cases:
        ours, ours_attention = rope_frequencies(head_dim, theta, scaling)
        torch.testing.assert_close(ours, frequency, rtol=1e-5, atol=0, msg=lambda m, kind=scaling.kind: f"{kind}: {m}")
        assert ours_attention == pytest.approx(attention)


def test_llama_3_1_keeps_29_pairs_blends_6_and_divides_29() -> None:
    ours, _ = rope_frequencies(128, 500_000.0, RopeScaling("llama3", 8.0, 8192))
    plain, _ = rope_frequencies(128, 500_000.0)
    kept, divided = torch.isclose(ours, plain, rtol=1e-6), torch.isclose(ours, plain / 8, rtol=1e-6)
    assert (int(kept.sum()), int((~kept & ~divided).sum()), int(divided.sum())) == (29, 6, 29), "as the note counts them"


@settings(deadline=None)
@given(
    quarter=st.integers(1, 16), beyond=st.integers(1, 1000), both_ways=st.booleans(),
    distances=st.lists(st.integers(-200_000, 200_000), min_size=1, max_size=50),
)
def test_t5_buckets_equal_the_librarys(quarter: int, beyond: int, both_ways: bool, distances: list[int]) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    buckets, distance = 4 * quarter, torch.tensor(distances)
    farthest = buckets + beyond
    theirs = T5Attention._relative_position_bucket(distance, both_ways, buckets, farthest)
    assert torch.equal(t5_buckets(distance, buckets, farthest, both_ways=both_ways), theirs)


def test_t5_buckets_over_every_distance_and_not_with_another_range() -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-3000, 3000)
    for both_ways in (True, False):
        theirs = T5Attention._relative_position_bucket(distance, both_ways, 32, 128)
        assert torch.equal(t5_buckets(distance, 32, 128, both_ways=both_ways), theirs)
        assert not torch.equal(t5_buckets(distance, 32, 127, both_ways=both_ways), theirs)


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 16, 40, 71])
def test_alibi_equals_blooms_after_the_softmax(heads: int) -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    theirs = build_alibi_tensor(torch.ones(1, 20, dtype=torch.long), heads, torch.float32)[:, None]  # [heads, 1, 1, keys]: keys' places alone
    torch.testing.assert_close(alibi_slopes(heads), theirs[:, 0, 0, 1], rtol=1e-6, atol=0)
    config = ModelConfig(vocab_size=5, layers=1, width=4 * heads, heads=heads, kv_heads=heads, hidden=8, position="alibi")
    place = torch.arange(20)
    hidden = ~visible(place, place, "full", 0, causal=True)
    ours = ScoreBias(config, both_ways=False)(place, place)[0]
    scores = torch.randn(heads, 20, 20, generator=torch.Generator().manual_seed(0))
    mine, yours = ((scores + bias).masked_fill(hidden, -torch.inf).softmax(-1) for bias in (ours, theirs[:, 0]))
    torch.testing.assert_close(mine, yours, atol=1e-6, rtol=0)


@given(queries=st.integers(1, 30), past=st.integers(0, 30), window=st.integers(1, 40))
def test_window_and_chunk_masks_equal_the_librarys(queries: int, past: int, window: int) -> None:
    from transformers.masking_utils import causal_mask_function, chunked_causal_mask_function, sliding_window_causal_mask_function

    query, key, first = torch.arange(past, past + queries), torch.arange(past + queries), torch.tensor(0)
    library = {
        "full": causal_mask_function, "window": sliding_window_causal_mask_function(window),
        "chunk": chunked_causal_mask_function(window, torch.zeros(1, dtype=torch.long)),
    }  # fmt: skip
    for kind, seen in library.items():
        assert torch.equal(visible(query, key, kind, window, causal=True), seen(first, first, query[:, None], key[None, :])), kind


@pytest.mark.parametrize("eps", [1e-12, 1e-5, 1e-2])
def test_norms_equal_torchs(eps: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, gain, shift = (torch.randn(size, generator=generator) for size in ((3, 5, 24), (24,), (24,)))
    x = 0.1 * x + 0.3  # small enough for epsilon to matter, and off centre
    for ours, theirs in ((LayerNorm(24, eps), torch.nn.LayerNorm(24, eps)), (RMSNorm(24, eps), torch.nn.RMSNorm(24, eps))):
        with torch.no_grad():
            for norm in (ours, theirs):
                norm.weight.copy_(gain)
                if getattr(norm, "bias", None) is not None:
                    norm.bias.copy_(shift)
            torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)
            theirs.eps = eps + 1e-3
            assert float((ours(x) - theirs(x)).abs().max()) > 1e-4


@given(tokens=st.integers(1, 30), experts=st.integers(2, 9), kept=st.integers(1, 2), layers=st.integers(1, 3), seed=st.integers(0, 99))
def test_the_balance_loss_equals_mixtrals(tokens: int, experts: int, kept: int, layers: int, seed: int) -> None:
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    logits = torch.randn(layers, tokens, experts, generator=torch.Generator().manual_seed(seed))
    theirs = load_balancing_loss_func(tuple(logits), experts, kept)
    torch.testing.assert_close(balance_loss(logits.flatten(0, 1), kept), theirs, rtol=1e-5, atol=1e-6)
