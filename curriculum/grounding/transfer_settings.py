"""Settings of the verifier's test on claims from elsewhere (section ``verifier_transfer``)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TransferSettings(BaseModel):
    """Which sets of labelled claims the verifier is held against. None of them is trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sets: tuple[str, ...] = Field((), description="path: of files or folders laid out as BEGIN, HaluEval, SNLI, or passage, claim, supported")
    rows: int = Field(1500, ge=20, description="claims of a set; of a longer one a seeded sample")
    resamples: int = Field(500, ge=50, description="of the bootstrap over passages")
