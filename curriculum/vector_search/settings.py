"""Settings of the vector indexes (section ``vector_search``): how they are built, how one is chosen, at which sizes they are studied."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class VectorSearchSettings(BaseModel):
    """The defaults of the study are about five minutes on one thread, most of it the building of the graphs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scan_ms: float = Field(20.0, gt=0, description="a flat index is chosen while reading it once takes no longer than this")
    scan_gb_s: float = Field(10.0, gt=0, description="assumed bandwidth of the scan; the study measures it")
    memory_gb: float = Field(2.0, gt=0, description="what the vectors and their graph may take; beyond it they become codes")
    links: int = Field(32, ge=2, description="HNSW: links of a vector on the upper layers; the bottom layer has twice as many")
    ef_construction: int = Field(200, ge=8, description="HNSW: candidates kept while a vector is linked")
    ef_search: int = Field(128, ge=1, description="HNSW: candidates kept while a query walks")
    code_bytes: int = Field(48, ge=1, description="IVF-PQ: bytes of a code, at most; it must divide the dimension")
    cells_factor: float = Field(4.0, gt=0, description="IVF-PQ: cells are this times the root of the number of vectors")
    probes: int = Field(32, ge=1, description="IVF-PQ: cells a query scans")
    rescored: int = Field(100, ge=1, description="IVF-PQ: candidates whose inner products are computed again from the vectors")

    k: int = Field(10, ge=10, description="neighbours asked for")
    sizes: tuple[int, ...] = Field((2000, 5000, 12000, 25000, 50000), min_length=3, description="vectors; beyond the passages they are synthetic")
    jitter: float = Field(0.5, gt=0, description="share of the difference of two random passages that is added to a third")
    queries: int = Field(200, ge=10, description="questions asked of every index, at most, by hash")
    repeats: int = Field(3, ge=1, description="passes over the queries; a query's time is its least")
    ef_sweep: tuple[int, ...] = Field((16, 32, 64, 128, 256), min_length=2)
    probe_sweep: tuple[int, ...] = Field((1, 4, 16, 32, 64), min_length=2)

    @model_validator(mode="after")
    def _possible(self) -> VectorSearchSettings:
        if list(self.sizes) != sorted(set(self.sizes)) or self.sizes[0] < 256:
            raise ValueError(f"vector_search.sizes must rise, from 256 or more (a codebook has 256 entries); they are {self.sizes}")
        if self.rescored < self.k:
            raise ValueError(f"vector_search.rescored ({self.rescored}) must be k ({self.k}) or more: fewer candidates than answers")
        return self
