"""The data file of published facts: read and checked for form. Whether each has a source is for the study to measure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from curriculum.errors import DataError

NAMES = ("organisation", "open_weights", "licence", "date", "parameters", "active_parameters", "layers", "context_tokens", "training_tokens")
Value = bool | int | float | str


class Fact(BaseModel):
    """One statement: what is stated, and the address where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: Value
    source: str = ""
    note: str = ""

    @property
    def sourced(self) -> bool:
        """Whether an address is given that can be opened."""
        return self.source.startswith("https://")


class Benchmark(Fact):
    """The maker's own score, in percent unless the note says otherwise."""

    name: str


class Model(BaseModel):
    """A model's facts by name; every name of ``NAMES`` stands, with null where nothing is stated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    topic: str
    shape: str | None
    facts: dict[str, Fact | None]
    benchmarks: list[Benchmark]

    @model_validator(mode="after")
    def _complete(self) -> Model:
        if set(self.facts) != set(NAMES):
            raise ValueError(f"{self.model}: facts must be exactly {', '.join(NAMES)}, with null where nothing is stated")
        if self.facts["open_weights"] is None or not isinstance(self.facts["open_weights"].value, bool):
            raise ValueError(f"{self.model}: open_weights must be true or false, with its source")
        return self

    @property
    def open_weights(self) -> bool:
        fact = self.facts["open_weights"]
        return fact is not None and fact.value is True

    def value(self, name: str) -> Any:
        """The value of a fact; None where it is not stated."""
        fact = self.facts[name]
        return None if fact is None else fact.value

    def stated(self) -> Iterator[tuple[str, Fact]]:
        """Every stated fact with its name, the benchmarks among them."""
        yield from ((name, fact) for name, fact in self.facts.items() if fact is not None)
        yield from ((benchmark.name, benchmark) for benchmark in self.benchmarks)


def load_models(path: Path) -> list[Model]:
    """The models of the data file.

    Raises:
        DataError: YAML that does not parse, a model that breaks the form, or a name that stands twice.
    """
    try:
        models = [Model.model_validate(entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8")) or []]
    except (yaml.YAMLError, ValidationError) as error:
        raise DataError(f"{path} is no table of published facts: {error}") from error
    names = [model.model for model in models]
    if not names or len(set(names)) < len(names):
        raise DataError(f"{path} holds no model, or one twice")
    return models
