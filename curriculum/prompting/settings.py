"""Cases, patterns and budget of the prompt study."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Pattern = Literal["zero_shot", "few_shot", "chain_of_thought", "react", "grounded"]


class PromptingSettings(BaseModel):
    """The prompt study. The defaults are the starter profile's: a sample of the cases, in about four minutes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field("packaged:notes", description="folder with prompt_cases.yaml")
    patterns: tuple[Pattern, ...] = ("zero_shot", "few_shot", "chain_of_thought", "react", "grounded")
    gated_pattern: Pattern = Field("grounded", description="whose hallucination and answer rates the milestone, or its floor, holds")
    max_cases: int = Field(20, gt=0, description="sampled over the kinds in proportion; the full set under a job of its own")
    max_new_tokens: int = Field(40, gt=0)
    reasoning_tokens: int = Field(80, gt=0, description="of a chain of thought")
    passages: int = Field(2, gt=0, description="shown to the grounded pattern, and returned by a search")
    passage_words: int = Field(110, gt=0)
    max_steps: int = Field(3, gt=0, description="actions a ReAct loop may take")
    support: float = Field(0.6, ge=0, le=1, description="share of a grounded answer's content words that must stand in its passages")
