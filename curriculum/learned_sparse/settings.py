"""Settings of learned sparse retrieval (section ``learned_sparse``)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LearnedSparseSettings(BaseModel):
    """By arithmetic the defaults train for about five minutes on two cores, and encode 2,600 passages in about three. Lengths in tokens.

    A published encoder, ``hub:naver/splade-v3-distilbert@COMMIT`` or ``path:DIR``, is named as ``base`` with ``steps`` 0; it brings its own
    way with queries.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field("packaged:minilm", description="source of a sparse encoder, a masked language model, or a sentence encoder without a head")
    query_weights: Literal["idf", "mlm"] = Field(
        "idf", description="what weighs a query's terms: their idf, without a model; or the passages' encoder. A finished encoder has its own way"
    )
    head_steps: int = Field(60, ge=0, description="steps that teach a head that is new to name the pieces it stands over")
    head_learning_rate: float = Field(2e-3, gt=0)
    start_terms: int = Field(200, ge=1, description="terms that a passage activates, on average, when a new head's training begins")
    steps: int = Field(60, ge=0, description="optimiser steps of the contrastive training; 0 takes a finished encoder as it is")
    batch_size: int = Field(16, ge=2, description="queries a step; the other queries' passages are negatives too")
    train_tokens: int = Field(64, ge=16, description="tokens of a passage in training")
    learning_rate: float = Field(5e-5, gt=0)
    scale: float = Field(
        0.1, gt=0, description="what inner products are multiplied by before the softmax; idf makes them large, SPLADE's own queries have 1"
    )
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    warmup_share: float = Field(0.1, ge=0, le=1, description="share of the steps over which the learning rate rises from 0")
    passage_flops: float = Field(3e-3, ge=0, description="how much the FLOPS regulariser of passages weighs in the loss")
    query_flops: float = Field(3e-3, ge=0, description="the same of queries, where a model weighs their terms")
    flops_warmup_share: float = Field(1 / 3, gt=0, le=1, description="share of the steps over which the regulariser rises, quadratically")
    freeze_words: bool = Field(True, description="leave the word embeddings, which the head is tied to, as they are")
    checkpoint_every: int = Field(20, ge=1, description="steps between checkpoints")
    max_tokens: int = Field(128, ge=16, description="a longer passage is cut by the encoder")
    encode_batch: int = Field(8, ge=1, description="passages encoded at once: each takes max_tokens * vocabulary numbers")
    impact_scale: int = Field(50, ge=1, description="what weights are multiplied by before they are rounded to Lucene's integer impacts")
    kept_terms: tuple[int, ...] = Field((16, 32, 64), description="static pruning: the strongest terms of a passage, a system each")
    parity_queries: int = Field(8, ge=1, description="queries whose scores the library and Lucene compute again")
    parity_passages: int = Field(6, ge=2, description="passages that are encoded again by the definition")
    timed_queries: int = Field(30, ge=1, description="queries that are timed one after another")
