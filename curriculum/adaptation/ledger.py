"""The memory ledger of a QLoRA step: what each part takes, by arithmetic from the shapes alone, before anything is loaded.

The activations are those that autograd keeps for a Llama-family layer whose base weights are frozen: nothing is kept for
the frozen products themselves, one input for the adapters that share it, and the operands of every nonlinearity. A test
holds the sum against the tensors that autograd really saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curriculum.adaptation.settings import AdapterSettings

NF4_BLOCK, SCALE_BLOCK = 64, 256
_TABLE_BYTES = 4 * 16 + 4  # the 16 levels and the offset that each matrix carries
FLOAT32 = 4
_PAGED_FROM = 100_000  # bitsandbytes pages only the moments of tensors this large


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a Llama-family model. ``tied``: input and output embeddings are one matrix."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool

    @classmethod
    def of(cls, config: Any) -> ModelShape:
        """From a transformers configuration."""
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            config.vocab_size, config.hidden_size, config.intermediate_size, config.num_hidden_layers,
            config.num_attention_heads, config.num_key_value_heads, head_dim, bool(config.tie_word_embeddings),
        )

    def matrices(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one block: name -> (inputs, outputs)."""
        h, q, kv, i = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim, self.intermediate
        return {
            "q_proj": (h, q), "k_proj": (h, kv), "v_proj": (h, kv), "o_proj": (q, h),
            "gate_proj": (h, i), "up_proj": (h, i), "down_proj": (i, h),
        }


LLAMA3_8B = ModelShape(128_256, 4096, 14_336, 32, 32, 8, 128, tied=False)


@dataclass(frozen=True)
class LedgerRow:
    """One part of the peak. ``how`` is the arithmetic in words."""

    part: str
    bytes: int
    how: str


def predict(
    shape: ModelShape, settings: AdapterSettings, *, value_bytes: int = FLOAT32, paged: bool = False
) -> list[LedgerRow]:
    """The rows whose sum is the peak of a training step, in bytes.

    ``value_bytes`` is the size of a base value and of an activation: 4 in float32 (CPU), 2 under bfloat16 autocast (GPU).
    ``paged`` leaves out the moments that a paged optimizer keeps in pages of the driver's, outside torch's allocator.
    The peak is at the loss (all kept activations, the logits of one chunk) or in the backward pass (kept activations, one
    recomputed layer under checkpointing, temporaries of the widest product); the larger of the two moments is counted.
    """
    return [*_weights(shape, settings, value_bytes), *_adapter(shape, settings, value_bytes, paged), *_step(shape, settings, value_bytes)]


