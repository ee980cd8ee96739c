"""Published facts: sources, open cells, and what may be computed beside them; each claim is broken on purpose."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge_value
from curriculum.published.facts import NAMES, Model, load_models
from curriculum.published.study import COMPUTED, family_study
from curriculum.results import Identity, StudyResult
from curriculum.sources import dataset_folder, identify, local_sources
from curriculum.syllabus import load_syllabus
from curriculum.transformer.shapes import PUBLISHED, total_parameters

SOURCE = "packaged:published-facts"
FILE = dataset_folder(SOURCE)


def study(models: list[Model]) -> StudyResult:
    return family_study(models, Identity(role="facts", source=SOURCE))


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return study(load_models(FILE))


def claim(result: StudyResult, metric: str) -> Verdict:
    bar = next(b for b in load_syllabus().claims if b.asset == "model_families" and b.metric == metric)
    return judge_value(bar, result).verdict


def without_source(model: Model) -> Model:
    fact = model.facts["context_tokens"]
    assert fact is not None
    return model.model_copy(update={"facts": model.facts | {"context_tokens": fact.model_copy(update={"source": "hearsay"})}})


def test_every_fact_has_a_source_and_one_without_turns_the_claim_red(result: StudyResult) -> None:
    assert claim(result, "share_sourced") is Verdict.PASSED
    assert (result.tables["facts"]["source"].str.match(r"https://[\w.-]+/\S+")).all()
    models = load_models(FILE)
    broken = study([*models[:-1], without_source(models[-1])])
    assert broken.value("share_sourced") < 1 and claim(broken, "share_sourced") is Verdict.FAILED


def test_closed_weights_have_no_computed_values_and_a_guessed_shape_turns_the_claim_red(result: StudyResult) -> None:
    table = result.tables["families"].set_index("model")
    assert not table["open_weights"]["Gemini 2.5 Pro"] and table.loc["Gemini 2.5 Pro", list(COMPUTED)].isna().all()
    assert claim(result, "closed_with_computed") is Verdict.PASSED and result.value("open_with_computed") == 1.0
    guessed = [m.model_copy(update={"shape": "Mixtral 8x7B"}) if m.topic == "gemini" else m for m in load_models(FILE)]
    assert claim(study(guessed), "closed_with_computed") is Verdict.FAILED


def test_what_is_not_stated_stays_open(result: StudyResult) -> None:
    gemini = next(m for m in load_models(FILE) if m.topic == "gemini")
    assert [name for name in NAMES if gemini.value(name) is None] == ["licence", "parameters", "active_parameters", "layers", "training_tokens"]
    assert result.value("not_stated_by_closed") == 7 and math.isclose(result.value("published_max_difference"), 0.0345, abs_tol=1e-3)


def test_facts_agree_with_the_shapes_they_stand_beside() -> None:
    shapes = {published.name: published for published in PUBLISHED}
    for model in load_models(FILE):
        if model.shape is not None:
            published = shapes[model.shape]
            assert model.value("parameters") == published.parameters and model.value("layers") == published.shape.layers
            assert (model.value("active_parameters") or 0) == published.active
            assert published.shape.positions in {0, model.value("context_tokens")}
            assert abs(total_parameters(published.shape) / model.value("parameters") - 1) < 0.04
    assert {m.topic for m in load_models(FILE)} == {"gpt", "bert", "t5", "mistral", "llama", "gemini"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("    date: null\n", ""), "facts must be exactly"),
        (("open_weights: {value: true", "open_weights: {value: perhaps"), "open_weights must be true or false"),
        (("- model: GPT-3 175B", "- model: GPT-2 XL"), "or one twice"),
        (("  topic: gpt", "  topic: [gpt"), "no table of published facts"),
    ],
)  # fmt: skip
def test_a_file_of_another_form_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = FILE.read_text(encoding="utf-8")
    assert change[0] in text
    (tmp_path / "facts.yaml").write_text(text.replace(*change, 1), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_models(tmp_path / "facts.yaml")


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="names the shape 'Gemini 2'"):
        study([load_models(FILE)[-1].model_copy(update={"shape": "Gemini 2"})])


def test_an_edited_file_is_another_input() -> None:
    assert local_sources({"source": SOURCE}) == {SOURCE} and len(identify(SOURCE, FILE, "facts").digest) == 16
