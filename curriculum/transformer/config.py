"""The shape of a Transformer as one frozen value: every family is a choice of these fields, none has a block of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from curriculum.transformer.shapes import Shape, forward_flops, total_parameters

GATED = ("swiglu", "geglu", "geglu_tanh")
AttentionKind = Literal["full", "window", "chunk", "nope"]


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are changed to reach past the trained length.

    ``linear``: position interpolation (Chen et al., 2023). ``ntk``: a larger base (bloc97, 2023). ``yarn``: Peng et al., 2023.
    ``llama3``: Llama 3.1's, which leaves short wavelengths alone. ``factor``: new length over ``original_length`` (tokens).
    """

    kind: Literal["linear", "ntk", "yarn", "llama3"]
    factor: float
    original_length: int = 0
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"the scaling factor is the new length over the trained one, at least 1, not {self.factor}")
        if self.kind in {"yarn", "llama3"} and self.original_length < 1:
            raise ValueError(f"rope scaling '{self.kind}' needs original_length, the trained length in tokens")


@dataclass(frozen=True)
class ModelConfig:
    """A Transformer's shape. ``kv_heads`` heads of keys and values are shared by ``heads`` heads of queries.

    ``stack``: which stacks there are. ``layers`` counts each stack's blocks; the encoder of ``encoder-decoder`` may have its own count.
    ``attention``: what a layer's queries see, cycled over the layers: everything before (``full``), the last ``window`` positions,
    the positions of their own ``window``-long ``chunk``, or everything but without rotary positions (``nope``, Llama 4).
    ``qk_norm``: RMSNorm of each head's queries and keys with gains before the rotation (Qwen 3), or without after it (``l2``, Llama 4).
    ``score_scale``: factor of the scores (0: head_dim ** -0.5). ``temperature``: (floor, scale) of Llama 4's position-dependent
    query scale in ``nope`` layers. ``biases``: on all linear layers of the blocks; ``qkv_biases``: on queries, keys, values alone.
    ``experts`` (0: dense): expert feed-forward blocks of width ``expert_hidden`` in every ``moe_every``-th layer; a token takes
    ``experts_per_token`` of them and all ``shared_experts``. ``router``: probabilities weigh the experts' outputs (``softmax``, the
    kept ones summing to 1), or sigmoids weigh their inputs (Llama 4).

    Raises:
        ValueError: sizes that contradict each other; the message names them.
    """

    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    hidden: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    stack: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"
    encoder_layers: int = 0
    head_dim: int = 0
    norm: Literal["rms", "layer"] = "rms"
    norm_place: Literal["pre", "post"] = "pre"
    activation: Literal["swiglu", "geglu", "geglu_tanh", "gelu", "gelu_tanh", "relu"] = "swiglu"
    position: Literal["rope", "learned", "sinusoidal", "alibi", "t5", "none"] = "rope"
    max_positions: int = 0
    rope_scaling: RopeScaling | None = None
    bias_buckets: int = 32
    bias_distance: int = 128
    attention: tuple[AttentionKind, ...] = ("full",)
    window: int = 0
    qk_norm: Literal["", "rms", "l2"] = ""
    score_scale: float = 0.0
    temperature: tuple[float, float] | None = None
    biases: bool = False
    qkv_biases: bool = False
    segments: int = 0
    embedding_norm: bool = False
    embedding_scale: float = 1.0
    tied: bool = True
    output_scale: float = 1.0
    head_transform: bool = False
    experts: int = 0
    experts_per_token: int = 2
    shared_experts: int = 0
    expert_hidden: int = 0
    moe_every: int = 1
    router: Literal["softmax", "sigmoid"] = "softmax"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.head_dim:
            if self.width % self.heads:
                raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}; give head_dim")
            object.__setattr__(self, "head_dim", self.width // self.heads)
        object.__setattr__(self, "attention", tuple(self.attention))
        if isinstance(self.rope_scaling, dict):
            object.__setattr__(self, "rope_scaling", RopeScaling(**self.rope_scaling))
        if self.stack == "encoder-decoder" and not self.encoder_layers:
            object.__setattr__(self, "encoder_layers", self.layers)
        if self.experts and not self.expert_hidden:
            object.__setattr__(self, "expert_hidden", self.hidden)
        for wrong, message in self._contradictions():
            if wrong:
                raise ValueError(message)

    def _contradictions(self) -> list[tuple[bool, str]]:
        limited = bool({"window", "chunk"} & set(self.attention))
        return [
            (self.heads % self.kv_heads != 0, f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}"),
            (self.position == "rope" and self.head_dim % 2 != 0, f"rotary positions need an even head_dim, not {self.head_dim}"),
            (self.position == "learned" and self.max_positions < 1, "learned positions need max_positions"),
            (limited and self.window < 1, f"attention {self.attention} needs window, its length in tokens"),
            (self.experts > 0 and not 1 <= self.experts_per_token <= self.experts,
             f"experts_per_token {self.experts_per_token} must lie between 1 and experts {self.experts}"),
            (not 0 <= self.dropout < 1, f"dropout {self.dropout} is not a share below 1"),
        ]  # fmt: skip

    @property
    def gated(self) -> bool:
        """Whether a feed-forward block has three matrices rather than two."""
        return self.activation in GATED

    def attention_kind(self, layer: int) -> AttentionKind:
        """What the queries of ``layer`` see."""
        return self.attention[layer % len(self.attention)]

    def routed(self, layer: int) -> bool:
        """Whether ``layer`` has experts in place of one feed-forward block."""
        return self.experts > 0 and (layer + 1) % self.moe_every == 0

    def shape(self) -> Shape:
        """The same configuration for the arithmetic of :mod:`curriculum.transformer.shapes`.

        Raises:
            ValueError: it has parts that the arithmetic does not count.
        """
        norm_moved = self.embedding_norm != (self.norm_place == "post")
        if self.qkv_biases or self.qk_norm == "rms" or self.head_transform or norm_moved or (self.experts and self.moe_every > 1):
            raise ValueError("dense layers between routed ones, biases on queries alone, norms of heads and BERT's head are not counted here")
        decoder = 0 if self.stack == "encoder" else self.layers
        limited = sum(self.attention_kind(layer) in {"window", "chunk"} for layer in range(decoder))
        return Shape(
            vocabulary=self.vocab_size, width=self.width, heads=self.heads, inner=self.expert_hidden if self.experts else self.hidden,
            kv_heads=self.kv_heads, head_dim=self.head_dim, decoder_layers=decoder,
            encoder_layers=self.layers if self.stack == "encoder" else self.encoder_layers, gated=self.gated, tied=self.tied, biases=self.biases,
            positions=self.max_positions if self.position == "learned" else 0, segments=self.segments,
            bias_buckets=self.bias_buckets if self.position == "t5" else 0, norm_vectors=2 if self.norm == "layer" else 1,
            experts=self.experts, active_experts=self.experts_per_token if self.experts else 0, shared_experts=self.shared_experts,
            window=self.window if limited else 0, window_layers=limited,
        )  # fmt: skip

    def parameters(self) -> int:
        """Number of weights."""
        return total_parameters(self.shape())

    def train_flops_per_token(self, length: int) -> float:
        """FLOPs of forward and backward a token, thrice the forward pass (Kaplan et al., 2020); a causal query sees half the keys."""
        spent = forward_flops(self.shape(), length)
        return 3 * (spent["weights"] + spent["attention"] / 2)
