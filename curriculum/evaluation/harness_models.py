"""Models as lm-evaluation-harness sees them: the mini-Transformer, and a transformers model that reads a shared prefix once."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer

from curriculum.tokenization.training import END
from curriculum.transformer.model import load_model

Request = tuple[Any, list[int], list[int]]  # (texts or None, context tokens, continuation tokens)


class MiniTransformerLM(TemplateLM):
    """The from-scratch decoder in ``folder`` (``load_model``'s files and ``tokenizer.json``), reading ``context`` tokens at most."""

    def __init__(self, folder: Path, *, context: int, batch_size: int) -> None:
        super().__init__()
        self.model = load_model(folder)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.context, self.batch_size = context, batch_size

    @property
    def eot_token_id(self) -> int:
        """The id that parts documents: what a text is conditioned on when nothing precedes it."""
        return self.tokenizer.token_to_id(END)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids of ``string``; this tokenizer adds none of its own."""
        return self.tokenizer.encode(string, add_special_tokens=False).ids

    @torch.no_grad()
    def _loglikelihood_tokens(self, requests: list[Request], **kwargs: Any) -> list[tuple[float, bool]]:
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i][1]) - len(requests[i][2]))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            rows = [(requests[i][1] + requests[i][2])[-(self.context + 1) :] for i in chosen]
            width = max(map(len, rows)) - 1
            # padding stands after a row's end, where a causal model cannot look
            ids = torch.tensor([row[:-1] + [self.eot_token_id] * (width - len(row) + 1) for row in rows])
            logs = self.model(ids).log_softmax(-1)
            for i, row, log in zip(chosen, rows, logs, strict=True):
                answers[i] = _score(log[: len(row) - 1], row, len(requests[i][2]))
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of each text, every token predicted once, in windows of ``context`` tokens."""
        totals = []
        for (text,) in (request.args for request in requests):
            windows = utils.get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.context, context_len=1)
            pairs: list[Request] = [(None, *utils.make_disjoint_window(window)) for window in windows]
            totals.append(sum(score for score, _ in self._loglikelihood_tokens(pairs)))
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations, each cut before the first of its stop strings."""
        answers = []
        for text, options in (request.args for request in requests):
            ids = (self.tok_encode(text) or [self.prefix_token_id])[-self.context // 2 :]
            made = self.model.generate(ids, min(int(options.get("max_gen_toks", 32)), self.context - len(ids)))
            answer = self.tokenizer.decode(made[len(ids) :])
            stops = options.get("until", [])
            for stop in [stops] if isinstance(stops, str) else stops:
                answer = answer.split(stop)[0]
            answers.append(answer)
        return answers


def _score(log_probabilities: torch.Tensor, row: list[int], scored: int) -> tuple[float, bool]:
    """Sum over the last ``scored`` tokens of ``row`` of [len(row) - 1, vocabulary], and whether each was the likeliest."""
    scored = min(scored, len(row) - 1)
    wanted, logs = torch.tensor(row[-scored:], device=log_probabilities.device), log_probabilities[-scored:]
    return float(logs.gather(1, wanted[:, None]).sum()), bool((logs.argmax(1) == wanted).all())


class SharedPrefixLM(HFLM):
    """A transformers model in memory. Choices after one context are scored together, over the context's keys and values read once.

    With four short choices this multiplies half as much as one full sequence a choice; the scores are the same.
    """

    @torch.no_grad()
    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, (_, context, _) in enumerate(requests):
            groups[tuple(context)].append(i)
        longest = max((len(c) + len(t) for _, c, t in requests), default=0)
        if len(groups) == len(requests) or longest > self.max_length:
            return super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for context, members in groups.items():
            for i, answer in zip(members, self._after(list(context), [requests[m][2] for m in members]), strict=True):
                answers[i] = answer
                if requests[i][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[i][0], answer)
        return answers

    def _after(self, context: list[int], continuations: list[list[int]]) -> list[tuple[float, bool]]:
        read = self.model(torch.tensor([context], device=self.device), use_cache=True, logits_to_keep=1)
        first = read.logits[:, -1:].expand(len(continuations), -1, -1)
        width = max(map(len, continuations)) - 1
        if width:
            read.past_key_values.batch_repeat_interleave(len(continuations))
            rows = [c[:-1] + [self.eot_token_id] * (width - len(c) + 1) for c in continuations]
            rest = self.model(torch.tensor(rows, device=self.device), past_key_values=read.past_key_values, use_cache=True).logits
            first = torch.cat([first, rest], dim=1)
        logs = first.float().log_softmax(-1)
        # a row of one leading token: every token of the continuation is scored
        return [_score(log[: len(c)], [0, *c], len(c)) for log, c in zip(logs, continuations, strict=True)]
