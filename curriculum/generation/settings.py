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
    base_url: str = Field("", description="the endpoint: what comes before /chat/completions, such as .../v1 or Gemini's .../v1beta/openai/")
    api_key_variable: str = Field("OPENAI_API_KEY", description="environment variable that holds the endpoint's key")
    unsent: tuple[Literal["seed", "stop", "temperature"], ...] = Field(
        (), description="fields the endpoint refuses: Gemini's answers 400 to seed, some reasoning models to temperature"
    )
    reasoning_effort: str = Field("", description="sent where set: how much a thinking model may think within the limit of tokens")
    timeout_seconds: float = Field(60.0, gt=0)
    retries: int = Field(2, ge=0)
