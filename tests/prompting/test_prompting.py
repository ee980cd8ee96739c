"""The prompt study: verdicts, tools, patterns, and gates that an abstainer and a guesser cannot pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge_value
from curriculum.generation.base import Generation, Messages
from curriculum.prompting.all_cases import study_all_cases
from curriculum.prompting.cases import load_cases, sample_cases
from curriculum.prompting.patterns import IDK, PATTERNS, Kit, final_answer, supported
from curriculum.prompting.scoring import abstains, holds, judge
from curriculum.prompting.settings import PromptingSettings
from curriculum.prompting.study import prompt_study, run_pattern
from curriculum.prompting.tools import calculate
from curriculum.syllabus import load_syllabus

NOTES = Path(__file__).parents[2] / "notes"


class Says:
    """A generator that follows a rule: a real implementation of the protocol, of the simplest kind."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.name, self.asked = texts, "rule", []

    def generate(
        self, prompts: list[Messages], *, max_new_tokens: int, stop: tuple[str, ...] = (), temperature: float = 0.0, seed: int = 0
    ) -> list[Generation]:
        turn = min(len(self.asked), len(self.texts) - 1)
        self.asked.append(prompts)
        return [Generation(self.texts[turn], 10, 3, 0.1, "stop") for _ in prompts]


def kit(generator: Says, passages: tuple[str, ...] = ("The default vocabulary is 4,096 entries.",)) -> Kit:
    return Kit(generator, lambda queries, k: [list(passages[:k]) for _ in queries], PromptingSettings(max_cases=1000))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("I don't know.", True), ("I do not know", True), ("I’m not sure about that", True), ("", True), ("It is not stated in the text.", True),
        ("The text does not say.", True), ("This cannot be determined.", True), ("8 heads", False), ("It knows nothing of padding.", False),
    ],
)  # fmt: skip
def test_abstentions_are_told_from_answers(answer: str, expected: bool) -> None:
    assert abstains(answer) is expected


def test_an_accepted_answer_counts_as_whole_words_only() -> None:
    assert holds("It is 8, of course.", ["8"]) and not holds("It is 128.", ["8"])
    assert holds("The answer: O(n²)", ["O(n^2)", "O(n²)"])


@pytest.mark.parametrize(
    ("kind", "answer", "accepted", "verdict"),
    [
        ("answerable", "eight GPUs", ["eight"], "correct"), ("answerable", "nine", ["eight"], "hallucinated"),
        ("answerable", "I don't know.", ["eight"], "abstained"), ("unanswerable", "In 1999.", [], "hallucinated"),
        ("unanswerable", "I don't know", [], "abstained"), ("false_premise", "Because it is faster.", ["in place"], "hallucinated"),
        ("false_premise", "list.sort works in place.", ["in place"], "correct"), ("false_premise", "That is not true.", [], "correct"),
    ],
)  # fmt: skip
def test_verdicts(kind: str, answer: str, accepted: list[str], verdict: str) -> None:
    assert judge(kind, answer, accepted).verdict == verdict


