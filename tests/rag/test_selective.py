"""Risk and coverage: a support that knows, one that does not, a threshold chosen on dev, and what the bound costs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge_value
from curriculum.evaluation.statistics import clopper_pearson_upper
from curriculum.rag.selective import NEVER, abstention_study, aurc, choose_threshold, losses, risk_coverage
from curriculum.rag.settings import AbstentionSettings
from curriculum.syllabus import load_syllabus

SETTINGS = AbstentionSettings(target_risk=0.2, resamples=50)
CLAIMS = {bar.metric: bar for bar in load_syllabus().claims if bar.asset == "abstention_study"}


def rows(support: list[float], wrong: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"support": support, "wrong": np.asarray(wrong, dtype=float)})


def answers(n: int, seed: int, knows: bool) -> pd.DataFrame:
    """Half of the drafts wrong; with ``knows`` their support is the lower, else it is by chance. One in ten has no draft."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < 0.5
    support = np.where(wrong if knows else rng.random(n) < 0.5, rng.uniform(0, 0.45, n), rng.uniform(0.55, 1, n))
    draft = np.where(wrong, "Bonn", "Ulm").astype(object)
    draft[::10] = ""
    return pd.DataFrame({"question_id": [f"q{i:03d}" for i in range(n)], "kind": "answerable", "draft": draft, "gold": [["Ulm"]] * n, "support": support})


def test_a_support_that_knows_meets_the_target_and_one_that_does_not_answers_nothing() -> None:
    known, blind = (
        abstention_study(answers(100, 1, knows), answers(100, 2, knows), SETTINGS, verifier_threshold=0.1) for knows in (True, False)
    )
    assert known.value("risk") <= 0.2 < known.value("risk__always") and 0.3 < known.value("coverage") < 0.7
    assert known.value("coverage__always") == 0.9 and known.value("risk__verifier") <= known.value("risk__always")
    assert {judge_value(bar, known).verdict for bar in CLAIMS.values()} == {Verdict.PASSED} and len(CLAIMS) == 3
    assert blind.value("threshold") == NEVER and blind.value("coverage") == 0 and math.isnan(blind.value("risk"))
    assert judge_value(CLAIMS["risk_over_target"], blind).verdict is not Verdict.PASSED
    assert "nothing may be answered" in blind.remarks[1] and "support_threshold" in known.remarks[1]
    gain = known.metric("aurc_gain")
    assert gain is not None and gain.low is not None and gain.low > 0 and abs(blind.value("aurc_gain")) < 0.15


def test_a_wrong_way_round_support_turns_the_claim_red() -> None:
    turned = answers(100, 2, True).assign(support=lambda t: 1 - t["support"])
    result = abstention_study(answers(100, 1, True), turned, SETTINGS, verifier_threshold=0.5)
    assert result.value("aurc_gain") < 0 and judge_value(CLAIMS["aurc_gain"], result).verdict is Verdict.FAILED
    assert result.value("risk") > 0.2 and judge_value(CLAIMS["risk_over_target"], result).verdict is Verdict.FAILED


def test_losses_and_the_curve_by_hand() -> None:
    table = pd.DataFrame(
        {
            "question_id": list("abcd"), "kind": ["answerable", "answerable", "unanswerable", "answerable"],
            "draft": ["Ulm", "Bonn", "Ulm", ""], "gold": [["Ulm"], ["Ulm"], [], ["Ulm"]], "support": [0.9, 0.5, 0.9, 0.0],
        }
    )  # fmt: skip
    found = losses(table)
    assert list(found["wrong"]) == [0, 1, 1, 0] and list(found["support"].isna()) == [False, False, False, True]
    curve = risk_coverage(found)
    assert list(curve["coverage"]) == [0.5, 0.75] and list(curve["risk"]) == pytest.approx([0.5, 2 / 3])
    assert aurc(found) == pytest.approx((0.5 + 0.5 + 2 / 3) / 3)
    with pytest.raises(DataError, match="no dev question got a draft"):
        abstention_study(table[3:], table, SETTINGS, verifier_threshold=0.5)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.booleans()), min_size=1, max_size=60))
def test_what_is_chosen_holds_its_bound_and_nothing_below_was_skipped(drafts: list[tuple[float, bool]]) -> None:
    table = rows([s for s, _ in drafts], [int(w) for _, w in drafts])
    chosen, curve = choose_threshold(table, SETTINGS), risk_coverage(table)
    bounds = [clopper_pearson_upper(int(p.errors), int(p.answered), SETTINGS.level) for p in curve.itertuples()]
    if chosen == NEVER:
        assert clopper_pearson_upper(0, len(drafts), SETTINGS.level) > SETTINGS.target_risk or any(b > SETTINGS.target_risk for b in bounds)
    else:
        assert dict(zip(curve["threshold"], bounds, strict=True))[chosen] <= SETTINGS.target_risk
    assert 0 <= aurc(table) <= 1
