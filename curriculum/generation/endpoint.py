"""Any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import os
import time
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
        optional = {"stop": list(stop) or None, "temperature": temperature, "seed": seed, "reasoning_effort": self._settings.reasoning_effort or None}
        sent = {name: value for name, value in optional.items() if value is not None and name not in self._settings.unsent}
        return [self._one(p, stop, {"max_tokens": max_new_tokens, **sent}) for p in prompts]

    def _one(self, messages: Messages, stop: tuple[str, ...], parameters: dict[str, Any]) -> Generation:
        from openai import OpenAIError

        begun, failure = time.perf_counter(), ""
        try:
            made = self._client.chat.completions.create(model=self._settings.model, messages=messages, **parameters)  # type: ignore[call-overload]
        except OpenAIError as error:
            failure = f"{type(error).__name__}: {error}"
        if failure:  # raised out here: a chained error would carry the endpoint's own words into the traceback, and a key in them
            key = self._key()
            shown = failure.replace(key, "***") if key else failure
            raise SourceError(
                f"the generator at {self._settings.base_url} gave no answer ({shown}); check generator.base_url, "
                f"generator.model and the key in ${self._settings.api_key_variable}"
            )
        choice, usage = made.choices[0], made.usage
        text, cut = cut_at(choice.message.content or "", stop)
        return Generation(
            text.strip(), usage.prompt_tokens if usage else 0, usage.completion_tokens if usage else 0,
            time.perf_counter() - begun, "stop" if cut else choice.finish_reason or "stop",
        )  # fmt: skip

    def _key(self) -> str:
        return os.environ.get(self._settings.api_key_variable, "")
