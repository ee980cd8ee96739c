"""Budgets and sources of the corpora."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class CorporaSettings(BaseModel):
    """What text is collected. The defaults are the starter profile's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    libraries: tuple[str, ...] = Field(
        ("numpy", "pandas", "sklearn", "scipy"), description="installed packages whose docstrings are read beside the standard library's"
    )
    library_characters: int = Field(700_000, gt=0, description="at most this many characters of docstrings a library")
    minimum_characters: int = Field(120, gt=0, description="shorter docstrings say too little to search or train on")
    maximum_characters: int = Field(20_000, gt=0, description="longer documents are cut at a paragraph")
    near_duplicate_jaccard: float = Field(0.85, gt=0, le=1, description="documents at least this alike (5-word shingles) count as one")
    notes: str = Field("packaged:notes", description="source of the study notes and their questions")
    domain_source: str = Field("packaged:pydocs", description="text the adapter is tuned on: packaged:pydocs, or path: a folder or file")
    domain_train_characters: int = Field(300_000, gt=0)
    domain_test_characters: int = Field(60_000, gt=0)
