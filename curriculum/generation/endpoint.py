"""Any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import os
import time

from curriculum.errors import SourceError
from curriculum.generation.base import Generation, Messages
from curriculum.generation.settings import GeneratorSettings


class EndpointGenerator:
    """One request a prompt, with a time limit and bounded retries.

    Raises:
        SourceError: no base URL; and while generating, an endpoint that cannot be reached or refuses.
    """

    def __init__(self, settings: GeneratorSettings) -> None:
        from openai import OpenAI

        if not settings.base_url:
            raise SourceError("generator.kind is 'endpoint' but generator.base_url is empty; set it to the endpoint's URL ending in /v1")
        key = os.environ.get(settings.api_key_variable) or "none"  # local servers ask for no key, the client insists on one
        self._settings, self.name = settings, settings.model
        self._client = OpenAI(base_url=settings.base_url, api_key=key, timeout=settings.timeout_seconds, max_retries=settings.retries)

    def generate(
        self, prompts: list[Messages], *, max_new_tokens: int, stop: tuple[str, ...] = (), temperature: float = 0.0, seed: int = 0
    ) -> list[Generation]:
        """One chat completion a prompt."""
        return [self._one(p, max_new_tokens, stop, temperature, seed) for p in prompts]

    def _one(self, messages: Messages, max_new_tokens: int, stop: tuple[str, ...], temperature: float, seed: int) -> Generation:
        from openai import OpenAIError

        begun = time.perf_counter()
        try:
            made = self._client.chat.completions.create(
                model=self._settings.model, messages=messages, max_tokens=max_new_tokens, stop=list(stop) or None,  # type: ignore[arg-type]
                temperature=temperature, seed=seed,
            )  # fmt: skip
        except OpenAIError as error:
            raise SourceError(
                f"the generator at {self._settings.base_url} gave no answer ({type(error).__name__}: {error}); check generator.base_url, "
                f"generator.model and the key in ${self._settings.api_key_variable}"
            ) from error
        choice, usage = made.choices[0], made.usage
        return Generation(
            (choice.message.content or "").strip(), usage.prompt_tokens if usage else 0, usage.completion_tokens if usage else 0,
            time.perf_counter() - begun, choice.finish_reason or "stop",
        )  # fmt: skip
