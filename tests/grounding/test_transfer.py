"""Claims of another making: every layout read, the AUC's interval over passages, and a verifier that has it the wrong way round."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from curriculum.cells import Cells
from curriculum.crossencoder.model import CrossEncoder
from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge_value
from curriculum.grounding.claim_sets import COLUMNS, read_claims
from curriculum.grounding.settings import VerifierSettings
from curriculum.grounding.transfer import auc_interval, made_claims, name_of, named_sets, verifier_transfer_study
from curriculum.grounding.transfer_settings import TransferSettings
from curriculum.grounding.verifier import Calibration, SupportVerifier
from curriculum.results import StudyResult
from curriculum.syllabus import load_syllabus
from tests.crossencoder.tiny import tiny_bert

torch.set_num_threads(1)
SETTINGS = TransferSettings(rows=40, resamples=50)


def numbered(right: bool = True) -> pd.DataFrame:
    """Claims whose number is the passage's where they are supported; with ``right`` false the labels are the wrong way round."""
    rows = [(f"The tower number {i} was built in {1800 + i}.", f"It was built in {1800 + i + wrong}.", wrong == 0, "number")
            for i in range(12) for wrong in (0, 50)]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS).assign(supported=lambda t: t["supported"] == right)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"), "the tower number was built in it".split())


@pytest.fixture(scope="module")
def verifier(folder: Path) -> SupportVerifier:
    """It goes by the numbers alone."""
    encoder = CrossEncoder.start(folder, max_length=32, seed=0)
    return SupportVerifier(encoder, window_words=20, calibration=Calibration(slope=0.0, numbers=-2.0, scope=0.0, intercept=1.0))


def study(verifier: SupportVerifier, folder: Path, cells: Path, sets: dict[str, pd.DataFrame], lines: list[str] | None = None) -> StudyResult:
    return verifier_transfer_study(
        verifier, sets, SETTINGS, encoder=folder, encoder_name="tiny", version="v1", cells=Cells(cells, ([] if lines is None else lines).append)
    )


def test_labels_the_wrong_way_round_turn_the_claim_red(verifier: SupportVerifier, folder: Path, tmp_path: Path) -> None:
    claim = next(bar for bar in load_syllabus().claims if bar.asset == "verifier_transfer_study")
    right = study(verifier, folder, tmp_path, {"made": numbered(), "other": numbered()})
    wrong = study(verifier, folder, tmp_path, {"made": numbered(right=False)})
    assert (right.value("auc__made"), wrong.value("auc__made")) == (1.0, 0.0)
    assert (right.value("balanced_accuracy__other"), wrong.value("balanced_accuracy__made")) == (1.0, 0.0)
    verdicts = [judge_value(claim, found).verdict for found in (right, wrong)]
    assert verdicts == [Verdict.PASSED, Verdict.FAILED]
    assert "Above chance (the interval of the AUC lies above 0.5) on no set, not on made." in wrong.remarks
    assert set(right.tables["kinds"]["n"]) == {24} and len(right.per_example) == 48 and right.plots["auc"]
    assert right.value("auc__made__containment") == 1 and "passage" not in right.per_example  # the wrong number is in no passage


def test_scored_sets_are_kept(verifier: SupportVerifier, folder: Path, tmp_path: Path) -> None:
    first, lines = study(verifier, folder, tmp_path, {"made": numbered()}), list[str]()
    again = study(verifier, folder, tmp_path, {"made": numbered()}, lines)
    assert lines[0] == "claims of made: kept from before"
    assert [m.value for m in again.metrics] == [m.value for m in first.metrics]


def test_the_interval_draws_whole_passages() -> None:
    rng = np.random.default_rng(0)
    labels, values = rng.integers(2, size=60).astype(bool), rng.normal(size=60)
    alone = auc_interval(labels, values, np.arange(60), resamples=300, seed=0)
    eight = [np.tile(part, 8) for part in (labels, values, np.arange(60))]  # the same claims, eight times: nothing more is known
    together = auc_interval(*eight, resamples=300, seed=0)
    independent = auc_interval(*eight[:2], np.arange(480), resamples=300, seed=0)
    assert together == pytest.approx(alone, abs=0.02) and independent[1] - independent[0] < 0.5 * (together[1] - together[0])
    assert alone[0] < roc_auc_score(labels, values) < alone[1]
    with pytest.raises(DataError, match="two passages at least"):
        auc_interval(np.array([True, False, False]), np.arange(3.0), np.array(["a", "b", "c"]), resamples=50, seed=0)


