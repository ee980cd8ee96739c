"""Settings of the context compression study (section ``compression``)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator


class CompressionSettings(BaseModel):
    """Which contexts are compressed, how far, and by whose surprise words are pruned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field("packaged:smollm2", description="causal language model whose surprise prunes words; its tokens are what is counted")
    questions: int = Field(60, ge=2, description="test questions whose answer stands in what is retrieved, at most")
    contexts: int = Field(3, ge=1, description="passages of a context, best first")
    shares: tuple[float, ...] = Field((0.25, 0.5, 0.75), min_length=1, description="tokens that may be kept, of those there are")
    compared_at: float = Field(0.5, description="the share at which systems are compared in pairs")

    @field_validator("shares")
    @classmethod
    def _possible(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < share < 1 for share in shares) or len(set(shares)) != len(shares):
            raise ValueError("compression.shares must be different numbers between 0 and 1; the whole context is always measured")
        return tuple(sorted(shares))

    def model_post_init(self, context: object) -> None:
        if self.compared_at not in self.shares:
            raise ValueError(f"compression.compared_at is {self.compared_at:g} and must be one of compression.shares {list(self.shares)}")