@given(st.integers(-1000, 1000), st.integers(-1000, 1000), st.integers(1, 50))
def test_the_calculator_calculates(a: int, b: int, c: int) -> None:
    assert calculate(f"({a}) + {b} * {c}") == str(a + b * c)
    assert float(calculate(f"({a}) / {c}")) == pytest.approx(a / c, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("expression", ["__import__('os')", "open('x')", "9**9**9", "1/0", "2 +", "'a' * 3", "10**400", "[1]*9"])
def test_the_calculator_refuses_what_is_not_arithmetic(expression: str) -> None:
    assert calculate(expression).startswith("error: ")


def test_react_calls_its_tools_and_keeps_the_trace() -> None:
    generator = Says("Action: search[vocabulary]", "Action: calculator[4096 / 2]", "Action: finish[2048]")
    trace = PATTERNS["react"](kit(generator), ["Half the vocabulary?"])[0]
    assert trace.answer == "2048" and trace.prompt_tokens == 30
    assert "Observation: The default vocabulary is 4,096 entries." in trace.transcript and "Observation: 2048" in trace.transcript


def test_a_react_loop_that_never_finishes_abstains() -> None:
    generator = Says("Action: search[again]")
    assert PATTERNS["react"](kit(generator), ["?"])[0].answer == "" and len(generator.asked) == PromptingSettings().max_steps


def test_a_grounded_answer_that_the_passages_do_not_support_is_withheld() -> None:
    assert PATTERNS["grounded"](kit(Says("4,096 entries")), ["?"])[0].answer == "4,096 entries"
    withheld = PATTERNS["grounded"](kit(Says("8,192 entries")), ["?"])[0]
    assert abstains(withheld.answer) and "withheld" in withheld.transcript
    assert not supported("unrelated words entirely", "The default vocabulary is large.", 0.6)


def test_the_answer_of_a_chain_of_thought_is_its_last_line() -> None:
    assert final_answer("Two and two.\nAnswer: 4") == "4" and final_answer("one\ntwo\n") == "two" and final_answer("") == ""


def test_no_pattern_is_shown_an_accepted_answer() -> None:
    cases = load_cases(NOTES)
    case = cases[cases["kind"] == "answerable"].head(1)
    for pattern in PATTERNS:
        generator = Says("Action: finish[x]")
        run_pattern(pattern, case.assign(accepted=[["a very secret gold"]], hallucination="secret"), kit(generator, ("nothing",)))
        assert "secret" not in str(generator.asked)


def bars_passed(generator: Says) -> dict[str, bool]:
    result = prompt_study(load_cases(NOTES), kit(generator, ("eight",)), identities=[], progress=lambda _: None)
    milestone = next(m for m in load_syllabus().roadmap if m.milestone == "prompts")
    return {bar.metric: judge_value(bar, result).verdict is Verdict.PASSED for bar in milestone.bars}


def test_always_abstaining_fails_the_answer_rate_and_always_answering_the_hallucination_rate() -> None:
    assert bars_passed(Says("I don't know.")) == {"hallucination_rate": True, "answer_rate": False}
    assert bars_passed(Says("eight")) == {"hallucination_rate": False, "answer_rate": True}


def test_the_study_keeps_every_trace_with_exact_bounds() -> None:
    result = prompt_study(load_cases(NOTES), kit(Says("I don't know.")), identities=[], progress=lambda _: None)
    cases = len(load_cases(NOTES))
    assert len(result.per_example) == cases * len(PromptingSettings().patterns) and cases >= 50
    rate = result.metric("hallucination_rate")
    assert rate is not None and rate.value == 0.0 and rate.n == cases and rate.high is not None and 0 < rate.high < 0.1
    assert (result.per_example["transcript"].str.len() > 20).all()


def test_a_sample_keeps_every_kind() -> None:
    chosen = sample_cases(load_cases(NOTES), 12)
    assert len(chosen) <= 13 and set(chosen["kind"]) == {"answerable", "unanswerable", "false_premise"}
    assert list(sample_cases(load_cases(NOTES), 12)["case_id"]) == list(chosen["case_id"])


def test_broken_cases_are_refused(tmp_path: Path) -> None:
    (tmp_path / "prompt_cases.yaml").write_text("- {case_id: a, kind: answerable, question: Q}\n")
    with pytest.raises(DataError, match="answerable but accepts no answer"):
        load_cases(tmp_path)
    (tmp_path / "prompt_cases.yaml").write_text("- {case_id: a, kind: maybe, question: Q}\n")
    with pytest.raises(DataError, match="is of kind 'maybe'"):
        load_cases(tmp_path)
    (tmp_path / "prompt_cases.yaml").write_text("[]\n")
    with pytest.raises(DataError, match="holds no cases"):
        load_cases(tmp_path)


def test_all_cases_are_judged_and_a_killed_run_goes_on(tmp_path: Path) -> None:
    cases = load_cases(NOTES)
    whole = study_all_cases(cases, kit(Says("It is 4,096 entries.", IDK)), identities=[], checkpoints=tmp_path / "a", progress=lambda _: None, chunk=7)
    assert len(whole.per_example) == len(cases) and whole.per_example["case_id"].is_unique
    assert whole.value("hallucination_rate") == 7 / len(cases) < whole.value("hallucination_rate_upper") < 0.3
    by_kind = whole.tables["by_kind"].set_index("kind").sum(axis=1)
    assert by_kind.to_dict() == cases["kind"].value_counts().to_dict()

    class Killed(Exception):
        pass

    def stop_at_the_second_chunk(line: str) -> None:
        if line.startswith("14 of"):
            raise Killed

    with pytest.raises(Killed):
        study_all_cases(cases, kit(Says("It is 4,096 entries.", IDK)), identities=[], checkpoints=tmp_path / "b", progress=stop_at_the_second_chunk, chunk=7)
    rest = Says(IDK)
    resumed = study_all_cases(cases, kit(rest), identities=[], checkpoints=tmp_path / "b", progress=lambda _: None, chunk=7)
    assert sum(map(len, rest.asked)) == len(cases) - 14
    assert resumed.per_example["verdict"].tolist() == whole.per_example["verdict"].tolist()
