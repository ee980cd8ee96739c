"""Shapes and budgets of the attention study and of the mini-Transformer, and the checkpoints of the weight bridges."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


def check_heads(width: int, heads: int, kv_heads: int = 1) -> None:
    """Whether attention of this shape can be built, rotary positions included.

    Raises:
        ValueError: it cannot; the fields to change are named.
    """
    if width % heads or heads % kv_heads or (width // heads) % 2:
        raise ValueError(f"width {width} must divide by heads {heads} into an even head dimension, and heads by kv_heads {kv_heads}")


class AttentionStudySettings(BaseModel):
    """What the growth of time and memory is measured over."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lengths: tuple[int, ...] = (256, 512, 1024, 2048)
    heads: int = 4
    head_dim: int = 64
    tile: int = Field(128, gt=0, description="queries and keys a tile")
    repeats: int = Field(3, gt=0)


class BridgeSettings(BaseModel):
    """The real checkpoints whose weights are read into our blocks, beside a random model of every family."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str = Field("packaged:minilm", description="source of a BERT-family encoder")
    decoder: str = Field("packaged:smollm2", description="source of a Llama-family language model; it is held in float32 twice")


class TrainingSettings(BaseModel):
    """The budget of one training run, whatever the model: about two minutes of the mini-Transformer on two cores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(400, gt=0)
    batch_size: int = Field(12, gt=0, description="blocks a micro-batch")
    accumulate: int = Field(1, gt=0, description="micro-batches an optimizer step")
    learning_rate: float = 3e-3
    minimum_learning_rate: float = 3e-4
    warmup_steps: int = 40
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    balance_weight: float = Field(0.01, ge=0, description="of the loss that keeps the load of experts even")
    z_weight: float = Field(0.001, ge=0, description="of the loss that keeps the router's logits small")
    checkpoint_every: int = Field(50, gt=0)
    validate_every: int = Field(0, ge=0, description="steps between losses on the validation blocks, where there are any; 0: at the end alone")


class VocabularyStudySettings(TrainingSettings):
    """Vocabulary sizes compared at equal bytes of training text: every step reads ``batch_size`` blocks of ``context_bytes`` bytes.

    The defaults are 15 runs of 0.77 MB at 0.9 (512 entries) to 1.6 MFLOP a byte (8,192), 13 TFLOP in all: about five minutes.
    """

    vocab_sizes: tuple[int, ...] = Field((512, 1024, 2048, 4096, 8192), min_length=2)
    seeds: int = Field(3, ge=2, description="runs a size, for the interval")
    context_bytes: int = Field(320, gt=8, description="text a block predicts, in bytes: its tokens follow from the tokenizer")
    test_bytes: int = Field(150_000, gt=0, description="held-out text that is scored, at most")
    steps: int = Field(300, gt=0)
    batch_size: int = Field(8, gt=0, description="blocks a step")
    warmup_steps: int = 20
    layers: int = Field(2, gt=0)
    width: int = Field(96, gt=0)
    heads: int = Field(4, gt=0)
    kv_heads: int = Field(2, gt=0)
    hidden: int = Field(256, gt=0)

    @model_validator(mode="after")
    def _divisible(self) -> VocabularyStudySettings:
        check_heads(self.width, self.heads, self.kv_heads)
        return self


