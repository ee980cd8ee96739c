"""Where the published facts come from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PublishedSettings(BaseModel):
    """The table of model families."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field("packaged:published-facts", description="YAML file of facts: the project's, or path:FILE in the same form")
