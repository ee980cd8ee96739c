"""The corpora assets, materialised: on the packaged notes and the standard library, and on a user's own files."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets import corpora
from assets.prompting import prompt_cases
from curriculum.artifacts import DirectoryArtifact
from curriculum.corpora.claims import CLAIM_COLUMNS
from curriculum.corpora.deduplicate import leakage
from curriculum.corpora.documents import COLUMNS
from curriculum.corpora.notes import QUESTION_COLUMNS
from curriculum.errors import DataError, SourceError
from curriculum.tokenization.packing import TokenBlocks
from resources.artifact_store import read_value

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
SMALL = {
    "vocab_size": 300, "block_size": 16, "study_vocab_sizes": [300], "study_characters": 5_000, "study_documents": 8,
    "study_merges": 20,
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Sixty different documents of a user's own."""
    rng, folder = random.Random(0), tmp_path / "own"
    words = ["".join(rng.choices("abcdefghij", k=5)) for _ in range(300)]
    folder.mkdir()
    rows = [json.dumps({"id": f"own-{i}", "text": " ".join(rng.choices(words, k=60))}) for i in range(60)]
    (folder / "docs.jsonl").write_text("\n".join(rows))
    return folder


def materialise(made: dict[str, Any], *names: str) -> dict[str, Any]:
    """The values of ``names`` after a run of them and of all that is upstream."""
    done = dg.materialize(
        [*dg.load_assets_from_modules([corpora]), prompt_cases], resources=made, run_config=QUIET, instance=dg.DagsterInstance.ephemeral(),
        selection=dg.AssetSelection.assets(*names).upstream(),
    )
    assert done.success
    store = made["artifacts"].store()
    return {name: read_value(store.manifest(name), store.path(store.manifest(name))) for name in names}


def test_the_packaged_corpora(resources: Callable[..., dict[str, Any]]) -> None:
    tokenization = {**SMALL, "train_tokens": 20_000, "held_out_tokens": 5_000}
    made = resources(corpora={"libraries": [], "minimum_characters": 250}, tokenization=tokenization)
    names = ["pydocs_corpus", "notes_corpus", "notes_questions", "labelled_claims", "domain_corpus", "tokenized_corpus"]
    values = materialise(made, *names)
    pydocs: pd.DataFrame = values["pydocs_corpus"]
    assert list(pydocs.columns) == list(values["notes_corpus"].columns) == COLUMNS
    assert pydocs["doc_id"].is_unique and pydocs["digest"].is_unique and len(pydocs) > 1_500
    assert {"stdlib/json.dumps", "stdlib/builtins.str.split", "language-reference/assert"} <= set(pydocs["doc_id"])
    assert set(pydocs["kind"]) == {"module", "class", "function", "method", "topic"} and (pydocs["text"].str.len() >= 250).all()
    assert list(values["notes_questions"].columns) == QUESTION_COLUMNS and list(values["labelled_claims"].columns) == CLAIM_COLUMNS
    assert set(values["notes_questions"]["note_id"]) <= set(values["notes_corpus"]["doc_id"])
    domain = values["domain_corpus"].groupby("split")["text"]
    assert 250_000 < domain.sum().str.len()["train"] <= 300_000 and 50_000 < domain.sum().str.len()["test"] <= 60_000
    assert leakage({split: list(texts) for split, texts in domain}) == 0
    packed: DirectoryArtifact = values["tokenized_corpus"]
    assert packed.facts["leaked_documents"] == 0 and TokenBlocks(packed.path, "train").blocks.shape == (1250, 17)


def test_a_users_own_files(resources: Callable[..., dict[str, Any]], own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curriculum.corpora import pydocs

    monkeypatch.setattr(pydocs, "_stdlib", lambda: iter(()))  # the test above reads it; this one is about the other sources
    made = resources(
        corpora={"libraries": [], "domain_source": f"path:{own}", "domain_test_characters": 2_000},
        tokenization={**SMALL, "source": f"path:{own}"},
    )
    values = materialise(made, "domain_corpus", "tokenized_corpus", "tokenizers_study")
    domain = values["domain_corpus"]
    assert domain["doc_id"].str.startswith("own-").all() and set(domain["split"]) == {"train", "test"}
    assert sum(split["documents"] for split in values["tokenized_corpus"].facts["splits"].values()) == 60
    study = values["tokenizers_study"]
    assert study.value("round_trip__bpe") == 1.0 and study.value("merge_agreement__scratch_bpe") == 1.0
    assert "own documents" in set(study.tables["tokenizers"]["corpus"])


def test_bad_sources_are_one_clear_error_and_lose_nothing(resources: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "lines.jsonl").write_text('{"text": "one"}\n{"text": \n')
    made = resources(corpora={"notes": "packaged:notes"})
    before = materialise(made, "notes_corpus")["notes_corpus"]
    for notes, error, message in (
        (f"path:{tmp_path / 'nowhere'}", SourceError, "does not exist; correct the path in the profile"),
        (f"path:{tmp_path / 'bad'}", DataError, "holds no documents"),
        ("packaged:diary", SourceError, "no packaged dataset of that name"),
    ):
        with pytest.raises(error, match=message):
            materialise(resources(corpora={"notes": notes}), "notes_corpus")
    store = made["artifacts"].store()
    manifest = store.manifest("notes_corpus")
    assert read_value(manifest, store.path(manifest)).equals(before)


def test_an_edited_note_is_read_again(resources: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    note = folder / "attention.md"
    for text in ("Attention was quadratic.", "Attention is quadratic."):
        note.write_text(f"---\nid: attention\ntitle: Attention\npart: foundations\n---\n{text}\n")
        table = materialise(resources(corpora={"notes": f"path:{folder}"}), "notes_corpus")["notes_corpus"]
        assert table["text"].tolist() == [text]
