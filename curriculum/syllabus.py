"""The syllabus as typed data: topics, milestones with their bars, and the claims that hold under every profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

PATH = Path(__file__).resolve().parent.parent / "syllabus.yaml"


class Bar(BaseModel):
    """A bound on one metric of one asset, from below, from above, or both. ``blocking`` stops what is downstream.

    ``judged_by`` names the agreement with labels that a model-judged metric needs: until that bar is met, this one neither
    passes nor blocks. ``deep``: a study outside the lineage makes the asset, so that before its first run the bar is not run.
    ``against``: what the value is held against, in words: a reference implementation, a baseline, a formula.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    asset: str
    metric: str
    min: float | None = None
    max: float | None = None
    blocking: bool = True
    topic: str = ""
    milestone: str = ""
    judged_by: Bar | None = None
    deep: bool = False
    against: str = ""

    @model_validator(mode="after")
    def _bounded(self) -> Bar:
        if self.min is None and self.max is None:
            raise ValueError(f"the bar on {self.asset}.{self.metric} has neither min nor max")
        return self

    def text(self) -> str:
        """The bound as people write it."""
        low = f">= {self.min:g}" if self.min is not None else ""
        high = f"<= {self.max:g}" if self.max is not None else ""
        return " and ".join(filter(None, (low, high)))


class Regression(BaseModel):
    """A per-example score of an asset that may not get worse than its accepted baseline by more than ``margin``.

    ``score`` is a column of the asset's per-example table, of the rows where every column of ``only`` has its value. A
    ``deterministic`` score must also be the same in every example (to 1e-3). ``blocking`` as for :class:`Bar`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    asset: str
    score: str
    margin: float = Field(gt=0)
    higher_is_better: bool = True
    deterministic: bool = False
    only: dict[str, str] = Field(default_factory=dict)
    blocking: bool = True

    @property
    def name(self) -> str:
        """The score with what it is of: unique within an asset, and valid in the name of a check."""
        return "__".join([self.score, *self.only.values()]).replace("-", "_")


class Topic(BaseModel):
    """A topic of the plan and what its asset must show."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    title: str
    shows: str
    links: list[str] = Field(default_factory=list)
    about: str = ""


class Part(BaseModel):
    """A part of the plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    title: str
    goal: str
    topics: list[Topic]


class Milestone(BaseModel):
    """A milestone of the twelve weeks: its reference task, and its bars there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weeks: str
    milestone: str
    topics: list[str]
    title: str
    reference: str
    bars: list[Bar]


class Syllabus(BaseModel):
    """The whole plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parts: list[Part]
    roadmap: list[Milestone]
    claims: list[Bar]
    own_corpus: list[Bar] = Field(default_factory=list)
    regressions: list[Regression] = Field(default_factory=list)
    alongside: list[Any] = Field(default_factory=list)

    @model_validator(mode="after")
    def _topics_resolve(self) -> Syllabus:
        known = self.topics()
        named = [t for m in self.roadmap for t in m.topics] + [b.topic for m in self.roadmap for b in m.bars if b.topic]
        named += [c.topic for c in self.claims]
        unknown = sorted({t for t in named if t not in known})
        if unknown:
            raise ValueError(f"the roadmap or the claims name unknown topics: {', '.join(unknown)}")
        return self

    def topics(self) -> dict[str, Topic]:
        """Every topic by its id."""
        return {topic.id: topic for part in self.parts for topic in part.topics}


def load_syllabus(path: Path = PATH) -> Syllabus:
    """Read and validate ``syllabus.yaml``."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time, where PyYAML was built with libyaml
    return Syllabus.model_validate(yaml.load(path.read_text(encoding="utf-8"), Loader=loader))
