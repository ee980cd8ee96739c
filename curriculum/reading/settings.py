"""Data, model and budget of the reader."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Trial(BaseModel):
    """One row of the hyper-parameter table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(gt=0)
    batch_size: int = Field(gt=0)
    epochs: int = Field(1, gt=0)
    max_length: int = Field(gt=32)


class ReaderSettings(BaseModel):
    """The reader. The defaults are the starter profile's: about four minutes on two cores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field("packaged:minilm", description="source of a BERT-family encoder")
    train_source: str = Field("", description="SQuAD v1 JSON by path:, or a hub: dataset; empty: questions on the notes and Python docs")
    test_source: str = Field("", description="where the test questions come from; empty: an unseen part of train_source, by article")
    train_examples: int = Field(900, gt=0)
    dev_examples: int = Field(80, gt=0)
    test_examples: int = Field(240, gt=0)
    stride: int = Field(48, ge=0, description="tokens that two windows of one context share")
    trials: tuple[Trial, ...] = Field(
        (
            Trial(learning_rate=1e-4, batch_size=8, max_length=160),
            Trial(learning_rate=3e-4, batch_size=8, max_length=160),
            Trial(learning_rate=3e-4, batch_size=16, max_length=160),
        ),
        description="compared on dev questions after trial_examples; the best one trains the reader",
        min_length=1,
    )
    trial_examples: int = Field(160, gt=0, description="training questions a trial sees")
    epochs: int = Field(1, gt=0, description="of the final training")
    accumulate: int = Field(1, gt=0)
    warmup_share: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    checkpoint_every: int = Field(25, gt=0)
    max_answer_tokens: int = Field(48, gt=0)
    n_best: int = Field(20, gt=0)
