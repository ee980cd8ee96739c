"""Budgets and sources of the corpora."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class CorporaSettings(BaseModel):
    """What text is collected. The defaults are the starter profile's. Lengths are in characters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    libraries: tuple[str, ...] = Field(
        ("numpy", "pandas", "sklearn", "scipy"), description="installed packages whose docstrings are read too"
    )
    library_characters: int = Field(600_000, gt=0, description="at most this much text a library, spread over its modules")
    minimum_characters: int = Field(120, gt=0, description="shorter docstrings say too little to search or train on")
    maximum_characters: int = Field(20_000, gt=0, description="longer documents are cut at a paragraph")
    near_duplicate_jaccard: float = Field(0.9, gt=0, le=1, description="documents this alike (5-word shingles) count as one")
    leakage_jaccard: float = Field(0.8, gt=0, le=1, description="documents this alike stay on one side of a split")
    notes: str = Field("packaged:notes", description="source of the study notes and their questions")
    russian_source: str = Field("packaged:jupyterlab-ru", description="Russian text that tokenizers are compared on: that, or path:DIR")
    domain_source: str = Field("packaged:pydocs", description="text to tune the adapter on: packaged:pydocs or path:DIR")
    domain_prose_share: float = Field(0.7, ge=0, le=1, description="documents with a smaller share of prose lines are left out")
    domain_train_characters: int = Field(300_000, gt=0)
    domain_test_characters: int = Field(60_000, gt=0)