def test_published_layouts(tmp_path: Path) -> None:
    begin = "model_name\tknowledge\tresponse\tbegin_label\n" + "".join(
        f't5\tIt is "old.\t{claim}\t{label}\n' for claim, label in
        (("It is old.", "Fully attributable"), ("It is new.", "Not fully attributable"), ("Well.", "Generic"))
    )  # fmt: skip
    (tmp_path / "begin").mkdir()
    (tmp_path / "begin" / "begin_dev.tsv").write_text("this is not read")
    with gzip.open(tmp_path / "begin" / "begin_test.tsv.gz", "wt") as file:
        file.write(begin)
    found = read_claims(tmp_path / "begin")
    assert list(found.itertuples(index=False, name=None)) == [
        ('It is "old.', "It is old.", True, "fully attributable"), ('It is "old.', "It is new.", False, "not fully attributable"),
    ]  # fmt: skip
    row = {"knowledge": "Paris is in France.", "question": "What is the capital of France?", "right_answer": "Paris", "hallucinated_answer": "Lyon"}
    (tmp_path / "qa.jsonl").write_text(json.dumps(row) + "\n")
    assert list(read_claims(tmp_path / "qa.jsonl")["claim"]) == ["The capital of France is Paris.", "The capital of France is Lyon."]
    (tmp_path / "snli.tsv").write_text("premise\thypothesis\tlabel\na\tb\tentailment\na\tc\tneutral\na\td\tcontradiction\na\te\t-\n")
    assert list(read_claims(tmp_path / "snli.tsv")["supported"]) == [True, False, False]
    (tmp_path / "own.csv").write_text('passage,claim,supported\n"a, b",c,yes\n"a, b",d,no\n')
    assert list(read_claims(tmp_path / "own.csv")["kind"]) == ["supported", "unsupported"]


@pytest.mark.parametrize(("content", "said"), [
    ("passage,claim\na,b\n", "has the fields claim, passage; known layouts have"),
    ("passage,claim,supported\na,b,maybe\n", "row 1: the label 'maybe' is none of"),
    ("passage,claim,supported\na,b,yes\n", "needs supported and unsupported claims"),
    ("passage,claim,supported\na,b,yes,too,many\nc\n", "does not parse as a table|has the fields|is none of"),
    ("", "does not parse as a table"),
])  # fmt: skip
def test_a_broken_set_is_one_error(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        read_claims(path)


def test_two_sets_of_one_name_are_one_error(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("passage,claim,supported\na,b,yes\na,c,no\n")
    found = named_sets(numbered(), ["path:own.csv"], lambda source: tmp_path / source.partition(":")[2])
    assert {name: len(rows) for name, rows in found.items()} == {"made": 24, "own": 2}
    with pytest.raises(DataError, match=r"path:x/own\.csv is the second set called 'own'"):
        named_sets(numbered(), ["path:own.csv", "path:x/own.csv"], lambda source: tmp_path / "own.csv")


def test_made_claims_are_of_test_questions_alone() -> None:
    rows = [{"context": f"The tower of {city} was built in {year}. It has {year - 1700} steps, and it was red for long.", "question": "When was the tower built?",
             "answers": [str(year)], "answer_starts": [len(f"The tower of {city} was built in ")], "split": split}
            for city, year, split in (("Ulm", 1890, "test"), ("Köln", 1880, "train"))]  # fmt: skip
    made = made_claims(pd.DataFrame(rows), VerifierSettings(), seed=0)
    assert set(made["supported"]) == {True, False} and not made["passage"].str.contains("Köln").any()
    assert name_of("path:/data/begin-wow") == "begin_wow" and name_of("path:own.claims.csv") == "own"
