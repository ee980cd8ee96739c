"""Where a token stands, five ways: sinusoids and learned tables (added), rotation (RoPE), and biases of the scores (ALiBi, T5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from curriculum.transformer.config import ModelConfig, RopeScaling


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """[..., width] of sines (even columns) and cosines (odd) of geometric wavelengths (Vaswani et al., 2017, 3.5)."""
    frequency = 10_000.0 ** (-torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width)
    angle = positions.float()[..., None] * frequency
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)[..., :width]


def rope_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> tuple[Tensor, float]:
    """Radians a position of each pair of dimensions, [head_dim / 2], and the factor that YaRN puts on cos and sin."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    if scaling is None:
        return theta**-exponent, 1.0
    if scaling.kind == "linear":
        return theta**-exponent / scaling.factor, 1.0
    if scaling.kind == "ntk":  # the slowest pair is slowed by the whole factor, the fastest hardly
        return (theta * scaling.factor ** (head_dim / (head_dim - 2))) ** -exponent, 1.0
    frequency = theta**-exponent
    if scaling.kind == "yarn":
        return _yarn(frequency, head_dim, theta, scaling), 0.1 * math.log(scaling.factor) + 1.0
    turns = scaling.original_length * frequency / (2 * math.pi)  # full turns of each pair within the trained length
    smooth = (turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)
    smooth = smooth.clamp(0, 1)
    return (1 - smooth) * frequency / scaling.factor + smooth * frequency, 1.0


def _yarn(frequency: Tensor, head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    """Pairs that turn often keep their frequency, those that turn less than once are interpolated, a ramp lies between (3.2)."""

    def pair_of(turns: float) -> float:
        return head_dim * math.log(scaling.original_length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_of(scaling.beta_fast)), 0)
    high = min(math.ceil(pair_of(scaling.beta_slow)), head_dim - 1)
    ramp = ((torch.arange(head_dim // 2, dtype=torch.float32) - low) / max(high - low, 1e-3)).clamp(0, 1)
    return frequency / scaling.factor * ramp + frequency * (1 - ramp)


def rope_angles(positions: Tensor, head_dim: int, theta: float, scaling: RopeScaling | None = None) -> tuple[Tensor, Tensor]:
    """cos and sin [..., head_dim] of rotary position embedding (Su et al., 2021), halves laid side by side as Llama does."""
    frequency, factor = rope_frequencies(head_dim, theta, scaling)
    angle = positions.float()[..., None] * frequency.to(positions.device)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos() * factor, angle.sin() * factor


def rotate(x_BHTD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Each pair (i, i + D/2) of the head dimension turned by its position's angle."""
    first, second = x_BHTD.chunk(2, dim=-1)
    return torch.addcmul(x_BHTD * cos_TD, torch.cat((-second, first), dim=-1), sin_TD)


def alibi_slopes(heads: int) -> Tensor:
    """[heads] penalties a position of distance, a geometric series (Press et al., 2022); others between where heads is no power of 2."""

    def series(count: int) -> list[float]:
        return [2 ** (-8 * (number + 1) / count) for number in range(count)]

    whole = 2 ** math.floor(math.log2(heads))
    return torch.tensor(series(whole) + series(2 * whole)[0::2][: heads - whole])


def t5_buckets(distance: Tensor, buckets: int, farthest: int, *, both_ways: bool) -> Tensor:
    """The bucket of each key-minus-query distance: exact ones near by, logarithmic ones up to ``farthest`` (Raffel et al., 2020).

    Of an encoder (``both_ways``) half the buckets are for keys to the right.
    """
    base = torch.zeros_like(distance)
    if both_ways:
        buckets //= 2
        base = (distance > 0).long() * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp_min(0)
    exact = buckets // 2
    far = exact + (torch.log(distance.float().clamp_min(1) / exact) / math.log(farthest / exact) * (buckets - exact)).long()
    return base + torch.where(distance < exact, distance, far.clamp_max(buckets - 1))


class Rotary(nn.Module):
    """cos and sin of positions 0, 1, ... as a table that grows when a longer sequence comes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("table", torch.zeros(2, 0, config.head_dim), persistent=False)

    def forward(self, begin: int, end: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """cos and sin [T, head_dim] of positions ``begin`` to ``end`` - 1."""
        if self.table.shape[1] < end or self.table.device != device:
            with torch.inference_mode(False):  # the table outlives a generation, and training needs it
                places = torch.arange(max(end, 2 * self.table.shape[1]), device=device)
                angles = rope_angles(places, self.config.head_dim, self.config.rope_theta, self.config.rope_scaling)
                self.table = torch.stack(angles)
        return self.table[0, begin:end], self.table[1, begin:end]


class ScoreBias(nn.Module):
    """What ALiBi or T5 adds to the scores, [1, H, T, S], from the positions of queries and keys."""

    def __init__(self, config: ModelConfig, *, both_ways: bool) -> None:
        super().__init__()
        self.config, self.both_ways = config, both_ways
        if config.position == "t5":
            self.buckets = nn.Embedding(config.bias_buckets, config.heads)
        else:
            self.register_buffer("slopes", alibi_slopes(config.heads), persistent=False)

    def forward(self, queries_T: Tensor, keys_S: Tensor) -> Tensor:
        distance = keys_S[None, :] - queries_T[:, None]
        if self.config.position == "t5":
            bucket = t5_buckets(distance, self.config.bias_buckets, self.config.bias_distance, both_ways=self.both_ways)
            return self.buckets(bucket).permute(2, 0, 1)[None]
        return -self.slopes[None, :, None, None] * distance.abs()
