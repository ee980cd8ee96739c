"""The setting that a search chose, as a file: what the service searches with, once it is promoted."""

from __future__ import annotations

from pathlib import Path

from curriculum.artifacts import DirectoryArtifact
from curriculum.disk import write_atomically
from curriculum.results import StudyResult
from curriculum.retrieval.passages import PROJECT
from curriculum.search_tuning.settings import SearchSetting

_FILE = "setting.json"


def write_chosen(study: StudyResult, out: Path) -> DirectoryArtifact:
    """Write the setting that ``search_tuning_study`` chose on dev; the facts say over which collection, and what it gained on test."""
    chosen, gain = SearchSetting.model_validate(study.settings["chosen"]), study.metric("test_gain")
    write_atomically(out / _FILE, chosen.model_dump_json(indent=1).encode())
    measured = {"test_gain": gain.value, "test_gain_low": gain.low, "test_gain_high": gain.high} if gain else {}
    return DirectoryArtifact(out, {**chosen.model_dump(mode="json"), "collection": PROJECT, **measured})


def read_chosen(folder: Path) -> SearchSetting:
    """What :func:`write_chosen` wrote."""
    return SearchSetting.model_validate_json((folder / _FILE).read_bytes())
