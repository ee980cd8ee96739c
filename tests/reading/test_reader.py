"""The reader: windows, spans, learning, and its checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curriculum.reading.batches import training_windows
from curriculum.reading.questions import question_type
from curriculum.reading.reader import Reader, Window, best_span, labelled, windows
from curriculum.reading.report import _of_types, by_type, qa_report
from curriculum.reading.settings import ReaderSettings, SearchSettings, Trial
from curriculum.reading.training import train_reader
from tests.reading.tiny import tiny_bert, tiny_examples

torch.set_num_threads(1)
TINY = ReaderSettings(
    search=SearchSettings(
        trials=2, examples=8, learning_rate=(1e-5, 5e-3), batch_size=(4, 8), max_length=(48,),
        first=(Trial(learning_rate=5e-3, batch_size=4, max_length=48), Trial(learning_rate=1e-5, batch_size=8, max_length=48)),
    ),
    epochs=4, evaluations=1, patience=9, checkpoint_every=3, stride=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def train(bert: Path, folder: Path, settings: ReaderSettings = TINY, examples: pd.DataFrame | None = None) -> Any:
    for name in ("out", "checkpoints"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return train_reader(
        tiny_examples() if examples is None else examples, settings, model=bert, out=folder / "out", checkpoints=folder / "checkpoints", progress=lambda _: None, seed=0,
        device="cpu",
    )  # fmt: skip


def test_a_long_context_becomes_overlapping_windows_that_cover_it(bert: Path) -> None:
    context = " ".join(["the house is red ."] * 30)
    made = windows(tokenizer_of(bert), [("what is red ?", context)], max_length=48, stride=8)
    assert len(made) > 3 and all(len(w.input_ids) <= 48 for w in made)
    covered = {c for w in made for o in w.offsets if o for c in range(*o)}
    assert covered == {i for i, ch in enumerate(context) if ch != " "}


def test_labels_point_at_the_answer_or_at_nothing(bert: Path) -> None:
    tokenizer, context = tokenizer_of(bert), "the city was built by who . the house is red ."
    made = windows(tokenizer, [("what is red ?", context)], max_length=48, stride=8)[0]
    start = context.index("house is")
    marked = labelled(made, start, start + len("house is"))
    assert tokenizer.decode(marked.input_ids[marked.start : marked.end + 1]) == "house is"
    assert (labelled(made, 1000, 1010).start, labelled(made, 1000, 1010).end) == (0, 0)


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=6), st.lists(st.floats(-5, 5), min_size=6, max_size=6), st.integers(1, 4))
def test_the_best_span_is_the_best_of_all_valid_ones(start: list[float], end: list[float], longest: int) -> None:
    context = "ab cd ef gh"
    window = Window(0, [0] * 6, [0] * 6, [None, (0, 2), (3, 5), (6, 8), (9, 11), None])
    valid = [(start[s] + end[e] - start[0] - end[0], s, e) for s in range(1, 5) for e in range(s, min(5, s + longest))]
    span = best_span(window, np.array(start), np.array(end), context, n_best=20, max_tokens=longest)
    assert span.score == pytest.approx(max(v[0] for v in valid))
    assert span.text and context[span.start : span.start + len(span.text)] == span.text


def test_it_learns_and_reports_without_having_read_the_test_questions(bert: Path, tmp_path: Path) -> None:
    unreadable = tiny_examples()
    unreadable.loc[unreadable["split"] == "test", ["question", "context", "answers", "answer_starts"]] = None
    made = train(bert, tmp_path, TINY.model_copy(update={"epochs": 12}), unreadable)
    assert made.facts["chosen"]["learning_rate"] == 5e-3 and made.facts["final_loss"] < 1.5
    result = qa_report(made, tiny_examples(), TINY, seed=0, identities=[])
    assert result.value("f1") > 0.5 and result.value("leaked_groups") == 0 and len(result.per_example) == 4
    study, curve = result.tables["hyper_parameters"], result.tables["learning_curve"]
    assert list(study["learning_rate"]) == [5e-3, 1e-5] and list(study["origin"]) == ["given", "given"]
    assert list(curve["questions"]) == [24 * (n + 1) for n in range(len(curve))] and result.value("dev_f1") == curve["dev_f1"].max()
    assert result.plots.keys() == {"loss", "learning_curve", "search_history", "search_learning_rate", "search_batch_size"}
    assert list(result.tables["by_type"]["type"]) == ["what"] and result.tables["by_type"]["n"].sum() == 4
    kept = {m.name: m.value for m in result.metrics if m.name.startswith("dev_f1__after_")}
    assert kept == {f"dev_f1__after_{row.questions}_questions": row.dev_f1 for row in curve.itertuples()}
    assert not any("__asked_" in m.name for m in result.metrics)  # four questions are too few


def test_wrong_labels_lower_the_score(bert: Path, tmp_path: Path) -> None:
    wrong = tiny_examples()
    wrong["answer_starts"], wrong["answers"] = [[0]] * len(wrong), [["the"]] * len(wrong)
    made = train(bert, tmp_path, TINY.model_copy(update={"epochs": 12}), wrong)
    assert qa_report(made, tiny_examples(), TINY, seed=0, identities=[]).value("f1") < 0.5


def test_of_windows_without_the_answer_one_is_kept(bert: Path) -> None:
    context = "the house is red . " + " ".join(["the city was built ."] * 40)
    frame = pd.DataFrame([{"question": "what is red ?", "context": context, "answers": ["red"], "answer_starts": [context.index("red")]}])
    made = training_windows(tokenizer_of(bert), frame, max_length=48, stride=8)
    assert len(made) == 2 and sorted(w.end > 0 for w in made) == [False, True]


def test_a_question_longer_than_a_window_is_read_in_part(bert: Path) -> None:
    tokenizer, context = tokenizer_of(bert), "the house is red ."
    asked = "what is red ? " * 60
    (window,) = windows(tokenizer, [(asked, context)], max_length=48, stride=8)
    assert len(window.input_ids) <= 48 and sum(o is not None for o in window.offsets) == 5  # the whole context
    question = [i for i, t in zip(window.input_ids, window.token_type_ids, strict=True) if t == 0][1:-2]
    assert question == tokenizer(asked, add_special_tokens=False)["input_ids"][: len(question)] and len(question) in (22, 23, 24)
    short = windows(tokenizer, [("what is red ?", context)], max_length=48, stride=8)
    assert [w.input_ids for w in short] == tokenizer(["what is red ?"], [context])["input_ids"]


def test_a_saved_reader_answers_as_before(bert: Path, tmp_path: Path) -> None:
    train(bert, tmp_path)
    pairs = [("what is the color of the house ?", c) for c in tiny_examples()["context"][:6]]
    assert Reader.load(tmp_path / "out").answer(pairs) == Reader.load(tmp_path / "out").answer(pairs[:3]) + Reader.load(tmp_path / "out").answer(pairs[3:])


def test_scores_by_type_of_question_carry_n_and_an_interval() -> None:
    found = pd.DataFrame({"question": ["Who?", "By whom?", "In what year?", "Name it."], "f1": [1.0, 0.0, 0.5, 1.0], "exact_match": [1.0, 0.0, 0.0, 1.0]})
    table = by_type(found).set_index("type")
    assert list(table.index) == ["who", "other", "what"] and table.loc["who", ["n", "f1", "exact_match"]].tolist() == [2, 0.5, 0.5]
    assert (table["f1_low"] <= table["f1"]).all() and (table["exact_match_high"] >= table["exact_match"]).all()
    assert table.loc["who", "exact_match_low"] == pytest.approx(0.0126, abs=1e-4)  # Clopper-Pearson of 1 in 2
    many = by_type(pd.concat([found] * 6))
    told = {m.name: (m.value, m.low, m.high, m.n) for m in _of_types(many)}
    row = many.set_index("type").loc["who"]
    assert told["exact_match__asked_who"] == (0.5, row["exact_match_low"], row["exact_match_high"], 12) and "f1__asked_what" not in told


@pytest.mark.parametrize(("question", "kind"), [
    ("Whose idea was it?", "who"), ("To whom was it sold", "who"), ("In which year?", "which"), ("HOW many?", "how"), ("Somewhat odd, is it?", "other"),
])  # fmt: skip
def test_a_question_has_the_type_of_its_first_question_word(question: str, kind: str) -> None:
    assert question_type(question) == kind
