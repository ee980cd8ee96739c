"""Cross-entropy over a large vocabulary without the logits of a whole batch: a chunk of positions at a time.

At 49,152 entries the float32 logits of 512 positions are 100 MB, and the usual loss holds three such tensors. Here the
gradient of the hidden states is computed while a chunk's logits exist, so one [chunk, vocabulary] tensor is all there is.
"""

from __future__ import annotations

from typing import Any

import torch

IGNORED = -100


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, chunk: int) -> torch.Tensor:
        counted = int((targets != IGNORED).sum())
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            losses, probabilities = _chunk(hidden[part], weight, targets[part])
            total += losses.sum()
            if grad_hidden is None and grad_weight is None:
                continue
            gradient = _minus_one_hot(probabilities, targets[part]).div_(max(counted, 1)).to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(gradient, weight, out=grad_hidden[part])
            if grad_weight is not None:
                grad_weight.addmm_(gradient.T, hidden[part])
            del probabilities, gradient  # or two chunks would be alive while the next one's logits are made
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total / counted

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * grad.to(grad_hidden.dtype),
            None if grad_weight is None else grad_weight * grad.to(grad_weight.dtype),
            None,
            None,
        )


def _chunk(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses [chunk] (0 where ignored) and probabilities [chunk, vocabulary], in float32 and in one buffer."""
    logits = (hidden @ weight.T).float()
    logits -= logits.amax(1, keepdim=True)
    kept = targets != IGNORED
    wanted = logits.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    probabilities = logits.exp_()
    total = probabilities.sum(1, keepdim=True)
    losses = torch.where(kept, total[:, 0].log() - wanted, 0.0)
    return losses, probabilities.div_(total)


def _minus_one_hot(probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    kept = targets != IGNORED
    probabilities.scatter_add_(1, targets.clamp(min=0)[:, None], -torch.ones_like(probabilities[:, :1]))
    return probabilities.mul_(kept[:, None])


def chunked_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, chunk: int = 128) -> torch.Tensor:
    """Mean cross-entropy of ``softmax(hidden @ weight.T)`` at ``targets``: a scalar, NaN where no target counts.

    Args:
        hidden: [positions, width].
        weight: [vocabulary, width]; its gradient is computed only where it is wanted.
        targets: int64 [positions]; -100 is ignored.
        chunk: positions whose logits exist at one time.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    return _ChunkedCrossEntropy.apply(hidden, weight, targets, chunk)


@torch.no_grad()
def token_losses(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, chunk: int = 128) -> torch.Tensor:
    """Cross-entropy of every position, in nats: float32 [positions], 0 where the target is ignored."""
    parts = [_chunk(hidden[i : i + chunk].to(weight.dtype), weight, targets[i : i + chunk])[0] for i in range(0, len(hidden), chunk)]
    return torch.cat(parts)
