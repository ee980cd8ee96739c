"""Values made of files: a model or an index is a directory, plus what a reader must know about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DirectoryArtifact:
    """A directory of files (safetensors, faiss, Lucene, JSON), with facts about it that fit in JSON."""

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelArtifact(DirectoryArtifact):
    """A model: weights in safetensors, configuration in JSON, tokenizer files beside them."""


@dataclass(frozen=True)
class IndexArtifact(DirectoryArtifact):
    """A search index: a Lucene or faiss index a collection, each with the ids of what it holds."""
