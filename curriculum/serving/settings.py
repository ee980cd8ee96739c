"""Settings of the service (section ``serving``)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ServingSettings(BaseModel):
    """Limits of the service, and what becomes of a sentence that the verifier does not support.

    What is searched, how deep, and who answers are those of the sections ``retrieval`` and ``rag``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    unsupported: Literal["withhold", "mark"] = Field("withhold", description="a sentence without support is kept back, or given and marked")
    results: int = Field(10, ge=1, le=100, description="passages a search gives where the request names no number")
    max_results: int = Field(50, ge=1, le=1000, description="the most a request may name")
    max_query_chars: int = Field(1000, ge=1, description="a longer query is refused with 422")
    max_body_bytes: int = Field(65_536, ge=1024, description="a longer body is refused with 413")
    requests_per_minute: int = Field(240, ge=0, description="of one address; more are refused with 429. 0: no limit")
    max_waiting: int = Field(32, ge=1, description="requests that wait for the models; one more is refused with 503")
    body_seconds: float = Field(10.0, gt=0, description="a body that takes longer to arrive is refused with 408")
    search_seconds: float = Field(20.0, gt=0, description="a search that takes longer, with its wait, is given up with 504")
    ask_seconds: float = Field(120.0, gt=0, description="likewise the answer to a question")
    tuned_search: bool = Field(True, description="search with the promoted settings of the search tuning, where they fit the index")
    abstain: bool = Field(True, description="give no answer with less support than the promoted threshold, where that is for what answers")
    poll_seconds: float = Field(5.0, gt=0, description="how often the store is asked for newly promoted versions")
    reranker_precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16 takes a CPU with AVX-512 BF16 or AMX little more than half the time, and any other longer"
    )
    threads: int = Field(1, ge=0, description="threads of one model call; 0: one a core")
    kept_answers: int = Field(2000, ge=1, description="answers that feedback can still name, newest kept")
