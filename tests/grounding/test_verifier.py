"""The verifier: trained, calibrated on dev claims, saved, and held against labels with its baselines beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curriculum.crossencoder.model import CrossEncoder
from curriculum.errors import DataError, SourceError
from curriculum.grounding.calibration import bootstrap, calibrate
from curriculum.grounding.controls import KINDS, with_controls
from curriculum.grounding.settings import VerifierSettings
from curriculum.grounding.similarity import containment, cosine
from curriculum.grounding.training import train_verifier
from curriculum.grounding.verifier import Calibration, SupportVerifier, best_threshold, failed_checks, fit_calibration
from tests.crossencoder.tiny import tiny_bert

torch.set_num_threads(1)
SETTINGS = VerifierSettings(
    max_length=64, steps=30, batch_size=6, window_words=20, learning_rate=2e-3, head_learning_rate=2e-3, bootstrap_resamples=100
)
CITIES = ["london", "paris", "rome", "berlin", "madrid", "vienna", "oslo", "athens"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"), [*CITIES, *"the city of was built by a river and it is red blue green".split()])


def qa_examples() -> pd.DataFrame:
    rows = []
    for i, city in enumerate(CITIES):
        context = f"The city of {city.title()} was built by a river in {1000 + i}. It is red and not blue, and it was never green at all."
        rows.append(
            {"context": context, "question": "Which city was built?", "answers": [city.title()], "answer_starts": [12], "split": "train"}
        )
    return pd.DataFrame(rows)


def claims() -> pd.DataFrame:
    rows = []
    for i, city in enumerate(CITIES):
        passage = f"The city of {city.title()} was built by a river in {1000 + i}. It is red."
        split = "dev" if i % 2 else "test"
        note = {"note_id": city, "passage": passage, "why": "", "split": split}
        rows.append({**note, "claim_id": f"{city}-1", "claim": f"By a river stands {city.title()}.", "supported": True, "kind": "verbatim-paraphrase"})
        rows.append({**note, "claim_id": f"{city}-2", "claim": f"It was built in {1200 + i}.", "supported": False, "kind": "swapped-number"})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def trained(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> SupportVerifier:
    folder = tmp_path_factory.mktemp("verifier")
    lines: list[str] = []
    artifact = train_verifier(
        qa_examples(), claims(), SETTINGS, model=bert, out=folder / "out", checkpoints=folder / "ck", progress=lines.append
    )
    assert artifact.facts["calibration_claims"] == 16 and "step 30/30" in lines[-1]
    return SupportVerifier.load(artifact.path)


def test_support_is_a_probability_and_a_missing_number_lowers_it(trained: SupportVerifier) -> None:
    passage = "The city of Rome was built by a river in 1002. It is red."
    pairs = [(passage, "It was built in 1002."), (passage, "It was built in 1203."), ("", "Anything.")]
    support = trained.support(pairs)
    assert support.shape == (3,) and ((support >= 0) & (support <= 1)).all()
    assert trained.calibration.numbers < 0  # fitted: in the dev claims a missing number means unsupported
    same_logit = trained.calibration.support(np.zeros(2), np.array([[0.0, 0.0], [1.0, 0.0]]))
    assert same_logit[1] < same_logit[0]
    assert trained.support([]).shape == (0,)


def test_the_best_window_of_a_long_passage_counts(bert: Path) -> None:
    verifier = SupportVerifier(CrossEncoder.start(bert, max_length=64, seed=3), window_words=6)
    parts = ["It is red and green.", "The river was built by it.", "London is a blue city."]
    together = verifier.logits([(" ".join(parts), "It is red.")])[0]
    assert together == pytest.approx(max(verifier.logits([(part, "It is red.") for part in parts])), abs=1e-4)


def test_calibration_is_sent_along_with_the_model(trained: SupportVerifier, tmp_path: Path) -> None:
    pairs = list(zip(claims()["passage"], claims()["claim"], strict=True))
    trained.save(tmp_path)
    again = SupportVerifier.load(tmp_path)
    assert again.calibration == trained.calibration and again.window_words == trained.window_words
    np.testing.assert_allclose(again.support(pairs), trained.support(pairs), atol=1e-6)
    with pytest.raises(SourceError):
        SupportVerifier.load(tmp_path / "nothing")


def test_fitted_calibration_holds_its_signs() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.5
    logits = labels * 2.0 - 1 + rng.normal(size=200)
    missing = (~labels & (rng.random(200) < 0.4)).astype(float)
    failed = np.stack([missing, labels], axis=1)  # the second check fails where the claim is supported: a wrong sign
    fitted = fit_calibration(logits, failed, labels)
    assert fitted.slope > 0 and fitted.numbers < 0 and fitted.scope == 0.0 and 0 < fitted.threshold < 1
    upside_down = fit_calibration(-logits, failed, labels)
    assert upside_down.slope == 0.0 and upside_down.numbers < 0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40))
def test_best_threshold_is_not_beaten(scored: list[tuple[float, bool]]) -> None:
    scores, labels = np.array([s for s, _ in scored]), np.array([label for _, label in scored])
    if labels.all() or not labels.any():
        return

    def balanced(cut: float) -> float:
        return float((np.mean(scores[labels] >= cut) + np.mean(scores[~labels] < cut)) / 2)

    assert balanced(best_threshold(scores, labels)) >= max(balanced(cut) for cut in [*scores, 2.0]) - 1e-9 or len(set(scores)) == 1


def test_controls_undo_the_cue_of_overlap() -> None:
    controlled = with_controls(claims())
    added = controlled[controlled["kind"].isin(KINDS)]
    assert len(added) == len(claims()) and controlled["claim_id"].is_unique
    for row in added.itertuples():
        assert (row.claim in row.passage) == row.supported


def test_calibration_report(trained: SupportVerifier, bert: Path) -> None:
    result = calibrate(trained, claims(), SETTINGS, encoder=bert)
    for name in ("auc", "balanced_accuracy", "kappa", "auc__cosine", "auc__containment", "auc_controlled", "threshold", "brier"):
        metric = result.metric(name)
        assert metric is not None and np.isfinite(metric.value), name
    auc = result.metric("auc")
    assert auc is not None and auc.n == 8 and auc.low is not None and auc.low <= auc.value <= auc.high
    assert result.value("auc__numbers") == 1.0  # every unsupported claim of this fixture has a changed number
    assert result.per_example["example_id"].is_unique and len(result.tables["reliability"]) == 5
    assert set(result.tables["per_kind"]["kind"]) == {"verbatim-paraphrase", "swapped-number", *KINDS}
    assert result.plots["reliability"].startswith(b"\x89PNG")


def test_a_verifier_that_knows_nothing_is_not_called_good(bert: Path) -> None:
    blind = SupportVerifier(CrossEncoder.start(bert, max_length=64, seed=0), window_words=20, calibration=Calibration(slope=0.0, numbers=0.0, scope=0.0))
    result = calibrate(blind, claims(), SETTINGS, encoder=bert)
    assert result.value("auc") == 0.5 and result.value("kappa") == 0.0
    assert any("not shown to be above chance" in remark for remark in result.remarks)


def test_bad_claims_and_examples_are_named(trained: SupportVerifier, bert: Path, tmp_path: Path) -> None:
    one_sided = claims().assign(supported=True)
    with pytest.raises(DataError, match="split 'dev'"):
        calibrate(trained, one_sided, SETTINGS, encoder=bert)
    for examples, labelled, message in ((qa_examples().assign(split="test"), claims(), "qa_dataset"), (qa_examples(), one_sided, "labelled_claims")):
        with pytest.raises(DataError, match=message):
            train_verifier(
                examples, labelled, SETTINGS.model_copy(update={"steps": 1}), model=bert, out=tmp_path, checkpoints=tmp_path, progress=print
            )


def test_baselines(bert: Path) -> None:
    pairs = [("It is red.", "It is red."), ("It is red.", "london paris"), ("It is red.", "")]
    np.testing.assert_allclose(containment(pairs), [1.0, 0.0, 0.0])
    similar = cosine(pairs[:2], bert)
    assert similar[0] == pytest.approx(1.0, abs=1e-5) and similar[1] < similar[0]


def test_failed_checks() -> None:
    pairs = [("7 of them", "seven"), ("7 of them", "eight"), ("7 of them", "all seven"), ("All 7 of them", "always eight, all red")]
    assert failed_checks(pairs).tolist() == [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    assert failed_checks([]).shape == (0, 2)


def test_bootstrap_interval_narrows_with_more_claims() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2 == 0
    scores = labels + rng.normal(size=400)

    def mean_difference(y: np.ndarray, s: np.ndarray) -> float:
        return float(s[y].mean() - s[~y].mean())

    wide = bootstrap(mean_difference, labels[:40], scores[:40], resamples=200)
    narrow = bootstrap(mean_difference, labels, scores, resamples=200)
    assert narrow[0] < mean_difference(labels, scores) < narrow[1]
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
