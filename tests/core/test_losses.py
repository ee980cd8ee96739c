from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.losses import chunked_cross_entropy, token_losses

torch.set_num_threads(1)


@settings(max_examples=40, deadline=None)
@given(positions=st.integers(1, 40), chunk=st.integers(1, 50), vocabulary=st.integers(2, 97), seed=st.integers(0, 1000))
def test_loss_and_gradients_equal_torch_s(positions, chunk, vocabulary, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(positions, 12, generator=generator, requires_grad=True)
    weight = torch.randn(vocabulary, 12, generator=generator, requires_grad=True)
    targets = torch.randint(vocabulary, (positions,), generator=generator)
    targets[1::3] = -100
    expected = F.cross_entropy(hidden @ weight.T, targets)
    wanted = torch.autograd.grad(expected, (hidden, weight))
    found = chunked_cross_entropy(hidden, weight, targets, chunk=chunk)
    # scaled, so that the incoming gradient is not one
    gradients = torch.autograd.grad(3 * found, (hidden, weight))
    assert torch.allclose(found, expected, atol=1e-5)
    for ours, theirs in zip(gradients, wanted, strict=True):
        assert torch.allclose(ours, 3 * theirs, atol=1e-5)


def test_a_frozen_head_gets_no_gradient_and_extreme_logits_stay_finite():
    hidden = (1e4 * torch.randn(9, 8)).requires_grad_()
    weight, targets = torch.randn(20, 8), torch.arange(9)
    loss = chunked_cross_entropy(hidden, weight, targets, chunk=4)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(hidden.grad).all()
    assert torch.allclose(loss, F.cross_entropy(hidden @ weight.T, targets), rtol=1e-5)


def test_token_losses_are_those_of_each_position():
    hidden, weight, targets = torch.randn(11, 8), torch.randn(20, 8), torch.randint(20, (11,))
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="none")
    assert torch.allclose(token_losses(hidden, weight, targets, chunk=3), expected, atol=1e-5)


def test_autocast_keeps_the_loss_in_float32():
    hidden, weight, targets = torch.randn(16, 32, requires_grad=True), torch.randn(50, 32), torch.randint(50, (16,))
    with torch.autocast("cpu", torch.bfloat16):
        loss = chunked_cross_entropy(hidden, weight, targets, chunk=5)
    loss.backward()
    assert loss.dtype == torch.float32 and hidden.grad.dtype == torch.float32
    assert torch.allclose(loss, F.cross_entropy(hidden @ weight.T, targets), rtol=0.02)
