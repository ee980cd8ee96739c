"""What is searched, with what, and how it is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Fusion = Literal["rrf", "dbsf", "rsf"]


class RetrievalSettings(BaseModel):
    """Passages, legs, fusion and tracks. The defaults are the starter profile's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    passage_words: int = Field(90, gt=10, description="paragraphs of a section are joined up to this many words; longer ones are cut")
    max_passages: int = Field(2600, gt=0, description="passages of the project's own collection; notes and known items always fit")
    known_items: int = Field(300, ge=0, description="docstrings whose summary becomes a query and leaves its passage")
    collections: tuple[str, ...] = Field((), description="path: folders in BEIR layout, each searched and measured on its own")
    mteb_tasks: tuple[str, ...] = Field((), description="mteb retrieval tasks, NAME or NAME@REVISION of its data, likewise")
    max_queries: int = Field(150, gt=0, description="queries a track and split, sampled by hash, the phrasings of a question together")
    k1: float = Field(0.9, ge=0, description="BM25: how soon a repeated term stops counting (Anserini's default)")
    b: float = Field(0.4, ge=0, le=1, description="BM25: how much a passage's length counts (Anserini's default)")
    encoder: str = Field("packaged:minilm", description="source of a sentence-transformers model")
    query_prompt: str | None = Field(None, description="put before a query ('query: ' for E5); null: what the model's own files say")
    passage_prompt: str | None = Field(None, description="put before a passage ('passage: ' for E5); null: what the model's files say")
    max_tokens: int = Field(256, gt=8, description="a longer passage is cut by the encoder")
    batch_size: int | None = Field(None, gt=0, description="texts the encoder takes at once; null: 8 on a CPU, whose caches they fit, 64 on a GPU")
    depth: int = Field(100, gt=0, description="hits each leg gives to the fusion")
    fusion: Fusion = Field("rsf", description="how the hits of both legs are joined; hybrid_search_report says what another would have given")
    dense_weight: float = Field(0.4, ge=0, le=1, description="the dense leg's share in the fusion, by dev questions; BM25 has the rest")
    headline_track: str = Field("notes", description="the track whose test nDCG@10 is the milestone's or the floor's")
