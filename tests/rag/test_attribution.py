"""Wrong answers get the source that they were given on purpose, and the reruns say what would repair them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch

from curriculum.cells import Cells
from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge_value
from curriculum.grounding.verifier import SupportVerifier
from curriculum.rag.answerers import Draft, ReaderAnswerer
from curriculum.rag.attribution import attribution_study
from curriculum.rag.sources import RIGHT, SOURCES, attribute, is_right
from curriculum.results import StudyResult
from curriculum.syllabus import load_syllabus
from tests.rag.test_rag import SETTINGS, Extractor, passages, run, verifier  # noqa: F401 - a fixture

torch.set_num_threads(1)


class Memory:
    """Answers every question from memory, whatever it is shown, but for one city, which it reads."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.reader = ReaderAnswerer(Extractor())

    def answer(self, questions: Sequence[str], contexts: Sequence[Sequence[str]]) -> list[Draft]:
        self.asked += [(question, len(context)) for question, context in zip(questions, contexts, strict=True)]
        read = self.reader.answer(questions, contexts)
        return [draft if "Arden" in question else Draft("Gondolin", "", 0.1) for question, draft in zip(questions, read, strict=True)]


def study(answers: pd.DataFrame, verifier: SupportVerifier, cells: Path, answerer: object) -> StudyResult:  # noqa: F811
    return attribution_study(answers, passages(), verifier, answerer, SETTINGS, cells=Cells(cells))  # type: ignore[arg-type]


def test_the_rule_asks_in_order() -> None:
    asked = {"gold": ["Ulm"], "shown": True, "grounded": True}
    assert attribute("answerable", "", **asked) == "abstained" and attribute("answerable", "Ulm", **asked) == "right"
    assert attribute("false_premise", "Ulm", **asked) == "over_confidence"
    assert attribute("answerable", "Bonn", **{**asked, "shown": False}) == "retrieval_miss"
    assert attribute("answerable", "Bonn", **asked) == "context_ignored"
    assert attribute("answerable", "Ulm", **{**asked, "grounded": False}) == "unsupported_addition"
    assert attribute("answerable", "Ulm", **{**asked, "shown": False}) == "right"
    assert is_right("It stands in Ulm, on the Danube.", ["Ulm"]) and not is_right("Ulmer Weg", ["Ulm"]) and not is_right("", ["Ulm"])


def test_each_source_is_found_and_the_reruns_say_what_repairs_it(verifier: SupportVerifier, tmp_path: Path) -> None:  # noqa: F811
    answers = run(verifier, Memory(), withhold=False)
    lost = answers["question"].str.contains("capital")
    answers["contexts"] = [["Elstow#5"] if miss else shown for miss, shown in zip(lost, answers["contexts"], strict=True)]
    answers.loc[lost, "draft"] = "Gondolin"
    memory = Memory()
    result = study(answers, verifier, tmp_path, memory)
    counts = result.per_example["source"].value_counts().to_dict()
    assert counts == {"right": 5, "retrieval_miss": 5, "context_ignored": 20, "over_confidence": 10}
    assert result.value("wrong_drafts") == pytest.approx(35 / 40) and result.value("share__retrieval_miss") == pytest.approx(5 / 35)
    assert result.value("gold_right__retrieval_miss") == pytest.approx(1 / 5)  # Arden's, which is read
    assert (result.value("gold_right__context_ignored"), result.value("memory__context_ignored")) == (0.0, 1.0)
    assert len(memory.asked) == 50 and {shown for _, shown in memory.asked} == {0, 2}
    assert study(answers, verifier, tmp_path, Memory()).tables["wrong"].equals(result.tables["wrong"])
    kept = Memory()
    study(answers, verifier, tmp_path, kept)
    assert kept.asked == []  # every rerun is kept


def test_passages_that_are_not_where_they_should_be_are_seen_in_the_planted_errors(
    verifier: SupportVerifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    answers = run(verifier, ReaderAnswerer(Extractor()))
    monkeypatch.setattr("curriculum.rag.attribution.reference_ids", lambda rows, passages: [["Arden#0"] if len(g) else [] for g in rows["gold"]])
    lost = study(answers, verifier, tmp_path, Memory())  # every gold answer is taken to stand in one passage
    assert lost.value("recovered__retrieval_miss") < 0.9 and lost.value("share__retrieval_miss") == 0


def test_planted_errors_get_their_label_unless_the_verifier_is_blind(
    verifier: SupportVerifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    answers = run(verifier, ReaderAnswerer(Extractor()))
    claims = {bar.metric: bar for bar in load_syllabus().claims if bar.asset == "attribution_study"}
    assert set(claims) == {f"recovered__{source}" for source in (*SOURCES, RIGHT)}
    good = study(answers, verifier, tmp_path, Memory())
    assert {judge_value(bar, good).verdict for bar in claims.values()} == {Verdict.PASSED}
    assert good.value("wrong_drafts") == pytest.approx(0.25)  # drafts to questions without an answer: they were withheld
    counts = good.tables["planted"]["planted"].value_counts().to_dict()
    assert counts == {RIGHT: 30, "retrieval_miss": 30, "context_ignored": 30, "unsupported_addition": 30, "over_confidence": 10}
    for verdict, missed, remark in ((torch.ones, "unsupported_addition", "overlooks most additions"), (torch.zeros, RIGHT, "supports few right answers")):
        monkeypatch.setattr(type(verifier), "support", lambda self, pairs, verdict=verdict: verdict(len(pairs)).numpy())
        blind = study(answers, verifier, tmp_path, Memory())
        assert judge_value(claims[f"recovered__{missed}"], blind).verdict is Verdict.FAILED
        assert blind.value(f"recovered__{missed}") == 0.0 and any(remark in said for said in blind.remarks)
    with pytest.raises(DataError, match="nothing to attribute"):
        study(answers.head(0), verifier, tmp_path, Memory())
