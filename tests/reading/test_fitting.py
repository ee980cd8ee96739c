"""Fine-tuning: accumulated gradients, the best weights kept, the study, and resumes that end where an uninterrupted run ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from curriculum.reading import fitting
from curriculum.reading.batches import training_windows
from curriculum.reading.fitting import Fit, Fitting, accumulate_gradients, span_loss, start_model
from curriculum.reading.reader import collate
from curriculum.reading.search import best_trial, run_search
from curriculum.reading.settings import ReaderSettings, SearchSettings, Trial
from curriculum.trials import finished, open_study
from tests.forked import outcomes
from tests.reading.tiny import tiny_bert, tiny_examples

torch.set_num_threads(1)
TRIAL = Trial(learning_rate=5e-3, batch_size=4, max_length=48)
# the first trial is given, the other three are drawn: two at random, one by TPE
STUDY = ReaderSettings(
    search=SearchSettings(
        trials=4, examples=8, first=(TRIAL,), startup=3, learning_rate=(1e-5, 5e-3), batch_size=(4, 8), max_length=(40, 48),
    ),
    epochs=3, evaluations=2, patience=9, checkpoint_every=4, stride=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def of(side: str) -> pd.DataFrame:
    examples = tiny_examples()
    return examples[examples["split"] == side]


def fit(bert: Path, settings: ReaderSettings, *, epochs: int, seed: int = 0) -> tuple[Any, Fit]:
    model, tokenizer = start_model(bert, seed, "cpu")
    made = training_windows(tokenizer, of("train"), max_length=48, stride=8)
    done = Fitting(model, tokenizer, TRIAL, settings, of("dev"), "cpu", lambda _: None).run(made, epochs=epochs, evaluations=epochs, seed=seed)
    return model, done


def gradients(model: Any, micro: list[list[Any]]) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    loss = accumulate_gradients(model, micro, 0, "cpu")
    return loss, [p.grad.clone() for p in model.parameters()]


def test_accumulated_gradients_are_those_of_the_big_batch(bert: Path) -> None:
    model, tokenizer = start_model(bert, 0, "cpu")
    model.eval()  # no dropout: it would draw other masks
    examples = of("train")
    examples["question"] = ["what is the color of the house ?" + " what" * (n % 5) for n in range(len(examples))]  # windows of other lengths
    made = training_windows(tokenizer, examples, max_length=48, stride=8)
    whole, expected = gradients(model, [made[:11]])
    for sizes in ((4, 4, 3), (1, 10), (6, 5)):  # also where the last micro-batch is smaller
        ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
        loss, found = gradients(model, [made[end - size : end] for end, size in zip(ends, sizes, strict=True)])
        assert loss == pytest.approx(whole, abs=1e-6)
        assert max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) < 1e-6
    unweighted = gradients(model, [made[:1]])[0] / 2 + gradients(model, [made[1:11]])[0] / 2
    assert abs(unweighted - gradients(model, [made[:11]])[0]) > 1e-4  # what counting micro-batches alike would give


def test_the_loss_is_transformers_own_but_for_the_padding(bert: Path) -> None:
    model, tokenizer = start_model(bert, 0, "cpu")
    model.eval()
    examples = of("train").head(2)
    alike = collate(training_windows(tokenizer, examples, max_length=48, stride=8), 0, "cpu")  # of one length: no padding
    padded = {name: torch.nn.functional.pad(value, (0, 9)) if value.dim() == 2 else value for name, value in alike.items()}
    with torch.no_grad():
        ours, theirs = ([float(value) for value in pair] for pair in zip(*[(span_loss(model, b), model(**b).loss) for b in (alike, padded)], strict=True))
    assert ours[0] == pytest.approx(theirs[0], abs=1e-6) and ours[1] == pytest.approx(ours[0], abs=1e-6)
    assert abs(theirs[1] - theirs[0]) > 0.01  # where a window's loss depends on its neighbours


def test_it_stops_when_dev_no_longer_gains_and_the_best_weights_come_back(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, dict[str, torch.Tensor]]] = []
    real = fitting.scores

    def watched(reader: Any, examples: pd.DataFrame) -> pd.DataFrame:
        found = real(reader, examples)
        seen.append((float(found["f1"].mean()), {name: value.clone() for name, value in reader.model.state_dict().items()}))
        return found

    monkeypatch.setattr(fitting, "scores", watched)
    model, done = fit(bert, STUDY.model_copy(update={"patience": 2}), epochs=40)
    found = [f1 for f1, _ in seen]
    best = found.index(max(found))
    assert done.stopped_early and len(found) == best + 3 and [row["dev_f1"] for row in done.curve] == found
    assert done.best == done.curve[best] and len(done.losses) == done.curve[-1]["step"] < done.planned_steps
    assert all(torch.equal(value, seen[best][1][name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, seen[-1][1][name]) for name, value in model.state_dict().items())


def test_without_a_stop_it_runs_to_its_end(bert: Path) -> None:
    _, done = fit(bert, STUDY, epochs=2)
    assert not done.stopped_early and len(done.losses) == done.planned_steps == 12
    assert [row["questions"] for row in done.curve] == [24, 48] and done.windows_per_second > 0


RUN = """
import signal
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, BertForQuestionAnswering, BertTokenizerFast  # once, and not in every run
from curriculum.reading import fitting
from tests.reading import test_fitting as t
from tests.reading.test_reader import train
real, calls = fitting.train_step, []
def run(folder, dies_at):
    def step(*args):
        calls.append(1)
        if len(calls) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)
    fitting.train_step = step
    train(folder.parent / "bert", folder, t.STUDY)
    (folder / "steps").write_text(str(len(calls)))
