"""Which generator writes text."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class GeneratorSettings(BaseModel):
    """A local transformers model, or an OpenAI-compatible endpoint (vLLM, llama.cpp, Gemini's compatibility layer, ...)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["local", "endpoint"] = "local"
    model: str = Field("packaged:smollm2", description="source of the local model, or the model's name at the endpoint")
    batch_size: int = Field(8, gt=0)
    base_url: str = Field("", description="the endpoint, ending in /v1")
    api_key_variable: str = Field("OPENAI_API_KEY", description="environment variable that holds the endpoint's key")
    timeout_seconds: float = Field(60.0, gt=0)
    retries: int = Field(2, ge=0)
