"""What the study of low-bit inference measures, and how much of it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class QuantisationSettings(BaseModel):
    """The study runs on the processor. The defaults take about three minutes on one thread."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field("packaged:smollm2", description="causal language model that is held in every format")
    gguf: str = Field(
        "packaged:smollm2", description="the same model as a GGUF file, for llama.cpp: packaged:smollm2, or path: a .gguf file; empty: left out"
    )
    block_size: int = Field(256, ge=8, description="tokens a held-out block predicts")
    blocks: int = Field(10, ge=2, description="held-out blocks behind the perplexities")
    prompt_tokens: int = Field(128, ge=2, description="tokens read at once, behind the speed of prefill")
    new_tokens: int = Field(16, ge=1, description="tokens decoded one by one, behind the speed of decoding")
    rounds: int = Field(5, ge=2, description="measurements of every format's speed, taken in turn")
