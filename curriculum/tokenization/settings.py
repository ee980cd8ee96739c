"""Budgets of the tokenizer study and of the packed corpus."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TokenizationSettings(BaseModel):
    """How tokenizers are trained and text is packed. The defaults are the starter profile's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field("packaged:pydocs", description="text that is packed (and studied too): packaged:pydocs or path:DIR")
    vocab_size: int = Field(4096, ge=300, description="vocabulary of the packed corpus")
    block_size: int = Field(128, gt=1, description="tokens a training block predicts")
    train_tokens: int = Field(1_500_000, gt=0, description="at most this many predicted tokens in the training split")
    held_out_tokens: int = Field(60_000, gt=0, description="the same of the validation split, and of the test split")
    leakage_jaccard: float = Field(0.8, gt=0, le=1, description="documents this alike (5-word shingles) share a split")
    study_vocab_sizes: tuple[int, ...] = Field((1024, 4096), min_length=1, description="vocabulary sizes compared")
    study_characters: int = Field(150_000, gt=0, description="text each compared tokenizer is trained on")
    study_documents: int = Field(150, gt=0, description="held-out documents of each corpus it is measured on")
    study_merges: int = Field(500, gt=0, description="merges the from-scratch BPE learns beside the library's")
