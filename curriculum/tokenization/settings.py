"""Budgets of the tokenizer study and of the packed corpus."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TokenizationSettings(BaseModel):
    """How tokenizers are trained and text is packed. The defaults are the starter profile's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(4096, ge=300, description="vocabulary of the packed corpus")
    study_vocab_sizes: tuple[int, ...] = Field((1024, 4096), description="vocabulary sizes compared")
    study_characters: int = Field(400_000, gt=0, description="text each compared tokenizer is trained on")
    study_documents: int = Field(200, gt=0, description="held-out documents each is measured on")
    block_size: int = Field(128, gt=1, description="tokens a training block predicts")
    train_tokens: int = Field(1_500_000, gt=0)
    held_out_tokens: int = Field(60_000, gt=0, description="tokens of the validation split, and of the test split")
