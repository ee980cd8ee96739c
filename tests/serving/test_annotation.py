"""A round of annotation: the sheet that goes out, the sheets that come back, how far they agree, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score
from typer.testing import CliRunner

from curriculum.cli import app
from curriculum.errors import DataError, UserError
from curriculum.serving.annotation import FILE, agree, read_sheet, with_ids, write_labels, write_round
from curriculum.serving.feedback import FeedbackStore, annotation_items
from curriculum.serving.schemas import Feedback


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four queries, each answered once and judged once."""
    store = FeedbackStore(tmp_path / "feedback" / "starter", kept=10)
    for number, query in enumerate(("=red", "green", "blue", "grey")):
        store.remember(query, {"kind": "ask", "query": query, "passages": {"a": "+text"}, "answer": f"It is {number}.", "versions": {"index": "i1"}})
        store.store(Feedback(request_id=query, verdict="helpful", passage_id="a" if query == "grey" else None, comment="so\nit is"))
    return tmp_path / "feedback" / "starter"


def filled(sheet: Path, out: Path, labels: dict[str, str]) -> Path:
    """A copy of the sheet with labels by query."""
    table = pd.read_csv(sheet, dtype=str, keep_default_na=False)
    table.assign(label=[labels.get(query.lstrip("'"), "") for query in table["query"]]).to_csv(out, index=False)
    return out


def test_what_two_annotators_say_alike_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURRICULUM_HOME", str(tmp_path))
    sheet, run = tmp_path / "round.csv", CliRunner()
    assert run.invoke(app, ["annotate", str(sheet)]).exit_code == 0
    first = {"=red": "helpful", "green": "unhelpful", "blue": "Unhelpful ", "grey": "helpful"}
    second = {"=red": "helpful", "green": "unhelpful", "blue": "helpful"}
    copies = [str(filled(sheet, tmp_path / f"{n}.csv", labels)) for n, labels in enumerate((first, second))]
    done = run.invoke(app, ["annotate", "--labels", copies[0], "--labels", copies[1]])
    kappa = cohen_kappa_score(["helpful", "unhelpful", "unhelpful"], ["helpful", "unhelpful", "helpful"])
    assert f"kappa {kappa:.2f} over 3 items that two labelled; 3 labels kept, 1 disputed" in done.output, done.output
    kept = {line["query"]: line["label"] for line in map(json.loads, (folder / FILE).read_text().splitlines())}
    assert kept == {"=red": "helpful", "green": "unhelpful", "grey": "helpful"}


def test_the_sheet_is_no_formula_and_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    items, sheet = annotation_items(folder), tmp_path / "round.csv"
    assert write_round(items, sheet) == 4
    table = pd.read_csv(sheet, dtype=str, keep_default_na=False)
    assert "'=red" in list(table["query"]) and "'+text" in list(table["text"]), "the annotator reads the passage itself"
    assert set(table["label"]) == {""} and table["item_id"].is_unique
    with pytest.raises(UserError, match="is there already"):
        write_round(items, sheet)
    with pytest.raises(UserError, match="nothing to annotate"):
        write_round(items.iloc[:0], tmp_path / "none.csv")


def test_a_later_round_replaces_a_label_and_keeps_the_others(folder: Path) -> None:
    items = with_ids(annotation_items(folder))
    one, other = items["item_id"].iloc[:2]
    write_labels(agree(items, [pd.Series({one: "helpful", other: "helpful"})]).kept, folder)
    path = write_labels(agree(items, [pd.Series({one: "unhelpful"})]).kept, folder)
    assert {r["item_id"]: r["label"] for r in map(json.loads, path.read_text().splitlines())} == {one: "unhelpful", other: "helpful"}


def test_there_is_no_kappa_without_two_sheets_or_two_labels(folder: Path) -> None:
    items = with_ids(annotation_items(folder))
    same = pd.Series(dict.fromkeys(items["item_id"], "helpful"))
    assert agree(items, [same]).kappa is None and agree(items, [same, same]).kappa is None
    assert agree(items, [same, same]).both == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("query\nred\n", "lacks the column item_id, label"), ("item_id,label\nx,maybe\n", "is 'maybe'; write helpful or unhelpful"),
        ("item_id,label\nx,helpful\nx,helpful\n", "x stands twice"), ("", "is no sheet of a round"),
    ],
)  # fmt: skip
def test_a_sheet_that_cannot_be_read_says_what_to_change(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_sheet(tmp_path / "a.csv")


def test_labels_of_another_profile_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="about no feedback here"):
        agree(annotation_items(folder), [pd.Series({"unknown": "helpful"})])
