"""The data of both tasks: nothing leaks from one side to another, and a user's folder is read or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from curriculum.adaptation.model import load_tokenizer
from curriculum.corpora.notes import load_notes, load_questions
from curriculum.errors import DataError
from curriculum.tuning.settings import TuningSettings
from curriculum.tuning.tasks import classification_task, generation_task, question_parts, read_labelled
from tests.tuning.tiny import SETTINGS, domain, labelled, save_language_model

NOTES = Path(__file__).parents[2] / "notes"


def test_blocks_of_each_side_come_from_documents_of_their_own(tmp_path) -> None:
    tokenizer = load_tokenizer(save_language_model(tmp_path))
    marked = domain().assign(text=lambda t: [f"{text} " + f"{name} " * 20 for name, text in zip(t["doc_id"], t["text"], strict=True)])
    blocks = generation_task(marked, tokenizer, SETTINGS.model_copy(update={"dev_blocks": 100, "test_blocks": 100, "steps": 100}))
    said = {side: tokenizer.decode(getattr(blocks, side).flatten()) for side in ("train", "dev", "test")}
    sides = {side: {name for name in marked["doc_id"] if f" {name} " in text} for side, text in said.items()}
    assert all(sides.values()) and not (sides["train"] & sides["dev"] or sides["train"] & sides["test"] or sides["dev"] & sides["test"])
    assert blocks.train.shape[1] == SETTINGS.block_size + 1


def test_questions_of_a_note_stand_on_one_side_and_every_label_on_all() -> None:
    notes = load_notes(NOTES)
    table = classification_task(question_parts(load_questions(NOTES, notes), notes), TuningSettings())
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert table["label"].nunique() == 6 and "electives" not in set(table["label"])
    assert table.groupby("label")["split"].nunique().eq(3).all()
    counts = table["split"].value_counts()
    assert counts["test"] >= 200 and counts["dev"] >= 100 and counts["train"] == 640
    assert table["example_id"].is_unique and not table["text"].str.contains("[а-яА-Я]").any()


def test_a_group_on_two_sides_and_too_few_labels_are_refused() -> None:
    table = labelled()
    table.loc[table["split"] == "test", "group"] = "a0"
    with pytest.raises(DataError, match="the group 'a0' stands on two sides"):
        classification_task(table, SETTINGS)
    with pytest.raises(DataError, match="fewer than two labels"):
        classification_task(labelled().query("label == 'sum'"), SETTINGS)


def csvs(folder: Path, label: str = "category") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(f"where is card {i}", "card") for i in range(40)] + [(f"what is rate {i}", "rate") for i in range(40)]
    pd.DataFrame(rows, columns=["text", label]).to_csv(folder / "train.csv", index=False)
    held = [("Where is  CARD 3", "card"), ("what is rate 99", "rate")]
    pd.DataFrame(held, columns=["text", label]).to_csv(folder / "test.csv", index=False)
    return folder


def test_a_users_texts_are_read_and_what_is_tested_is_not_trained(tmp_path) -> None:
    table = read_labelled(csvs(tmp_path))
    assert set(table["split"]) == {"train", "dev", "test"} and table["example_id"].is_unique
    assert "where is card 3" not in set(table.loc[table["split"] != "test", "text"]) and (table["split"] == "test").sum() == 2
    assert read_labelled(csvs(tmp_path / "other", "label"))["text"].tolist() == table["text"].tolist()


def test_trec_classes_are_read_by_their_coarse_label(tmp_path) -> None:
    (tmp_path / "TREC.train.txt").write_text("NUM:dist How far is it ?\nHUM:ind Who was Galileo ?\n")
    (tmp_path / "TREC.test.txt").write_text("NUM:date When was it ?\n")
    assert read_labelled(tmp_path)[["text", "label"]].values.tolist()[:2] == [["When was it ?", "NUM"], ["How far is it ?", "NUM"]]
    (tmp_path / "TREC.train.txt").write_text("NUM:dist How far ?\nno label here\n")
    with pytest.raises(DataError, match="line 2: expected LABEL:finer"):
        read_labelled(tmp_path)


def test_what_is_wrong_with_a_folder_is_said(tmp_path) -> None:
    with pytest.raises(DataError, match="test.csv cannot be read as CSV"):
        read_labelled(tmp_path)
    with pytest.raises(DataError, match=r"has the columns text, intents; it needs 'text' and one of label"):
        read_labelled(csvs(tmp_path, "intents"))
    (tmp_path / "test.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_labelled(tmp_path)
