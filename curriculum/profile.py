"""A profile: one validated object that says which models, data, budgets and bars every asset uses."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from curriculum.errors import UserError
from curriculum.hardware import ComputeSettings
from curriculum.syllabus import Bar

PROFILES = Path(__file__).resolve().parent.parent / "profiles"


class MilestoneSource(BaseModel):
    """Whether this profile runs a milestone on its reference task, and on what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["reference", "stand-in"]
    measured_on: str


_SECTIONS = {
    "corpora": "curriculum.corpora.settings:CorporaSettings",
    "tokenization": "curriculum.tokenization.settings:TokenizationSettings",
    "transformer": "curriculum.transformer.settings:TransformerSettings",
    "reader": "curriculum.reading.settings:ReaderSettings",
    "adapter": "curriculum.adaptation.settings:AdapterSettings",
    "harness": "curriculum.evaluation.settings:HarnessSettings",
    "generator": "curriculum.generation.settings:GeneratorSettings",
    "prompting": "curriculum.prompting.settings:PromptingSettings",
    "retrieval": "curriculum.retrieval.settings:RetrievalSettings",
    "reranker": "curriculum.reranking.settings:RerankerSettings",
    "verifier": "curriculum.grounding.settings:VerifierSettings",
    "rag": "curriculum.rag.settings:RagSettings",
}


class _Base(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str = ""
    seed: int = 0
    compute: ComputeSettings = Field(default_factory=ComputeSettings)
    milestones: dict[str, MilestoneSource] = Field(default_factory=dict)
    floors: list[Bar] = Field(default_factory=list)


def _section(path: str) -> Any:
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)


def _present(path: str) -> bool:
    try:
        return importlib.util.find_spec(path.split(":")[0]) is not None
    except ModuleNotFoundError:
        return False


Profile = create_model(
    "Profile",
    __base__=_Base,
    **{name: (_section(path), Field(default_factory=_section(path))) for name, path in _SECTIONS.items() if _present(path)},
)


def load_profile(name: str, overrides: dict[str, Any] | None = None) -> Any:
    """Read ``profiles/NAME.yaml`` (or a path to a YAML file) and validate it, ``overrides`` merged in section by section.

    Raises:
        UserError: no such profile, YAML that does not parse, or a setting that is unknown or out of range (it is named).
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise UserError(f"unknown profile '{name}': set CURRICULUM_PROFILE to one of {known}, or to the path of a YAML file")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"profile {path} is not valid YAML: {error}") from error
    data = _merge({"name": path.stem, **data}, overrides or {})
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError(f"profile {path} does not validate: {wrong}") from error


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
