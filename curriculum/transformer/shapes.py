"""The arithmetic of a Transformer's shape: parameters, cache, FLOPs and training memory, from the configuration alone.

Nothing is built or loaded. Counts are exact and in units: parameters are values, memory is bytes, a FLOP is one multiplication
or one addition. ``PUBLISHED`` holds real configurations beside the counts that their authors state.
"""

from __future__ import annotations

from dataclasses import dataclass

VALUE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
# AdamW in mixed precision: the 16-bit copies that the passes use, and what the optimizer keeps in float32 (arXiv 1910.02054, 3.1)
TRAINING_BYTES = {"weights, 16 bits": 2, "gradients, 16 bits": 2, "master weights": 4, "first moment": 4, "second moment": 4}


@dataclass(frozen=True)
class Shape:
    """A configuration. Layers in one stack only make it decoder-only or encoder-only; in both, the decoder attends across.

    ``heads`` of queries share ``kv_heads`` of keys and values (0: as many as heads), each ``head_dim`` wide (0: width / heads).
    ``inner``: width inside a feed-forward block, or inside one expert. ``gated``: three matrices a block in place of two.
    ``positions``, ``segments``: rows of learned tables that are added to the input (0: none). ``bias_buckets``: rows of T5's table
    of position biases, [buckets, heads], one a stack. ``biases``: on all linear layers of the blocks, never on the output head.
    ``norm_vectors``: 1 for a gain (RMSNorm), 2 for a gain and a bias (LayerNorm). Every stack has one norm more than sub-layers:
    on its output, or, in BERT, on the embeddings. ``pooler``: BERT's square layer on the first position.
    ``experts`` (0: dense): how many a layer stores, of which a token takes ``active_experts`` and all ``shared_experts``.
    ``window``: positions that a token may see, itself included (0: all), in ``window_layers`` of the decoder's layers (0: in all).
    A chunk, as in Llama 4, counts as a window: it is the most that a token may see.

    Raises:
        ValueError: sizes that do not divide or contradict each other; the message names them.
    """

    vocabulary: int
    width: int
    heads: int
    inner: int
    decoder_layers: int = 0
    encoder_layers: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    gated: bool = False
    positions: int = 0
    segments: int = 0
    bias_buckets: int = 0
    tied: bool = False
    biases: bool = False
    norm_vectors: int = 1
    pooler: bool = False
    experts: int = 0
    active_experts: int = 0
    shared_experts: int = 0
    window: int = 0
    window_layers: int = 0

    def __post_init__(self) -> None:
        if min(self.vocabulary, self.width, self.heads, self.inner, self.layers) < 1 or min(vars(self).values()) < 0:
            raise ValueError("vocabulary, width, heads, inner and the layers of one stack must be at least 1, and no size negative")
        if not self.head_dim and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}; give head_dim")
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.norm_vectors not in {1, 2}:
            raise ValueError(f"norm_vectors is 1 (gain) or 2 (gain and bias), not {self.norm_vectors}")
        if self.experts and not 1 <= self.active_experts <= self.experts:
            raise ValueError(f"active_experts {self.active_experts} must lie between 1 and experts {self.experts}")
        if not self.experts and (self.active_experts or self.shared_experts):
            raise ValueError("active_experts and shared_experts need experts")
        if self.window_layers > self.decoder_layers or (self.window_layers and not self.window) or (self.window and not self.decoder_layers):
            raise ValueError(f"window {self.window} in {self.window_layers} layers does not fit a decoder of {self.decoder_layers} layers")
        if self.experts and self.biases:
            raise ValueError("experts with biases are not counted here: no published shape has them")
        resolved = {
            "kv_heads": self.kv_heads or self.heads, "head_dim": self.head_dim or self.width // self.heads,
            "window_layers": self.window_layers or (self.decoder_layers if self.window else 0),
        }
        for name, value in resolved.items():
            object.__setattr__(self, name, value)

    @property
    def kind(self) -> str:
        """``decoder-only``, ``encoder-only`` or ``encoder-decoder``."""
        if self.encoder_layers and self.decoder_layers:
            return "encoder-decoder"
        return "decoder-only" if self.decoder_layers else "encoder-only"

    @property
    def layers(self) -> int:
        """Layers of both stacks; each has one feed-forward block."""
        return self.encoder_layers + self.decoder_layers

    @property
    def stacks(self) -> int:
        return 2 if self.kind == "encoder-decoder" else 1

    @property
    def attentions(self) -> int:
        """Attention blocks: one a layer, and a second one, across, in the decoder layers beside an encoder."""
        return self.layers + (self.decoder_layers if self.kind == "encoder-decoder" else 0)

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        return self.kv_heads * self.head_dim


