"""What is searched, with what, and how it is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Fusion = Literal["rrf", "dbsf", "rsf"]


class RetrievalSettings(BaseModel):
    """Passages, legs, fusion and tracks. The defaults are the starter profile's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    passage_words: int = Field(110, gt=10, description="a passage ends at the paragraph that passes this many words")
    max_passages: int = Field(2200, gt=0, description="passages of the project's own collection; the notes always fit")
    known_items: int = Field(300, ge=0, description="docstrings whose summary becomes a query and leaves its passage")
    collections: tuple[str, ...] = Field((), description="path: folders in BEIR layout, each searched and measured on its own")
    max_queries: int = Field(150, gt=0, description="queries a track and split, sampled by hash")
    k1: float = Field(0.9, ge=0)
    b: float = Field(0.4, ge=0, le=1)
    encoder: str = Field("packaged:minilm", description="source of a sentence-transformers model")
    query_prompt: str = Field("", description="put before a query, as the model was trained: 'query: ' for E5")
    passage_prompt: str = Field("", description="put before a passage: 'passage: ' for E5")
    max_tokens: int = Field(128, gt=8, description="a longer passage is cut by the encoder")
    batch_size: int = Field(64, gt=0)
    depth: int = Field(100, gt=0, description="hits each leg gives to the fusion")
    headline_track: str = Field("notes", description="the track whose test nDCG@10 is the milestone's or the floor's")
    mteb_tasks: tuple[str, ...] = Field((), description="mteb retrieval tasks from the hub, NAME or NAME@REVISION")
