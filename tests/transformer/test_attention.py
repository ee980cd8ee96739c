"""Attention: the three forms agree, masks hold, and memory is what it should be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.transformer.attention import causal_mask, fused_attention, naive_attention, tiled_attention
from curriculum.transformer.attention_study import AllocatedBytes, attention_study, exponent, parity_cases, parity_errors
from curriculum.transformer.settings import AttentionStudySettings

torch.set_num_threads(1)


@pytest.mark.parametrize("name", sorted(parity_cases(0)))
def test_forward_and_gradients_equal_torchs(name: str) -> None:
    assert max(parity_errors(parity_cases(1)[name]).values()) <= 1e-5


@settings(max_examples=25, deadline=None)
@given(
    queries=st.integers(1, 40), extra=st.integers(0, 20), groups=st.sampled_from([1, 2, 4]), tile=st.integers(1, 24),
    causal=st.booleans(), seed=st.integers(0, 5),
)  # fmt: skip
def test_tiles_of_any_size_give_the_same_output(queries: int, extra: int, groups: int, tile: int, causal: bool, seed: int) -> None:
    torch.manual_seed(seed)
    keys = queries + extra
    q, k, v = torch.randn(1, 4, queries, 8), torch.randn(1, groups, keys, 8), torch.randn(1, groups, keys, 8)
    mask = causal_mask(queries, keys) if causal else None
    torch.testing.assert_close(tiled_attention(q, k, v, causal=causal, tile=tile), fused_attention(q, k, v, mask), atol=1e-5, rtol=0)


def test_a_query_that_sees_nothing_gets_zeros() -> None:
    q, k, v = (torch.randn(1, 1, 3, 4) for _ in range(3))
    mask = torch.tensor([[True, True, True], [False, False, False], [True, False, False]])
    for out in (naive_attention(q, k, v, mask), tiled_attention(q, k, v, mask, tile=2)):
        assert out[0, 0, 1].abs().max() == 0 and torch.isfinite(out).all()


def test_the_counter_sees_live_tensors_only() -> None:
    with AllocatedBytes() as memory:
        for _ in range(5):
            torch.zeros(1000, 1000)
        kept = torch.ones(500)
    assert memory.peak == 4_000_000 and memory.live == kept.nbytes


def test_the_exponent_of_a_power_is_its_power() -> None:
    lengths = torch.tensor([64.0, 128.0, 256.0]).numpy()
    assert exponent(lengths, 3 * lengths**2) == pytest.approx(2.0)


def test_naive_memory_grows_with_the_square_and_tiled_memory_does_not() -> None:
    small = AttentionStudySettings(lengths=(128, 256, 512), heads=1, head_dim=8, tile=32, repeats=1)
    result = attention_study(small, seed=0, progress=lambda _: None)
    assert result.value("memory_exponent__naive") > 1.7
    assert result.value("memory_exponent__tiled") < 1.3
    assert result.value("parity_max_abs_error") <= 1e-5 and result.value("gradient_max_abs_error") <= 1e-5
    assert result.plots["memory"][:4] == b"\x89PNG" and len(result.plots["memory"]) < 50_000
