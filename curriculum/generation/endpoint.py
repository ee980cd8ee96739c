"""Any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from curriculum.errors import SourceError
from curriculum.generation.base import Generation, Messages, cut_at
from curriculum.generation.settings import GeneratorSettings


class EndpointGenerator:
    """One request a prompt, with a time limit and bounded retries. Text before the first stop string is kept, whoever cuts it.

    The key comes from the environment and goes into the header of the request alone: it is cut out of an error that repeats it.

    Raises:
        SourceError: no base URL; and while generating, an endpoint that cannot be reached or refuses.
    """

    def __init__(self, settings: GeneratorSettings) -> None:
        from openai import OpenAI

        if not settings.base_url:
            raise SourceError("generator.kind is 'endpoint' but generator.base_url is empty; set it to what comes before /chat/completions")
        self._settings, self.name = settings, settings.model
        self._client = OpenAI(
            base_url=settings.base_url, api_key=self._key() or "none", timeout=settings.timeout_seconds, max_retries=settings.retries
        )  # local servers ask for no key, the client insists on one

    def generate(
        self, prompts: list[Messages], *, max_new_tokens: int, stop: tuple[str, ...] = (), temperature: float = 0.0, seed: int = 0
    ) -> list[Generation]:
        """One chat completion a prompt."""
        sent = self._sent(max_new_tokens, stop=list(stop) or None, temperature=temperature, seed=seed)
        return [self._one(p, stop, sent) for p in prompts]

    def stream(self, prompt: Messages, *, max_new_tokens: int) -> Iterator[str]:
        """One chat completion as the endpoint sends it. Closing the iterator closes the connection."""
        from openai import OpenAIError

        failure = ""
        try:
            sent = self._sent(max_new_tokens, temperature=0.0, seed=0)
            with self._client.chat.completions.create(model=self._settings.model, messages=prompt, stream=True, **sent) as pieces:  # type: ignore[call-overload]
                for piece in pieces:
                    yield (piece.choices[0].delta.content if piece.choices else None) or ""
        except OpenAIError as error:
            failure = f"{type(error).__name__}: {error}"
        if failure:
            raise self._refused(failure)

    def _sent(self, max_new_tokens: int, **optional: Any) -> dict[str, Any]:
        """The parameters of a request: those with a value that the endpoint takes."""
        optional["reasoning_effort"] = self._settings.reasoning_effort or None
        taken = {name: value for name, value in optional.items() if value is not None and name not in self._settings.unsent}
        return {"max_tokens": max_new_tokens, **taken}

    def _one(self, messages: Messages, stop: tuple[str, ...], parameters: dict[str, Any]) -> Generation:
        from openai import OpenAIError

        begun, failure = time.perf_counter(), ""
        try:
            made = self._client.chat.completions.create(model=self._settings.model, messages=messages, **parameters)  # type: ignore[call-overload]
        except OpenAIError as error:
            failure = f"{type(error).__name__}: {error}"
        if failure:  # raised out here: a chained error would carry the endpoint's own words into the traceback, and a key in them
            raise self._refused(failure)
        choice, usage = made.choices[0], made.usage
        text, cut = cut_at(choice.message.content or "", stop)
        return Generation(
            text.strip(), usage.prompt_tokens if usage else 0, usage.completion_tokens if usage else 0,
            time.perf_counter() - begun, "stop" if cut else choice.finish_reason or "stop",
        )  # fmt: skip

    def _refused(self, failure: str) -> SourceError:
        key = self._key()
        shown = failure.replace(key, "***") if key else failure
        return SourceError(
            f"the generator at {self._settings.base_url} gave no answer ({shown}); check generator.base_url, "
            f"generator.model and the key in ${self._settings.api_key_variable}"
        )

    def _key(self) -> str:
        return os.environ.get(self._settings.api_key_variable, "")
