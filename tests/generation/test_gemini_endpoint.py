"""Gemini's OpenAI-compatible endpoint as the profile's generator: a real HTTP server on this machine that answers and refuses as it does."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from curriculum.errors import SourceError
from curriculum.generation.factory import build_generator
from curriculum.profile import load_profile
from curriculum.prompting.patterns import Kit
from curriculum.prompting.settings import PromptingSettings
from curriculum.prompting.study import prompt_study
from curriculum.results import Identity, StudyResult
from tests.http_server import answering, completion

KEY = "AIza-a-key-that-must-not-show"
KNOWN = {"model", "messages", "max_tokens", "temperature", "stop", "reasoning_effort"}
ANSWERS = {"Mistral": "The window has 4,096 positions.", "employees": "I don't know.", "sixty": "Because it is an encoder."}
CASES = pd.DataFrame([
    {"case_id": "a", "question": "How long is Mistral's window?", "kind": "answerable", "accepted": ["4,096"], "hallucination": "512"},
    {"case_id": "b", "question": "How many employees trained it?", "kind": "unanswerable", "accepted": [], "hallucination": "40"},
    {"case_id": "c", "question": "Why has BERT sixty layers?", "kind": "false_premise", "accepted": ["24"], "hallucination": "sixty"},
])  # fmt: skip


requests: list[dict[str, Any]] = []


def gemini(path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
    """The chat-completions path below /v1beta/openai/, the refusal of unknown fields, and an error that repeats the key."""
    requests.append(body | {"path": path})
    unknown, given = sorted(set(body) - KNOWN), headers["Authorization"].removeprefix("Bearer ")
    if path != "/v1beta/openai/chat/completions":
        return 404, {"error": {"message": f"no such path {path}"}}
    if given != KEY:
        return 400, [{"error": {"code": 400, "message": f"API key not valid: {given}", "status": "INVALID_ARGUMENT"}}]
    if unknown:
        return 400, [{"error": {"code": 400, "message": f'Unknown name "{unknown[0]}": Cannot find field.'}}]
    said = next((text for word, text in ANSWERS.items() if word in body["messages"][-1]["content"]), "")
    return 200, completion(body["model"], said, 11, 4)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with answering(gemini) as served:
        yield f"{served}/v1beta/openai/"


def generator(address: str, **more: Any) -> Any:
    """What a profile with this generator section builds."""
    section = {"kind": "endpoint", "model": "gemini-2.5-flash", "base_url": address, "api_key_variable": "GEMINI_API_KEY", "retries": 0, **more}
    return build_generator(load_profile("starter", {"generator": section}).generator, lambda _: Path("unused"), "cpu")


def study(made: Any) -> StudyResult:
    settings = PromptingSettings(patterns=("zero_shot",), gated_pattern="zero_shot", max_cases=10)
    kit = Kit(made, lambda queries, k: [["A passage."] for _ in queries], settings)
    identities = [Identity(role="model", source=made.name)]
    return prompt_study(CASES.assign(context_note="", part=""), kit, identities=identities, progress=logging.getLogger("study").info)


def test_the_prompt_study_judges_it_by_the_same_verdicts(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    result = study(generator(address, unsent=["seed"], reasoning_effort="none"))
    assert dict(zip(result.per_example["case_id"], result.per_example["verdict"], strict=True)) == {
        "a": "correct", "b": "abstained", "c": "hallucinated"
    }  # fmt: skip
    assert result.value("hallucination_rate") == pytest.approx(1 / 3) and result.value("answer_rate") == 1.0
    assert result.value("tokens__zero_shot") == 15
    sent = requests[-1]
    assert sent["path"] == "/v1beta/openai/chat/completions" and sent["model"] == "gemini-2.5-flash" and sent["reasoning_effort"] == "none"
    result.save(tmp_path)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"gemini-2.5-flash" in written and KEY.encode() not in written
    assert "chat/completions" in caplog.text and KEY not in caplog.text, "the client's own debug log is on here"


def test_a_field_it_does_not_know_is_refused_and_said(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    with pytest.raises(SourceError, match='Unknown name "seed"'):
        generator(address).generate([[{"role": "user", "content": "Mistral"}]], max_new_tokens=5)


def test_an_error_that_repeats_the_key_loses_it(address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    wrong = "AIza-a-wrong-key-that-must-not-show-either"
    monkeypatch.setenv("GEMINI_API_KEY", wrong)
    caplog.set_level(logging.DEBUG)
    with pytest.raises(SourceError, match=r"API key not valid: \*\*\*.*the key in \$GEMINI_API_KEY") as caught:
        study(generator(address, unsent=["seed"]))
    assert wrong not in "".join(traceback.format_exception(caught.value)) and wrong not in repr(caught.value.__context__)
    assert wrong not in caplog.text


def test_another_path_is_not_found(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    with pytest.raises(SourceError, match="NotFoundError"):
        generator(address.replace("/v1beta/openai", "/v1"), unsent=["seed"]).generate([[{"role": "user", "content": "x"}]], max_new_tokens=5)


def test_a_stop_string_is_kept_where_it_may_not_be_sent(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    made = generator(address, unsent=["seed", "stop"]).generate([[{"role": "user", "content": "Mistral"}]], max_new_tokens=5, stop=("4,096",))
    assert made[0].text == "The window has" and "stop" not in requests[-1]
