"""Profiles and sources: everything validates, and every mistake is one sentence that says what to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from curriculum.errors import SourceError, UserError
from curriculum.profile import PROFILES, load_profile
from curriculum.sources import Source, dataset_folder, identify, model_folder


@pytest.mark.parametrize("name", sorted(p.stem for p in PROFILES.glob("*.yaml")))
def test_every_profile_validates(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name and profile.milestones.keys() >= {"reader", "adapter", "prompts", "hybrid_search", "rag"}


def test_the_three_profiles_are_there() -> None:
    assert {p.stem for p in PROFILES.glob("*.yaml")} >= {"starter", "workstation", "cluster"}


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown profile 'laptop': set CURRICULUM_PROFILE to one of .*starter"):
        load_profile("laptop")


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("reader: {learning_rat: 0.1}\n")
    with pytest.raises(UserError, match=r"reader\.learning_rat: Extra inputs are not permitted"):
        load_profile(str(path))


def test_yaml_that_does_not_parse_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("reader: [")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_profile(str(path))


def test_a_hub_source_must_be_pinned() -> None:
    with pytest.raises(SourceError, match="names no revision: pin it as hub:org/model@COMMIT"):
        Source.parse("hub:org/model")
    assert Source.parse("hub:org/model@abc") == Source("hub", "org/model", "abc")


@pytest.mark.parametrize("uri", ["minilm", "ftp:thing", "packaged:"])
def test_an_unknown_scheme_is_explained(uri: str) -> None:
    with pytest.raises(SourceError, match="write packaged:NAME, path:DIR or hub:ORG/NAME@REVISION"):
        Source.parse(uri)


def test_a_missing_path_names_the_setting_to_change(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist; correct the path in the profile"):
        dataset_folder(f"path:{tmp_path / 'nowhere'}")


def test_a_hub_source_that_cannot_be_had_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be had .* set path:DIR for this model in the profile"):
        model_folder("hub:org/model@0123456789012345678901234567890123456789", tmp_path)


def test_the_packaged_encoder_is_found_and_identified(tmp_path: Path) -> None:
    folder = model_folder("packaged:minilm", tmp_path)
    assert (folder / "model.safetensors").exists()
    identity = identify("packaged:minilm", folder, "model")
    assert len(identity.digest) == 16 and identity.role == "model"


def test_the_digest_of_data_follows_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    before = identify(f"path:{tmp_path}", tmp_path, "dataset").digest
    (tmp_path / "a.jsonl").write_text("{ }")
    assert identify(f"path:{tmp_path}", tmp_path, "dataset").digest != before


def test_files_of_one_name_in_two_folders_both_count(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "text.md").write_text(folder)
    before = identify(f"path:{tmp_path}", tmp_path, "data").digest
    (tmp_path / "a" / "text.md").write_text("changed")
    assert identify(f"path:{tmp_path}", tmp_path, "data").digest != before
