"""Settings of one cross-encoder training run, shared by the sections that train one."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class CrossEncoderSettings(BaseModel):
    """Model, budget and optimiser of a cross-encoder. Lengths are in tokens, batches in groups of pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field("packaged:minilm", description="encoder to start from; a new one-logit head is put on it")
    max_length: int = Field(128, ge=16, le=8192, description="tokens of a pair; the longer side is cut first")
    steps: int = Field(100, ge=1, description="optimiser steps; the training groups are gone through as often as that takes")
    batch_size: int = Field(8, ge=1, description="groups a step: one pair each for BCE, 1 + k pairs each for the listwise loss")
    learning_rate: float = Field(1e-4, gt=0)
    head_learning_rate: float = Field(1e-3, gt=0, description="of the new head, which starts from random weights")
    weight_decay: float = Field(0.01, ge=0)
    warmup_share: float = Field(0.1, ge=0, le=1, description="share of the steps over which the learning rate rises from 0")
    clip_norm: float = Field(1.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1, description="of every layer while training; 0 learns fastest in one short epoch")
    frozen_layers: int = Field(0, ge=0, description="embeddings and this many lowest layers keep their weights; 0 trains all")
    checkpoint_every: int = Field(50, ge=1, description="steps between checkpoints")
    score_batch_size: int | None = Field(None, ge=1, description="pairs a batch when scoring; null: 4 on a CPU, 64 on a GPU")
