"""The threshold of an abstention study as a file that names what it was calibrated for: below it the service abstains, once it is promoted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from curriculum.artifacts import DirectoryArtifact
from curriculum.disk import write_atomically
from curriculum.rag.settings import RagSettings

if TYPE_CHECKING:
    from curriculum.results import StudyResult

_FILE = "threshold.json"
PARTS = ("promoted_index", "promoted_reranker", "promoted_verifier")  # and the reader, where it answers


class Calibrated(BaseModel):
    """What an abstention study chose, for which risk, and what answered its questions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float | None = Field(ge=0, description="support from which an answer is given out; null: none keeps the risk")
    target_risk: float = Field(gt=0, lt=1, description="wrong answers among those given, at most")
    level: float = Field(gt=0, lt=1, description="confidence of the bound on dev by which the threshold was chosen")
    calibrated_for: dict[str, str] = Field(description="what answered: promoted versions, and the settings that decide on the answer")


def answered_by(rag: RagSettings, versions: Mapping[str, str], generator: Callable[[], str], search: str = "profile") -> dict[str, str]:
    """What the support of an answer depends on: of ``versions`` (by asset) those that answer under ``rag``, and its settings.

    ``generator`` is asked, where one answers, for its model, a promoted one with its version; ``search`` is the promoted search settings
    in force.
    """
    names = [*PARTS, "promoted_reader"] if rag.answerer == "reader" else PARTS
    written = {} if rag.answerer == "reader" else {"generator": generator(), "max_new_tokens": rag.max_new_tokens, "passage_words": rag.passage_words}
    settings = {"collection": rag.collection, "answerer": rag.answerer, "contexts": rag.contexts, "depth": rag.depth, **written, "search": search}
    return {name: versions[name] for name in names if name in versions} | {name: str(value) for name, value in settings.items()}


def unlike(calibrated_for: Mapping[str, str], served: Mapping[str, str]) -> str:
    """Why a threshold calibrated for the one is not for the other (:func:`answered_by`), in words; "" where it is."""
    for name in sorted(calibrated_for.keys() | served.keys()):
        before, now = calibrated_for.get(name, "none"), served.get(name, "none")
        if before != now:
            return f"it was calibrated for {name} {before}, and the service has {now}; run `curriculum run --job rag` to calibrate it anew"
    return ""


def write_calibrated(study: StudyResult, out: Path) -> DirectoryArtifact:
    """Write what ``abstention_study`` chose; the facts say too what it came to on test."""
    chosen, settings = study.value("threshold"), study.settings
    made = Calibrated(
        threshold=chosen if math.isfinite(chosen) else None, target_risk=settings["target_risk"], level=settings["level"],
        calibrated_for=settings["calibrated_for"],
    )  # fmt: skip
    write_atomically(out / _FILE, made.model_dump_json(indent=1).encode())
    measured = {m.name: m.value for m in study.metrics if m.name in {"risk", "coverage", "answer_f1"} and math.isfinite(m.value)}
    return DirectoryArtifact(out, {**made.model_dump(mode="json"), **measured})


def read_calibrated(folder: Path) -> Calibrated:
    """What :func:`write_calibrated` wrote."""
    return Calibrated.model_validate_json((folder / _FILE).read_bytes())
