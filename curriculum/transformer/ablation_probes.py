"""What the ablated parts must do whatever they learn: norms, rotary positions, dropout and the embedding, against their definitions.

``PROBES`` names each by its metric: a function of a configuration and a seed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curriculum.transformer.attention import fused_attention
from curriculum.transformer.blocks import make_norm
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.model import Transformer
from curriculum.transformer.positions import rope_angles, rotate


def norm_error(config: ModelConfig, seed: int) -> float:
    """Largest difference to torch's LayerNorm and RMSNorm in outputs and in gradients of inputs, gains and shifts."""
    return max(_norm_error(config.width, kind, seed) for kind in ("layer", "rms"))


def _norm_error(width: int, kind: str, seed: int, eps: float = 1e-5) -> float:
    generator = torch.Generator().manual_seed(seed)
    ours = make_norm(ModelConfig(vocab_size=2, layers=1, width=width, heads=1, kv_heads=1, hidden=2, norm=kind, norm_eps=eps))
    theirs: nn.Module = (nn.LayerNorm if kind == "layer" else nn.RMSNorm)(width, eps=eps)
    with torch.no_grad():
        for name, value in ours.named_parameters():
            value.copy_(torch.randn(width, generator=generator))
            theirs.get_parameter(name).copy_(value)
    source = 0.5 * torch.randn(4, 7, width, generator=generator) + 0.3  # off centre
    upstream = torch.randn(4, 7, width, generator=generator)
    mine, yours = (_outcome(norm, source, upstream) for norm in (ours, theirs))
    return max(float((a - b).abs().max()) for a, b in zip(mine, yours, strict=True))


def _outcome(norm: nn.Module, source: Tensor, upstream: Tensor) -> list[Tensor]:
    x = source.clone().requires_grad_()
    y = norm(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *norm.parameters()], upstream)]


def rope_shift_error(config: ModelConfig, seed: int, shifts: tuple[int, ...] = (1, 7, 64, 256)) -> float:
    """Largest change of the scores q k / sqrt(D) of rotated queries and keys when all their positions move together."""
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, config.heads, 32, config.head_dim, generator=generator)
    scores = []
    for shift in (0, *shifts):
        cos, sin = rope_angles(torch.arange(32) + shift, config.head_dim, config.rope_theta)
        scores.append(rotate(q, cos, sin) @ rotate(k, cos, sin).transpose(-2, -1) * config.head_dim**-0.5)
    return max(float((moved - scores[0]).abs().max()) for moved in scores[1:])


def lookup_error(config: ModelConfig, seed: int) -> float:
    """Largest difference between looking rows of the model's table up and multiplying it by one-hot vectors: values, and gradients of the table."""
    torch.manual_seed(seed)
    table = Transformer(config).embedding
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(min(50, config.vocab_size), (3, 40), generator=generator)  # ids that come often, and many that never do
    upstream = torch.randn(3, 40, config.width, generator=generator)
    looked_up, product = table(ids), F.one_hot(ids, config.vocab_size).float() @ table.weight
    gradients = [torch.autograd.grad(x, table.weight, upstream)[0] for x in (looked_up, product)]
    return max(float((a - b).detach().abs().max()) for a, b in ((looked_up, product), gradients))


def dropout_eval_change(config: ModelConfig, seed: int, share: float = 0.2) -> float:
    """Largest change of the logits in evaluation mode that a model's dropout makes: 0. NaN where it makes none in training either."""
    ids = torch.randint(config.vocab_size, (2, 16), generator=torch.Generator().manual_seed(seed))
    models = []
    for dropout in (0.0, share):
        torch.manual_seed(seed)
        models.append(Transformer(ModelConfig(**{**_fields(config), "dropout": dropout})))
    with torch.no_grad():
        trained = float((models[1].train()(ids) - models[0].train()(ids)).abs().max())
        change = float((models[1].eval()(ids) - models[0].eval()(ids)).abs().max())
    return change if trained > 0 else float("nan")


def _fields(config: ModelConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def dropout_expectation(config: ModelConfig, seed: int, share: float = 0.1, masks: int = 600) -> float:
    """Largest distance, in standard errors, of a mean over masks from the value without dropout: activations, and attention's output.

    Attention's output is linear in its weights, so dropout on them keeps its mean: variance p / (1 - p) * sum of (weight * value)^2.
    """
    torch.manual_seed(seed)
    x, (q, k, v) = torch.randn(32, config.width), torch.randn(3, 1, config.heads, 12, config.head_dim)
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    cases = [
        (lambda: F.dropout(x, share), x, x.abs()),
        (lambda: fused_attention(q, k, v, None, causal=False, dropout=share), weights @ v, (weights.square() @ v.square()).sqrt()),
    ]
    worst = 0.0
    for draw, expected, scale in cases:
        mean = sum(draw() for _ in range(masks)) / masks
        error = scale * (share / (1 - share) / masks) ** 0.5
        worst = max(worst, float(((mean - expected) / error).abs().max()))
    return worst


PROBES = {
    "norm_max_error": norm_error, "rope_shift_error": rope_shift_error, "lookup_max_error": lookup_error, "dropout_eval_change": dropout_eval_change,
    "dropout_expectation_z": dropout_expectation,
}  # fmt: skip
