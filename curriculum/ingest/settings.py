"""Which folder is taken, and what of it is too much."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator


class CorpusSettings(BaseModel):
    """A folder of the user's own documents. How they are cut, encoded and searched is the section ``retrieval``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field("", description="the folder, DIR or path:DIR; empty: there is no corpus, and none of its assets")
    text_field: str = Field("text", min_length=1, description="where a row of JSONL, CSV or Parquet has its text")
    title_field: str = Field("title", min_length=1, description="where it has its title, if it has one")
    id_field: str = Field("", description="where it has its id; empty: doc_id, _id or id, and without one the row's number")
    max_broken: int = Field(100, ge=0, description="files and rows that may be broken: they are listed and left out; one more is an error")
    max_file_mb: int = Field(64, gt=0, description="a larger file is not read; rows of JSONL, CSV and Parquet are read one by one, however many")
    max_unpacked_mb: int = Field(256, gt=0, description="a compressed file that holds more is not unpacked")
    max_characters: int = Field(2_000_000, gt=0, description="a document with more text is left out")
    max_pages: int = Field(5_000, gt=0, description="a PDF with more pages is left out")

    @field_validator("path")
    @classmethod
    def _source(cls, path: str) -> str:
        """As a source, so that its files count wherever a profile's files do: for reuse, and for the sensor on changed files."""
        scheme, colon, _ = path.partition(":")
        if colon and scheme in {"hub", "packaged", "promoted"}:
            raise ValueError("a corpus is a folder: write DIR or path:DIR")
        return path if not path or path.startswith("path:") else f"path:{path}"

    @property
    def name(self) -> str:
        """What the collection is called: the folder's own name."""
        return Path(self.path.removeprefix("path:")).expanduser().absolute().resolve().name
