"""Settings of the query expansion study (section ``expansion``)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ExpansionSettings(BaseModel):
    """The defaults are Anserini's for RM3; for HyDE, the prompt of its paper and one greedy passage a query."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queries: int = Field(60, ge=2, description="test queries of the headline track for which passages are written, at most")
    feedback_documents: int = Field(10, ge=1, description="RM3: best passages of the first search that terms are taken from")
    feedback_terms: int = Field(10, ge=1, description="RM3: terms taken from them")
    original_weight: float = Field(0.5, ge=0, le=1, description="RM3: weight of the query as it was asked")
    prompt: str = Field("Please write a passage to answer the question.\nQuestion: {query}\nPassage:", description="HyDE: {query} is replaced")
    samples: int = Field(1, ge=1, description="HyDE: passages a query; the paper has 8, sampled at temperature 0.7")
    temperature: float = Field(0.0, ge=0, description="HyDE: 0 is greedy")
    max_new_tokens: int = Field(64, ge=1, description="HyDE: length of a passage, at most")

    @model_validator(mode="after")
    def _possible(self) -> ExpansionSettings:
        if "{query}" not in self.prompt:
            raise ValueError("expansion.prompt must hold {query}: without it every query gets the same passage")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("expansion.samples is more than 1 and temperature 0: all greedy passages of a query are equal; raise the temperature")
        return self
