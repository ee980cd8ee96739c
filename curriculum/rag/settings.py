"""Settings of retrieval-augmented answers (sections ``rag`` and ``abstention``)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RagSettings(BaseModel):
    """What is retrieved, who answers, and when an answer is withheld."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    answerer: Literal["reader", "generator"] = Field(
        "reader", description="reader: a span of the passages by the promoted reader; generator: text by the profile's generator"
    )
    split: Literal["train", "dev", "test"] = Field("test", description="questions of this split are answered")
    max_questions: int = Field(60, ge=1, description="sampled over the kinds of question in proportion; fewer where there are fewer")
    depth: int = Field(20, ge=1, description="first-stage results that are reranked")
    contexts: int = Field(3, ge=1, description="passages shown to the answerer, best first")
    passage_words: int = Field(160, ge=20, description="words of a passage that a generator's prompt shows")
    max_new_tokens: int = Field(48, ge=1, description="of a generated answer")
    withhold: bool = Field(True, description="withhold an answer whose support is below the threshold")
    support_threshold: float | None = Field(None, ge=0, le=1, description="None: the verifier's own, chosen on labelled dev claims")
    collection: str = Field(
        "project", description="what is searched: project, or a folder under retrieval.collections, whose answers.jsonl then lists what is asked"
    )


class AbstentionSettings(BaseModel):
    """What risk is accepted, and on how many dev questions the threshold is chosen (section ``abstention``)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_risk: float = Field(0.2, gt=0, lt=1, description="wrong answers among those given, at most")
    level: float = Field(0.95, gt=0.5, lt=1, description="confidence of the bound on dev from which the threshold is chosen")
    dev_questions: int = Field(60, ge=5)
    resamples: int = Field(500, ge=50, description="of the bootstrap over questions")
