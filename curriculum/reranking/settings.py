"""Settings of the reranker (section ``reranker``)."""

from __future__ import annotations

from pydantic import Field

from curriculum.crossencoder.settings import CrossEncoderSettings


class RerankerSettings(CrossEncoderSettings):
    """How the reranker is trained, and how deep it reranks."""

    steps: int = Field(130, ge=1)
    batch_size: int = Field(3, ge=1, description="queries a step, each with its positive and its negatives")
    max_length: int = Field(112, ge=16)
    learning_rate: float = Field(2e-4, gt=0)
    negatives: int = Field(3, ge=1, description="mined negatives a query")
    mining_depth: int = Field(20, ge=2, description="results of each first-stage leg that negatives are drawn from")
    self_supervised_queries: int = Field(400, ge=0, description="sentences taken out of passages as queries for the rest of them")
    near_duplicate: float = Field(0.8, gt=0, le=1, description="word Jaccard with a positive from which a passage is no negative")
    tuning_share: float = Field(0.5, gt=0, lt=1, description="share of the documents asked about on dev that choose the weight")
    tuning_queries: int = Field(60, ge=1, description="at most so many of them are reranked to choose the weight")
    depth: int = Field(20, ge=2, description="first-stage results that are reranked")
    report_queries: int = Field(60, ge=1, description="test queries a track in the report; fewer where the track has fewer")
