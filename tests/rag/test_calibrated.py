"""The chosen threshold is promoted where it is finite and keeps the risk on test; a refusal says why, and fails no run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
import pytest

from assets.lineage import Lab, lineage_asset
from assets.rag import abstention_threshold
from curriculum.errors import DataError
from curriculum.profile import load_profile
from curriculum.rag.calibrated import answered_by, read_calibrated, unlike
from curriculum.rag.selective import calibration_questions
from curriculum.rag.settings import RagSettings
from curriculum.storage import ArtifactStore
from curriculum.syllabus import load_syllabus
from pipelines.guardrails import bar_checks
from pipelines.promotions import promotions
from resources.build import build_resources

if TYPE_CHECKING:
    from curriculum.results import StudyResult

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
SYLLABUS, PROFILE = load_syllabus(), load_profile("starter")
NEVER = math.inf
state: dict[str, Any] = {}


@lineage_asset(group="test")
def promoted_verifier(lab: Lab) -> pd.DataFrame:
    """What the study read."""
    import pandas as pd

    return pd.DataFrame({"name": ["verifier"]})


@lineage_asset(group="test", name="abstention_study")
def study(lab: Lab, promoted_verifier: pd.DataFrame) -> StudyResult:
    """The real study on answers whose support is worth what the test says, calibrated for the inputs that it has."""
    import numpy as np
    import pandas as pd

    from curriculum.rag.calibrated import answered_by
    from curriculum.rag.selective import abstention_study
    from curriculum.rag.settings import AbstentionSettings

    def answers(seed: int, wrong_above: float) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        support = rng.random(100)
        wrong = (support < 0.5) | (rng.random(100) < wrong_above)
        draft = np.where(wrong, "Bonn", "Ulm")
        ids = [f"q{i:03d}" for i in range(100)]
        return pd.DataFrame({"question_id": ids, "kind": "answerable", "draft": draft, "gold": [["Ulm"]] * 100, "support": support})

    return abstention_study(
        answers(1, state["dev"]), answers(2, state["test"]), AbstentionSettings(resamples=50), verifier_threshold=0.5,
        calibrated_for=answered_by(lab.profile.rag, lab.versions, lambda: "written"),
    )  # fmt: skip


CHECKS = [c for c in bar_checks(SYLLABUS, PROFILE) if all(key.asset_key.path == ["abstention_study"] for key in c.check_keys)]
(PROMOTED,) = (p for p in promotions(SYLLABUS, PROFILE) if p.key.path == ["promoted_abstention"])


def run(folder: Path, instance: dg.DagsterInstance, *, dev: float, test: float) -> Any:
    """One run in which these shares of the answers with support are wrong all the same."""
    state.update(dev=dev, test=test)
    return dg.materialize(
        [promoted_verifier, study, *CHECKS, abstention_threshold, PROMOTED], resources=build_resources("starter", folder, journal=False, fresh=True),
        instance=instance, run_config=QUIET, raise_on_error=False,
    )  # fmt: skip


def warnings(instance: dg.DagsterInstance, result: Any) -> list[str]:
    return [entry.user_message for entry in instance.all_logs(result.run_id) if "refused" in entry.user_message]


def test_a_threshold_that_keeps_the_risk_is_promoted_with_what_it_was_calibrated_for(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts" / "starter"))
    with dg.DagsterInstance.ephemeral() as instance:
        done = run(tmp_path, instance, dev=0.0, test=0.0)
        assert done.success and len(CHECKS) == 3 and all(e.passed for e in done.get_asset_check_evaluations())
    kept, verifier = store.manifest("promoted_abstention"), store.manifest("promoted_verifier")
    assert kept is not None and verifier is not None
    made = read_calibrated(store.path(kept))
    assert made.threshold is not None and 0 < made.threshold < 0.6 and made.target_risk == 0.2
    assert made.calibrated_for["promoted_verifier"] == verifier.version and made.calibrated_for["answerer"] == "generator"
    assert kept.facts["threshold"] == made.threshold and kept.facts["risk"] <= 0.2 and kept.facts["coverage"] > 0.3
    assert kept.facts["gate"] == ["claim_abstention_study_threshold", "claim_abstention_study_risk_over_target"]


@pytest.mark.parametrize(
    ("dev", "test", "said"),
    [(0.6, 0.6, "abstention_study.threshold is inf, which no bar accepts"), (0.0, 0.6, "abstention_study.risk_over_target = 0.")],
)
def test_an_infinite_and_a_risky_threshold_are_refused_and_the_run_goes_on(tmp_path: Path, dev: float, test: float, said: str) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts" / "starter"))
    with dg.DagsterInstance.ephemeral() as instance:
        refused = run(tmp_path, instance, dev=dev, test=test)
        (line,) = warnings(instance, refused)
        assert refused.success and line.startswith("'promoted_abstention' refused") and said in line
        assert {e.asset_key.path[-1] for e in refused.get_asset_materialization_events()} == {
            "promoted_verifier", "abstention_study", "abstention_threshold",
        }  # fmt: skip
        assert store.manifest("promoted_abstention") is None
        candidate = store.manifest("abstention_threshold")
        assert candidate is not None and (read_calibrated(store.path(candidate)).threshold is None) == (dev > 0)

        assert run(tmp_path, instance, dev=0.0, test=0.0).success
        kept = store.manifest("promoted_abstention")
        assert kept is not None and run(tmp_path, instance, dev=dev, test=test).success
        assert store.manifest("promoted_abstention") == kept


def test_what_answers_is_compared_part_by_part() -> None:
    versions = {"promoted_index": "i", "promoted_reader": "r", "promoted_verifier": "v", "promoted_reranker": "k", "passages": "p"}
    read = answered_by(RagSettings(), versions, lambda: pytest.fail("a reader answers, and the generator was asked for"))
    written = answered_by(RagSettings(answerer="generator"), versions, lambda: "written")
    assert "passages" not in read and read["promoted_reader"] == "r" and "promoted_reader" not in written and written["generator"] == "written"
    assert unlike(read, dict(read)) == "" and "promoted_reader r, and the service has s" in unlike(read, {**read, "promoted_reader": "s"})
    assert "answerer reader, and the service has generator" in unlike(read, written)
    for name in read:  # nothing is left out of the comparison
        assert f"calibrated for {name} " in unlike(read, {**read, name: "other"})
        assert f"calibrated for {name} none" in unlike({k: v for k, v in read.items() if k != name}, read)


def test_without_dev_questions_those_that_were_not_asked_stand_for_them() -> None:
    rag = RagSettings(max_questions=2)
    table = pd.DataFrame({"question_id": list("abcd"), "split": ["test"] * 4})
    rest, asked = calibration_questions(table, ["a", "c"], rag, 9)
    assert list(rest["question_id"]) == ["b", "d"] and (asked.split, asked.max_questions) == ("test", 9)
    with_dev = pd.concat([table, pd.DataFrame({"question_id": ["e"], "split": ["dev"]})])
    rest, asked = calibration_questions(with_dev, ["a", "c"], rag, 9)
    assert list(rest["question_id"]) == ["e"] and asked.split == "dev"
    with pytest.raises(DataError, match="has no questions but those that rag_answers asked"):
        calibration_questions(table, list("abcd"), rag, 9)
