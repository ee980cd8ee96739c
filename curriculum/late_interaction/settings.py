"""Settings of late interaction (section ``late_interaction``)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Bits = Literal[1, 2, 4, 8]


class LateInteractionSettings(BaseModel):
    """The defaults of the study are about ten minutes on one thread, most of it the cross-encoder that it is compared with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str = Field("packaged:minilm", description="source of a multi-vector model (ColBERT), or of a sentence encoder whose tokens are taken")
    query_prompt: str | None = Field(None, description="put before a query; null: what the model's own files say")
    passage_prompt: str | None = Field(None, description="put before a passage; null: what the model's own files say")
    max_tokens: int = Field(128, ge=8, description="of a sentence encoder's text; a multi-vector model's files name its own lengths")
    batch_size: int = Field(32, ge=1, description="texts the encoder takes at once")
    depth: int = Field(50, ge=2, description="results of the hybrid search that are reranked")
    queries: int = Field(40, ge=1, description="test queries a track, at most, by hash")
    centroids: int = Field(256, ge=2, description="of the residual forms; fewer where a centroid would have less than 39 tokens")
    residual_bits: tuple[Bits, ...] = Field((8, 2), min_length=1, description="a number of the residual, a form each; ColBERTv2 has 1 and 2")
    parity_queries: int = Field(4, ge=1, description="queries whose scores a plain double loop computes again")
    parity_passages: int = Field(8, ge=2, description="passages that are scored by the loop, and once in a batch and once alone")

    @model_validator(mode="after")
    def _one_batch(self) -> LateInteractionSettings:
        if self.parity_passages > self.batch_size:
            raise ValueError(
                f"late_interaction.parity_passages ({self.parity_passages}) must fit batch_size ({self.batch_size}): padding is seen in one batch"
            )
        return self