def parameters(shape: Shape, *, active: bool = False) -> dict[str, int]:
    """Parameters by part; their sum is the model's. ``active``: without the experts that a token does not pass through.

    An embedding row that is not looked up counts as active all the same, as it does in the published figures. Routers are in
    ``feed_forward``, position tables of every sort in ``embeddings``, an untied output matrix and the pooler in ``head``.
    """
    width, experts = shape.width, shape.active_experts if active else shape.experts
    attention_bias = shape.query_width + 2 * shape.key_width + width if shape.biases else 0
    inner_bias = (2 if shape.gated else 1) * shape.inner + width if shape.biases else 0
    tables = shape.stacks * shape.bias_buckets * shape.heads
    output = shape.vocabulary * width if shape.decoder_layers and not shape.tied else 0
    return {
        "embeddings": (shape.vocabulary + shape.positions + shape.segments) * width + tables,
        "attention": shape.attentions * (_attention_matrices(shape) + attention_bias),
        "feed_forward": shape.layers * (_feed_forward_matrices(shape, experts) + inner_bias),
        "norms": (shape.attentions + shape.layers + shape.stacks) * shape.norm_vectors * width,
        "head": output + (width * width + width if shape.pooler else 0),
    }


def total_parameters(shape: Shape) -> int:
    """All parameters that are stored; a matrix that two places share counts once."""
    return sum(parameters(shape).values())


def active_parameters(shape: Shape) -> int:
    """The parameters that one token uses; the total where there are no experts."""
    return sum(parameters(shape, active=True).values())


def _attention_matrices(shape: Shape) -> int:
    """Weights of one block: queries and output [width, query width], keys and values [width, key width]."""
    return 2 * shape.width * (shape.query_width + shape.key_width)


def _feed_forward_matrices(shape: Shape, experts: int) -> int:
    """Weights of one block with ``experts`` routed experts: the router [width, all experts], and every expert's matrices."""
    blocks = experts + shape.shared_experts if shape.experts else 1
    return shape.width * shape.experts + blocks * (3 if shape.gated else 2) * shape.width * shape.inner


def _positions_read(shape: Shape, length: int) -> int:
    """Positions that one token's self-attention reads at ``length``, summed over the decoder's layers."""
    return (shape.decoder_layers - shape.window_layers) * length + shape.window_layers * min(length, shape.window)


def kv_cache_bytes(shape: Shape, length: int, dtype: str = "bfloat16", *, source: int = 0) -> int:
    """Bytes of the keys and values that one sequence of ``length`` tokens leaves in the decoder's cache; 0 without a decoder.

    A layer with a window keeps ``window`` positions at most. ``source``: tokens that an encoder has read, whose keys and values
    the attention across keeps as well.

    Raises:
        ValueError: an unknown dtype, a negative length, or a source where there is no attention across.
    """
    if dtype not in VALUE_BYTES:
        raise ValueError(f"dtype '{dtype}' is none of {', '.join(VALUE_BYTES)}")
    if min(length, source) < 0 or (source and shape.kind != "encoder-decoder"):
        raise ValueError(f"length {length} and source {source} must not be negative, and only an encoder-decoder has a source")
    return 2 * shape.key_width * VALUE_BYTES[dtype] * (_positions_read(shape, length) + shape.decoder_layers * source)