"""


def test_kill_9_in_the_study_and_in_the_training_ends_like_an_uninterrupted_run(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "bert").symlink_to(bert)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    # the first trial takes two steps, so the fourth call is in a drawn one; the killed training has a checkpoint and scores behind it
    codes, files = zip(*outcomes(RUN, [(whole, 0), (killed, 4), (killed, 16), (killed, 0)]), strict=True)
    assert codes == (0, -signal.SIGKILL, -signal.SIGKILL, 0)
    assert "checkpoints/study.jsonl" in files[1] and "checkpoints/checkpoint.safetensors" in files[2] - files[1]
    assert [name for name in files[2] if name.startswith("checkpoints/best-")] and "out/model.safetensors" not in files[2]
    first, second = (json.loads((folder / "out" / "history.json").read_text()) for folder in (whole, killed))
    for history in (first, second):
        for row in history["trials"]:
            row.pop("seconds")
    assert first == second and [row["origin"] for row in first["trials"]] == ["given", "drawn", "drawn", "drawn"]
    assert (whole / "out" / "model.safetensors").read_bytes() == (killed / "out" / "model.safetensors").read_bytes()
    assert int((killed / "steps").read_text()) < int((whole / "steps").read_text()) - 7  # no finished trial, and no checkpointed step, ran again
    journal = (killed / "checkpoints" / "study.jsonl").read_text()
    assert len(finished(open_study(killed / "checkpoints", json.loads(journal.splitlines()[0])["study_name"]))) == 4


def test_finished_trials_are_not_run_again_and_a_torn_line_is_cut_off(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def study() -> list[dict[str, Any]]:
        return run_search(bert, of("train"), of("dev"), STUDY, seed=0, checkpoints=tmp_path, progress=lambda _: None, device="cpu")

    rows = study()
    journal = tmp_path / "study.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"work')  # the machine went down while a line was written
    monkeypatch.setattr(Fitting, "run", lambda *a, **k: pytest.fail("a finished trial ran again"))
    assert study() == rows and journal.read_bytes().startswith(whole)
    low, high = STUDY.search.learning_rate
    assert len(rows) == 4 and all(low <= row["learning_rate"] <= high and row["max_length"] in (40, 48) for row in rows)
    assert best_trial(rows).learning_rate == max(rows, key=lambda row: row["dev_f1"])["learning_rate"]


@pytest.mark.parametrize(("settings", "message"), [
    ({"learning_rate": (3e-4, 1e-4)}, "lowest, highest"), ({"first": [TRIAL]}, "widen learning_rate, batch_size, max_length"),
    ({"first": [TRIAL] * 5, "learning_rate": (1e-4, 1e-2)}, "raise trials"),
])  # fmt: skip
def test_a_study_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SearchSettings(batch_size=(16,), trials=3, **{"max_length": (384,), **settings})
