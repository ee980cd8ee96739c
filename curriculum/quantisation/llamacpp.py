"""llama.cpp on a GGUF file, by the package xllamacpp: how likely it finds a text, and how fast it reads and writes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curriculum.errors import UserError


class LlamaCpp:
    """A model that is loaded until the object goes.

    The package starts llama.cpp's server, which listens on a free port of this machine; the key it asks for is never told to anyone.
    """

    def __init__(self, file: Path, *, threads: int, context: int) -> None:
        """``context``: tokens of the longest sequence.

        Raises:
            UserError: llama.cpp does not read the file.
        """
        import xllamacpp

        options = xllamacpp.CommonParams()
        options.model.path = str(file)
        options.n_ctx, options.n_parallel, options.verbosity, options.fit_params = context, 1, 0, False
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = threads
        options.api_keys, options.endpoint_slots = [secrets.token_hex(32)], False
        try:
            self._server = xllamacpp.Server(options)
        except RuntimeError as error:
            raise UserError(f"llama.cpp does not read {file}: {error}; set quantisation.gguf to a GGUF file of a family it knows") from error

    def nats(self, ids: Sequence[int]) -> list[float]:
        """Cross-entropy of each token after the first, in nats: [len(ids) - 1].

        A request a token: it is made the only choice, and its log-probability is asked for as it was before. What was read stays cached.
        """
        return [-self._say(ids[:end], 1, n_probs=1, logit_bias=[[ids[end], 1e4]], cache_prompt=True)[1] for end in range(1, len(ids))]

    def speed(self, prompt: Sequence[int], new_tokens: int) -> tuple[float, float]:
        """Tokens a second of reading ``prompt`` and of writing ``new_tokens`` after it, by llama.cpp's own clock."""
        timings, _ = self._say(prompt, new_tokens + 1, n_probs=1, ignore_eos=True, cache_prompt=False)
        # the first token comes with the prompt
        return timings["prompt_per_second"], 1e3 * (timings["predicted_n"] - 1) / timings["predicted_ms"]

    def _say(self, ids: Sequence[int], new_tokens: int, **options: Any) -> tuple[dict[str, float], float]:
        """The request's timings, and the log-probability of the first token said."""
        said = self._server.handle_completions({"prompt": list(ids), "n_predict": new_tokens, "temperature": 0.0, **options})
        if "choices" not in said:
            raise UserError(f"llama.cpp refused a request of {len(ids)} tokens: {said}")
        first = said["choices"][0]["logprobs"]["content"][0]
        if (forced := options.get("logit_bias")) and first["id"] != forced[0][0]:
            raise UserError(f"llama.cpp said token {first['id']} where {forced[0][0]} was the only choice: another version of it?")
        return said["timings"], first["logprob"]