def forward_flops(shape: Shape, context: int) -> dict[str, int]:
    """FLOPs a token of a forward pass: ``weights`` (2 a weight used) and ``attention`` (scores and mixing of values).

    A token is compared with all of ``context`` (or its window), as the last token of a text is, and as kernels do that compute
    the causal half and throw it away; the mean over a text is about half. Lookups, norms, biases, softmax, rotation and the
    pooler, which sees one position, are left out. In an encoder-decoder ``context`` tokens are read and as many written, and the
    figure is the mean of a source token, which only the encoder and the keys and values of the attention across see, and a
    target token.

    Raises:
        ValueError: a context below 1.
    """
    if context < 1:
        raise ValueError(f"a token sees at least itself: context must be at least 1, not {context}")
    head = shape.vocabulary * shape.width if shape.decoder_layers else 0
    blocks = shape.attentions * _attention_matrices(shape) + shape.layers * _feed_forward_matrices(shape, shape.active_experts)
    across = shape.attentions - shape.layers
    pairs = _positions_read(shape, context) + (shape.encoder_layers + across) * context
    return {"weights": 2 * (blocks + head) // shape.stacks, "attention": 4 * shape.query_width * pairs // shape.stacks}


def training_flops(shape: Shape, tokens: int) -> int:
    """FLOPs of training on ``tokens``: 6 N D, forward 2 and backward 4 an active parameter (arXiv 2001.08361).

    In an encoder-decoder a token passes one stack of two, so N is halved, as in table D.1 of arXiv 2005.14165.
    """
    return 6 * active_parameters(shape) * tokens // shape.stacks


def training_bytes(shape: Shape) -> dict[str, int]:
    """Bytes by part to hold a model in training with AdamW in mixed precision: 16 a parameter, activations left out."""
    return {part: size * total_parameters(shape) for part, size in TRAINING_BYTES.items()}


@dataclass(frozen=True)
class Published:
    """A real configuration and what its authors state.

    ``parameters`` and ``active`` are as ``source`` prints them, in steps of ``unit`` and ``active_unit``; closing zeros of a figure
    in whole millions are taken as rounding. ``active`` 0: not stated. ``family``: the class of transformers that has the same parts.
    ``note``: how the count is meant.
    """

    name: str
    family: str
    shape: Shape
    parameters: int
    unit: int
    source: str
    active: int = 0
    active_unit: int = 1
    note: str = ""


def _gpt(width: int, layers: int, heads: int, positions: int) -> Shape:
    return Shape(50_257, width, heads, 4 * width, layers, positions=positions, tied=True, biases=True, norm_vectors=2)


def _bert(width: int, layers: int, heads: int) -> Shape:
    return Shape(
        30_522, width, heads, 4 * width, encoder_layers=layers, positions=512, segments=2, biases=True, norm_vectors=2, pooler=True
    )


def _t5(width: int, layers: int, heads: int, head_dim: int, inner: int) -> Shape:
    return Shape(32_128, width, heads, inner, layers, layers, head_dim=head_dim, bias_buckets=32, tied=True)


def _llama(vocabulary: int, width: int, layers: int, heads: int, kv_heads: int, inner: int, **more: int) -> Shape:
    return Shape(vocabulary, width, heads, inner, layers, kv_heads=kv_heads, head_dim=128, gated=True, **more)


_M, _B = 10**6, 10**9
_GPT2, _BERT, _T5, _LLAMA3 = "GPT-2 report (Radford et al., 2019), table 2", "arXiv 1810.04805", "arXiv 1910.10683", "arXiv 2407.21783"
_SCOUT = _llama(202_048, 5_120, 48, 40, 8, 8_192, experts=16, active_experts=1, shared_experts=1, window=8_192, window_layers=36)
PUBLISHED = (
    Published("GPT-2 small", "gpt2", _gpt(768, 12, 12, 1_024), 117 * _M, _M, _GPT2, note="corrected to 124M in the authors' repository"),
    Published("GPT-2 XL", "gpt2", _gpt(1_600, 48, 25, 1_024), 1_542 * _M, _M, _GPT2, note="named 1558M in the authors' repository"),
    Published("GPT-3 175B", "gpt2", _gpt(12_288, 96, 96, 2_048), 174_600 * _M, 100 * _M, "arXiv 2005.14165", note="table D.1; 175.0B in table 2.1"),
    Published("BERT-base", "bert", _bert(768, 12, 12), 110 * _M, 10 * _M, _BERT, note="with pooler, without the heads of pre-training"),
    Published("BERT-large", "bert", _bert(1_024, 24, 16), 340 * _M, 10 * _M, _BERT, note="with pooler, without the heads of pre-training"),
    Published("T5-base", "t5", _t5(768, 12, 12, 64, 3_072), 220 * _M, 10 * _M, _T5),
    Published("T5-11B", "t5", _t5(1_024, 24, 128, 128, 65_536), 11 * _B, _B, _T5),
    Published("Llama-2-7B", "llama", _llama(32_000, 4_096, 32, 32, 32, 11_008), 7 * _B, _B, "arXiv 2307.09288"),
    Published("Llama-3-8B", "llama", _llama(128_256, 4_096, 32, 32, 8, 14_336), 8 * _B, _B, _LLAMA3),
    Published("Llama-3.1-70B", "llama", _llama(128_256, 8_192, 80, 64, 8, 28_672), 70 * _B, _B, _LLAMA3),
    Published("Llama-3.1-405B", "llama", _llama(128_256, 16_384, 126, 128, 8, 53_248), 405 * _B, _B, _LLAMA3),
    Published("Mistral 7B", "mistral", _llama(32_000, 4_096, 32, 32, 8, 14_336, window=4_096), 7 * _B, _B, "arXiv 2310.06825"),
    Published("Mixtral 8x7B", "mixtral", _llama(32_000, 4_096, 32, 32, 8, 14_336, experts=8, active_experts=2), 46_700 * _M, 100 * _M,
              "mistral.ai/news/mixtral-of-experts", 12_900 * _M, 100 * _M, "arXiv 2401.04088 rounds to 47B and 13B"),
    Published("Llama 4 Scout", "llama4", _SCOUT, 109 * _B, _B, "ai.meta.com/blog/llama-4-multimodal-intelligence", 17 * _B, _B,
              "the text model; the published total has the image encoder too"),
)
