"""Budgets of the language-model evaluation harness."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class HarnessSettings(BaseModel):
    """How much lm-evaluation-harness runs on. The defaults are the starter profile's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    documents: int = Field(16, ge=2, description="held-out documents perplexity is measured on")
    document_characters: int = Field(1200, gt=0, description="longer documents are cut at a paragraph")
    questions: int = Field(48, ge=2, description="multiple-choice questions of four choices")
    context: int = Field(512, ge=16, description="tokens the adapted model sees at most")
    mini_context: int = Field(128, ge=16, description="tokens the mini-Transformer sees at most: the length it was trained on")
    batch_size: int = Field(4, ge=1, description="windows of text scored at once")
