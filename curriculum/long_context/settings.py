"""The two small models of the long-context study, the lengths they are read at, and their budgets."""

from __future__ import annotations

from pydantic import Field, model_validator

from curriculum.transformer.settings import AttentionStudySettings, TrainingSettings, check_heads


class PasskeySettings(TrainingSettings):
    """A model that is trained to repeat a key hidden in noise, on sequences of the training length alone."""

    digits: int = Field(4, ge=1, description="places of a key; each has an alphabet of its own")
    symbols: int = Field(10, ge=2, description="symbols of an alphabet")
    fillers: int = Field(32, ge=1, description="what lies around the keys")
    cases: int = Field(40, ge=1, description="sequences a depth and length")
    depths: tuple[float, ...] = Field((0.0, 0.25, 0.5, 0.75, 1.0), min_length=1, description="where the key lies: 0 farthest from the question")
    steps: int = Field(400, gt=0)
    batch_size: int = Field(32, gt=0, description="sequences a step; none is read twice")
    weight_decay: float = 0.0
    warmup_steps: int = 50
    checkpoint_every: int = 200
    layers: int = Field(2, gt=0)
    width: int = Field(64, gt=0)
    heads: int = Field(2, gt=0)
    hidden: int = Field(176, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> PasskeySettings:
        check_heads(self.width, self.heads)
        return self


class LongContextSettings(TrainingSettings):
    """A language model trained at ``length`` tokens and read at up to ``stretch`` times that; the same for the keys.

    The defaults are 3 runs of 1.5 million tokens and 3 of keys: about five minutes on one thread.
    """

    seeds: int = Field(3, ge=2, description="runs of each model, for the interval")
    length: int = Field(64, ge=16, multiple_of=4, description="tokens a block predicts in training")
    stretch: int = Field(4, ge=2, description="the longest input, in training lengths")
    windows: int = Field(160, ge=2, description="held-out stretches of the training length that are scored, at most")
    vocab_size: int = Field(512, ge=300, description="entries of the tokenizer, trained on the training split")
    rope_theta: float = Field(
        400.0, gt=1, description="base of both models' frequencies: the slowest pair's wavelength is about 27 training lengths, as in Llama at 2,048"
    )
    steps: int = Field(1500, gt=0)
    batch_size: int = Field(16, gt=0, description="blocks a step")
    warmup_steps: int = 50
    checkpoint_every: int = 200
    layers: int = Field(4, gt=0)
    width: int = Field(64, gt=0)
    heads: int = Field(2, gt=0)
    hidden: int = Field(176, gt=0)
    passkey: PasskeySettings = PasskeySettings()
    attention: AttentionStudySettings = AttentionStudySettings(lengths=(1024, 2048, 3072, 4096), repeats=1)

    @model_validator(mode="after")
    def _possible(self) -> LongContextSettings:
        check_heads(self.width, self.heads)
        if self.length < 2 * self.passkey.digits + 2:
            raise ValueError(f"two keys of {self.passkey.digits} symbols do not fit {self.length} tokens: raise length, or lower passkey.digits")
        return self
