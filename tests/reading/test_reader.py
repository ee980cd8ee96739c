"""The reader: windows, spans, learning, exact resume, and its checks."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curriculum.reading import training
from curriculum.reading.reader import Reader, Window, best_span, labelled, windows
from curriculum.reading.report import qa_report
from curriculum.reading.settings import ReaderSettings, Trial
from curriculum.reading.training import plan, train_reader, training_windows
from tests.forked import outcomes
from tests.reading.tiny import tiny_bert, tiny_examples

torch.set_num_threads(1)
TINY = ReaderSettings(
    trials=(Trial(learning_rate=5e-3, batch_size=4, max_length=48), Trial(learning_rate=1e-5, batch_size=8, max_length=48)),
    trial_examples=8, epochs=4, checkpoint_every=3, stride=8,
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


def test_it_learns_and_reports(bert: Path, tmp_path: Path) -> None:
    made = train(bert, tmp_path, TINY.model_copy(update={"epochs": 12}))
    assert made.facts["chosen"]["learning_rate"] == 5e-3 and made.facts["final_loss"] < 1.5
    result = qa_report(made, tiny_examples(), TINY, seed=0, identities=[])
    assert result.value("f1") > 0.5 and result.value("leaked_groups") == 0
    assert list(result.tables["hyper_parameters"]["learning_rate"]) == [5e-3, 1e-5] and len(result.per_example) == 4


def test_wrong_labels_lower_the_score(bert: Path, tmp_path: Path) -> None:
    wrong = tiny_examples()
    wrong["answer_starts"], wrong["answers"] = [[0]] * len(wrong), [["the"]] * len(wrong)
    made = train(bert, tmp_path, TINY.model_copy(update={"epochs": 12}), wrong)
    assert qa_report(made, tiny_examples(), TINY, seed=0, identities=[]).value("f1") < 0.5


RUN = """
import signal
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, BertForQuestionAnswering, BertTokenizerFast  # once, and not in every run
from curriculum.reading import training
from tests.reading import test_reader as t
real, calls = training._step, []
def run(folder, dies_at):
    def step(*args):
        calls.append(1)
        if len(calls) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)
    training._step = step
    t.train(folder.parent / "bert", folder)
"""


def test_kill_9_and_resume_end_with_the_weights_of_an_uninterrupted_run(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "bert").symlink_to(bert)
    whole, killed, resumed = outcomes(RUN, [(tmp_path / "whole", 0), (tmp_path / "killed", 17), (tmp_path / "killed", 0)])
    assert (whole[0], killed[0], resumed[0]) == (0, -signal.SIGKILL, 0)
    assert killed[1] >= {"checkpoints/trials.json", "checkpoints/checkpoint.safetensors"} and "out/model.safetensors" not in killed[1]
    histories = [json.loads((tmp_path / n / "out" / "history.json").read_text())["loss"] for n in ("whole", "killed")]
    assert histories[0] == histories[1]
    first, second = ((tmp_path / n / "out" / "model.safetensors").read_bytes() for n in ("whole", "killed"))
    assert first == second


def test_finished_trials_are_not_run_again(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [{"learning_rate": 1.0, "dev_f1": 0.1}, {"learning_rate": 2.0, "dev_f1": 0.9}]
    (tmp_path / "trials.json").write_text(json.dumps(kept))
    monkeypatch.setattr(training, "fine_tune", lambda *a, **k: pytest.fail("a finished trial ran again"))
    frame = tiny_examples()
    rows = training.run_trials(bert, frame, frame, TINY, seed=0, checkpoints=tmp_path, progress=lambda _: None, device="cpu")
    assert rows == kept


@given(st.lists(st.integers(5, 60), min_size=1, max_size=50), st.integers(1, 8), st.integers(1, 3))
def test_every_window_is_seen_once_an_epoch(lengths: list[int], batch: int, epochs: int) -> None:
    order = [w for b in plan(lengths, batch, epochs, seed=0) for w in b]
    assert sorted(order) == sorted(list(range(len(lengths))) * epochs)


def test_of_windows_without_the_answer_one_is_kept(bert: Path) -> None:
    context = "the house is red . " + " ".join(["the city was built ."] * 40)
    frame = pd.DataFrame([{"question": "what is red ?", "context": context, "answers": ["red"], "answer_starts": [context.index("red")]}])
    made = training_windows(tokenizer_of(bert), frame, max_length=48, stride=8)
    assert len(made) == 2 and sorted(w.end > 0 for w in made) == [False, True]


def test_a_saved_reader_answers_as_before(bert: Path, tmp_path: Path) -> None:
    train(bert, tmp_path)
    pairs = [("what is the color of the house ?", c) for c in tiny_examples()["context"][:6]]
    assert Reader.load(tmp_path / "out").answer(pairs) == Reader.load(tmp_path / "out").answer(pairs[:3]) + Reader.load(tmp_path / "out").answer(pairs[3:])
