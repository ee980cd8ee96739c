"""Settings of the search for better search settings (section ``search_tuning``): what is tried, and on how many questions."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from curriculum.reranking.settings import RerankerSettings
from curriculum.retrieval.settings import Fusion, RetrievalSettings

Range = tuple[float, float]


class SearchSetting(BaseModel):
    """One way to search: a point of the search."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    passage_words: int
    fusion: Fusion
    dense_weight: float = Field(ge=0, le=1, description="the dense leg's share in the fusion; BM25 has the rest")
    depth: int = Field(gt=0, description="hits each leg gives to the fusion")
    k1: float = Field(ge=0)
    b: float = Field(ge=0, le=1)
    rerank_depth: int = Field(ge=0, description="fused passages that the cross-encoder orders again; 0: none")


def default_setting(retrieval: RetrievalSettings, reranker: RerankerSettings) -> SearchSetting:
    """How the lineage searches where nothing was tuned: by the profile's own settings."""
    return SearchSetting(
        passage_words=retrieval.passage_words, fusion=retrieval.fusion, dense_weight=retrieval.dense_weight, depth=retrieval.depth,
        k1=retrieval.k1, b=retrieval.b, rerank_depth=reranker.depth,
    )  # fmt: skip


class SearchTuningSettings(BaseModel):
    """The defaults are some seven minutes on two cores: encoding each other chunking, and the cross-encoder over the candidates.

    The default setting is always tried first, and a value of it that lies outside of what is named here widens the range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: int = Field(40, ge=1, description="settings that are tried, the default one among them")
    startup: int = Field(12, ge=1, description="trials drawn at random before the sampler learns from them")
    passage_words: tuple[int, ...] = Field((60, 90, 140), min_length=1, description="words a passage has at most; each is encoded and indexed once")
    fusion: tuple[Fusion, ...] = Field(("rrf", "dbsf", "rsf"), min_length=1)
    dense_weight: Range = Field((0.0, 1.0), description="0 leaves BM25 alone to order what it finds, 1 the dense leg")
    depth: tuple[int, ...] = Field((20, 50, 100, 200), min_length=1)
    k1: Range = Field((0.4, 2.0))
    b: Range = Field((0.0, 1.0))
    rerank_depth: tuple[int, ...] = Field((0, 10, 20), min_length=1)
    dev_questions: int = Field(50, ge=1, description="dev questions a track, by hash, of those that are not on what the reranker was trained on")
    test_questions: int = Field(80, ge=1, description="test questions a track, by hash")

    @field_validator("dense_weight", "k1", "b")
    @classmethod
    def _ordered(cls, value: Range) -> Range:
        if value[0] > value[1]:
            raise ValueError(f"a range goes from its lower to its upper end, and {value[0]:g} is above {value[1]:g}")
        return value

    @field_validator("passage_words")
    @classmethod
    def _wide_enough(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) <= 10:
            raise ValueError(f"a passage needs more than 10 words, and {min(value)} is named")
        return value
