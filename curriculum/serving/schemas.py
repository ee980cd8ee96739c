"""What goes in and out over HTTP."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from curriculum.search_tuning.settings import SearchSetting


class Problem(BaseModel):
    """Why a request was refused, in one sentence."""

    detail: str


class Scores(BaseModel):
    """What each leg gave a passage; null where it is not among the leg's hits, or was not reranked."""

    bm25: float | None = Field(description="BM25 (Lucene)")
    dense: float | None = Field(description="inner product of the embeddings")
    fused: float = Field(description="both legs fused")
    reranker: float | None = Field(description="logit of the cross-encoder; null also where the promoted reranker gives it no weight")
    final: float = Field(description="what the passages are ordered by: fused and reranker, interpolated")


class Passage(BaseModel):
    """A passage that was found."""

    rank: int
    passage_id: str
    doc_id: str
    title: str
    section: str
    source: str
    text: str
    path: str = Field(description="of a user's own file, below the corpus's folder; empty for the project's passages")
    place: str = Field(description="where in the file: the page, line or row; empty where it has none")
    scores: Scores


class Found(BaseModel):
    """What a search found. ``milliseconds`` are those of each stage and, as ``total``, of the request with its wait."""

    request_id: str
    query: str
    passages: list[Passage]
    milliseconds: dict[str, float]
    versions: dict[str, str]


class Sentence(BaseModel):
    """One sentence of an answer. A withheld one has no text."""

    index: int
    text: str
    supported: bool
    support: float = Field(description="the verifier's support by the best of the passages shown, in [0, 1]")
    withheld: bool
    citations: list[str] = Field(description="ids of the passages that support it, of those shown")


Reason = Literal["no_draft", "unsupported", "below_threshold"]


class Answered(BaseModel):
    """How an answer ended. ``abstained``: nothing was given out."""

    request_id: str
    question: str
    answer: str
    abstained: bool
    reason: Reason | None = Field(
        description="why nothing was given out: nothing was written, no passage supports what was, or its support is below the threshold"
    )
    support: float | None = Field(description="that of the weakest sentence, in [0, 1]; null where nothing was written")
    threshold: float | None = Field(description="the promoted support from which an answer is given out; null: none is in force")
    withheld: int
    unsupported: int
    citations: list[str]
    milliseconds: dict[str, float]
    versions: dict[str, str]


class Feedback(BaseModel):
    """What a person thought of an answer or of one passage of it."""

    model_config = ConfigDict(extra="forbid")

    request_id: str = Field(min_length=1, max_length=64, description="of the answer, as it was given")
    verdict: Literal["helpful", "unhelpful"]
    passage_id: str | None = Field(None, max_length=500, description="one of the passages found; the whole answer where it is left out")
    comment: str = Field("", max_length=2000)


class Kept(BaseModel):
    """Feedback that was stored."""

    feedback_id: str
    versions: dict[str, str]


class Abstention(BaseModel):
    """Below which support no answer is given out."""

    model_config = ConfigDict(frozen=True)

    threshold: float | None = Field(None, description="that of promoted_abstention, where the versions name it; null: none is in force")
    target_risk: float | None = Field(None, description="wrong answers among those given, at most, for which it was chosen")
    not_applied: str = Field("", description="why a promoted threshold is not in force")


class Health(BaseModel):
    """What is served, since when, and what kept a newer version from being served."""

    status: Literal["ok"]
    profile: str
    versions: dict[str, str]
    search: SearchSetting = Field(description="how is searched: as promoted_search_settings say where the versions name them, else the profile")
    abstention: Abstention
    since: str
    swaps: int
    problem: str