def _weights(shape: ModelShape, settings: AdapterSettings, value_bytes: int) -> list[LedgerRow]:
    count = shape.layers * sum(a * b for a, b in shape.matrices().values())
    whole = shape.vocabulary * shape.hidden * (1 if shape.tied else 2) + (2 * shape.layers + 1) * shape.hidden
    other = LedgerRow("weights, not quantised", whole * value_bytes, f"embeddings, output head, norms: {whole:,} x {value_bytes} bytes")
    if settings.quantisation == "none":
        return [LedgerRow("weights, linear layers", count * value_bytes, f"{count:,} x {value_bytes} bytes"), other]
    blocks = count // NF4_BLOCK
    scales = blocks + blocks // SCALE_BLOCK * FLOAT32 if settings.double_quantisation else blocks * FLOAT32
    tables = shape.layers * len(shape.matrices()) * _TABLE_BYTES
    return [
        LedgerRow("weights, NF4 codes", count // 2, f"{count:,} weights x 4 bits"),
        LedgerRow("weights, scales of NF4 blocks", scales + tables, "a scale of 8 bits a block of 64, and a float32 every 256 scales"
                  if settings.double_quantisation else "a float32 scale a block of 64"),
        other,
    ]


def adapter_parameters(shape: ModelShape, settings: AdapterSettings) -> int:
    """Trainable parameters: rank x (inputs + outputs) a target matrix."""
    targets = [size for name, size in shape.matrices().items() if name in settings.target_modules]
    return shape.layers * settings.rank * sum(a + b for a, b in targets)


def _adapter(shape: ModelShape, settings: AdapterSettings, value_bytes: int, paged: bool) -> list[LedgerRow]:
    count = adapter_parameters(shape, settings)
    sides = [settings.rank * side for name, size in shape.matrices().items() if name in settings.target_modules for side in size]
    resident = shape.layers * sum(size for size in sides if not paged or size < _PAGED_FROM)
    copies = count * value_bytes if value_bytes < FLOAT32 else 0
    return [
        LedgerRow("adapters", count * FLOAT32 + copies,
                  f"{count:,} x 4 bytes: rank x (inputs + outputs) a matrix" + (", and copies in the short type" if copies else "")),
        LedgerRow("gradients", count * FLOAT32, "of the adapters alone"),
        LedgerRow("optimizer", 2 * resident * FLOAT32,
                  "two float32 moments a trainable parameter" + (f"; {count - resident:,} of them in pages" if paged else "")),
    ]


def _step(shape: ModelShape, settings: AdapterSettings, value_bytes: int) -> list[LedgerRow]:
    tokens = settings.batch_size * settings.block_size
    layer = tokens * layer_activations(shape, settings, value_bytes)
    ends = tokens * (shape.hidden * value_bytes + 2 * shape.head_dim * value_bytes)  # the loss's gradient; cos and sin
    kept = ends + shape.layers * (tokens * shape.hidden * value_bytes if settings.gradient_checkpointing else layer)
    recomputed = layer if settings.gradient_checkpointing else 0
    copies = value_bytes if value_bytes < FLOAT32 else 0  # logits are computed in the short type, then widened
    logits = min(settings.logit_chunk, tokens) * shape.vocabulary * (FLOAT32 + copies)
    widest = max(a * b for a, b in shape.matrices().values()) * value_bytes
    temporaries = 3 * tokens * shape.intermediate * value_bytes + widest
    at_loss = logits >= recomputed + temporaries
    recompute = "one tensor a layer, and one layer recomputed"
    gone = "" if at_loss else "; gone by the peak"
    return [
        LedgerRow("activations", kept + (0 if at_loss else recomputed),
                  recompute if settings.gradient_checkpointing else f"{layer / tokens:,.0f} bytes a token and layer"),
        LedgerRow("logits", logits if at_loss else 0, f"{min(settings.logit_chunk, tokens)} positions at a time{gone}"),
        LedgerRow("temporaries", 0 if at_loss else temporaries, "one de-quantised matrix and the gradients of a feed-forward layer"),
    ]


def layer_activations(shape: ModelShape, settings: AdapterSettings, value_bytes: int) -> int:
    """Bytes a token that autograd keeps for one layer, for adapters on all seven matrices.

    Two residual streams and two norms' outputs (hidden each), rotated queries and attention's output (heads x head size
    each), keys and values, four feed-forward tensors (gate, its SiLU, up, their product), the adapters' inner values (rank
    each), the softmax's log-sum (one float32 a head) and the norms' reciprocal roots (two float32). The residual streams are
    kept as the norms widen them, in float32.
    """
    wide = 2 * shape.hidden + 2 * shape.heads * shape.head_dim + 2 * shape.kv_heads * shape.head_dim + 4 * shape.intermediate
    if value_bytes < FLOAT32:  # peft widens an adapter's input, autocast narrows it: seven copies in place of three shared ones
        wide += 3 * shape.hidden + shape.heads * shape.head_dim
    inner = settings.rank * len(set(settings.target_modules) & set(shape.matrices()))
    return (wide + inner) * value_bytes + FLOAT32 * (2 * shape.hidden + shape.heads + 2)


def total(rows: Sequence[LedgerRow]) -> int:
    """The predicted peak in bytes."""
    return sum(row.bytes for row in rows)
