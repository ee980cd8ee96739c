"""What the row studies measure, where the other sections do not say it already."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")

Fused = Literal["bm25", "dense", "rrf", "dbsf", "rsf", "weighted"]
Decoding = Literal["greedy", "beam", "sampling", "top_k", "top_p", "min_p", "typical"]


def usable(key: str) -> str:
    """``key`` as it is: a row's name, which is a partition key, a folder in the store and a word on the command line.

    Raises:
        ValueError: it is none of them everywhere.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"'{key}' cannot name a row: use letters, digits, '-' and '_', and single dots between them")
    return key


class EmbeddingModel(BaseModel):
    """One row of the table of embedding models. The prompts are those of ``retrieval``: null keeps what the model's files say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    query_prompt: str | None = None
    passage_prompt: str | None = None
    max_tokens: int = Field(128, gt=8)


class RowSettings(BaseModel):
    """The row studies. The defaults are the starter profile's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    embedding_models: dict[str, EmbeddingModel] = Field(
        {"minilm": EmbeddingModel(source="packaged:minilm"), "smollm2-mean": EmbeddingModel(source="packaged:smollm2")},
        description="row -> model; a language model without pooling of its own is mean-pooled",
    )
    embedding_passages: int = Field(400, gt=0, description="passages a model is measured on: every relevant one first, then others by hash")
    embedding_queries: int = Field(60, gt=0, description="test queries of the headline track a model is measured on, by hash")
    corpora: dict[str, str] = Field(default_factory=dict, description="your own corpora, NAME -> path:DIR: BEIR layout, or just text")
    corpora_folder: str = Field("", description="path:DIR of which every subfolder is a corpus of its own, named after it")
    decoding_prompts: int = Field(12, gt=0, description="passages of the notes whose beginning is continued")
    decoding_tokens: int = Field(40, gt=1, description="tokens a continuation has")

    @field_validator("embedding_models", "corpora")
    @classmethod
    def _names(cls, value: dict[str, object]) -> dict[str, object]:
        return {usable(key): row for key, row in value.items()}