class AblationSettings(TrainingSettings):
    """One small Transformer, one part changed at a time: equal corpus, tokens, optimizer and budget.

    The defaults are 16 changes and one reference under three seeds, 51 runs of 0.2 million tokens at 3 MFLOP a token: about a
    quarter of an hour on one thread.
    """

    seeds: int = Field(3, ge=2, description="runs a variant, for the interval")
    length: int = Field(64, gt=8, description="tokens a block predicts in training")
    stretch: int = Field(4, ge=2, description="held-out windows are this many training lengths long")
    test_windows: int = Field(100, ge=2, description="such windows that are scored, at most")
    validation_blocks: int = Field(48, gt=0, description="blocks of the training length behind a curve's points, at most")
    small_tokens: int = Field(12_288, gt=0, description="text of the runs with dropout, which read it many times over")
    dropouts: tuple[float, ...] = Field((0.1, 0.2), min_length=1, description="shares that are dropped, beside none")
    timing_rounds: int = Field(10, ge=2, description="training steps an activation, taken in turn, behind tokens per second")
    steps: int = Field(400, gt=0)
    batch_size: int = Field(8, gt=0, description="blocks a step")
    warmup_steps: int = 40
    validate_every: int = Field(40, ge=0)
    checkpoint_every: int = Field(100, gt=0)
    layers: int = Field(4, gt=0)
    width: int = Field(64, gt=0)
    heads: int = Field(4, gt=0)
    hidden: int = Field(176, gt=0, description="width of the gated block; half as much again where nothing gates, split between active experts")
    experts: int = Field(8, gt=1)
    experts_per_token: int = Field(2, gt=0)

    @model_validator(mode="after")
    def _divisible(self) -> AblationSettings:
        if self.hidden % 2 or self.hidden % self.experts_per_token:
            raise ValueError(f"hidden {self.hidden} must divide by 2 and by experts_per_token {self.experts_per_token}, for blocks of equal size")
        check_heads(self.width, self.heads)
        if self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token {self.experts_per_token} is more than experts {self.experts}")
        if not all(0 < share < 1 for share in self.dropouts):
            raise ValueError(f"dropouts are shares between 0 and 1, not {self.dropouts}")
        return self


class TransformerSettings(TrainingSettings):
    """The mini-Transformer: its shape beside its budget. The defaults are the starter profile's."""

    attention: AttentionStudySettings = AttentionStudySettings()
    vocabulary: VocabularyStudySettings = VocabularyStudySettings()
    layers: int = Field(4, gt=0)
    width: int = Field(128, gt=0)
    heads: int = Field(4, gt=0)
    kv_heads: int = Field(2, gt=0)
    hidden: int = Field(352, gt=0, description="width of the SwiGLU block: 8/3 of the model's, rounded up to 32")
    rope_theta: float = 10_000.0
    sample_prompts: tuple[str, ...] = ("Return the ", "The class ", "Raises ValueError if ")

    @model_validator(mode="after")
    def _divisible(self) -> TransformerSettings:
        check_heads(self.width, self.heads, self.kv_heads)
        return self


class FamilyStudySettings(TrainingSettings):
    """The three families at one budget: the same blocks in the same order, about equal parameters, one optimizer.

    The text is a sample of ``train_blocks`` blocks, read several times over, and the n-grams count the same sample. The defaults are
    6 runs of 1.1 million tokens at 1.3 MFLOP a token: about six minutes on one thread.
    """

    seeds: int = Field(2, ge=1, description="runs a family; the interval is over blocks of their mean")
    vocab_size: int = Field(512, ge=300, description="entries of the tokenizer, trained on the training split")
    context_bytes: int = Field(256, gt=32, description="text a block stands for, in bytes")
    train_blocks: int = Field(1000, gt=0, description="blocks that are trained on, and that the n-grams count")
    curve_blocks: int = Field(32, gt=0, description="further blocks of the training split, behind the curves' points")
    test_bytes: int = Field(50_000, gt=0, description="held-out text that is scored, at most")
    rate: float = Field(0.15, gt=0, lt=1, description="share of the tokens that are masked, or removed in spans")
    mean_span: float = Field(3.0, ge=1, description="tokens of a removed span, on average")
    steps: int = Field(2000, gt=0)
    batch_size: int = Field(4, gt=0, description="blocks a step")
    learning_rate: float = 3e-3
    minimum_learning_rate: float = 3e-4
    warmup_steps: int = 100
    validate_every: int = 200
    layers: int = Field(4, gt=1, description="blocks in all; an encoder-decoder halves them")
    width: int = Field(64, gt=0)
    heads: int = Field(4, gt=0)
    kv_heads: int = Field(2, gt=0)
    hidden: int = Field(176, gt=0, description="width of the SwiGLU block; an encoder-decoder's is less by what its attention across weighs")

    @model_validator(mode="after")
    def _even(self) -> FamilyStudySettings:
        if self.layers % 2:
            raise ValueError(f"layers {self.layers} must be even: an encoder-decoder has half of them on each side")
        check_heads(self.width, self.heads, self.kv_heads)
        return self
