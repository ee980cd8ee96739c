"""Settings of the tuned embedder (section ``embedder``)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class EmbedderSettings(BaseModel):
    """How the profile's sentence encoder is tuned on the passages that are searched. Lengths in tokens, batches in queries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field("packaged:minilm", description="sentence-transformers model to start from; it must be a source, not promoted:")
    steps: int = Field(80, ge=1, description="optimiser steps")
    batch_size: int = Field(16, ge=2, description="queries a step; the other queries' passages are negatives too")
    negatives: int = Field(1, ge=1, description="mined negatives a query, beside those of the batch")
    max_length: int = Field(128, ge=16, description="tokens of a passage in training")
    learning_rate: float = Field(3e-5, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_share: float = Field(0.1, ge=0, le=1, description="share of the steps over which the learning rate rises from 0")
    clip_norm: float = Field(1.0, gt=0)
    scale: float = Field(20.0, gt=0, description="what cosines are multiplied by before the softmax: the inverse temperature")
    mining_depth: int = Field(20, ge=2, description="results of each leg that negatives are drawn from")
    positive_share: float = Field(
        0.95, gt=0, le=1, description="a passage whose cosine with the query reaches this share of the positive's is no negative"
    )
    self_supervised_queries: int = Field(800, ge=0, description="sentences taken out of passages as queries for the rest of them")
    checkpoint_every: int = Field(20, ge=1, description="steps between checkpoints")
