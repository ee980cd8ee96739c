"""Settings of the multi-hop study (section ``multi_hop``)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MultiHopSettings(BaseModel):
    """How the second search is asked, and how many passages are shown in the end: as many as after a single search."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shown: int = Field(4, ge=2, description="passages that are shown, whichever way they were found")
    beam: int = Field(2, ge=1, description="best passages of the first search, each of which asks a second time")
    depth: int = Field(50, ge=2, description="hits of each search")
    words: int = Field(60, ge=5, description="words of a passage that join the question")
    terms: int = Field(8, ge=1, description="rarest words of a passage that join the question")
