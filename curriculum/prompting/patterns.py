"""Prompt patterns: zero-shot, few-shot, chain of thought, ReAct with real tools, and grounded with abstention.

Each answers all questions of a batch and keeps the whole transcript. None of them sees an accepted answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from curriculum.generation.base import Generation, Generator, Messages
from curriculum.grounding.numbers import numbers_supported
from curriculum.prompting.scoring import abstains
from curriculum.prompting.settings import PromptingSettings
from curriculum.prompting.tools import Search, calculate
from curriculum.reading.metrics import normalise

IDK = "I don't know."
_SHORT = f"Answer in a few words. If you are not sure, say: {IDK}"
_SHOTS = (
    ("How many bits does a byte have?", "8 bits"),
    ("What was the price of a ticket in the authors' home town?", IDK),
    ("Which optimizer decouples weight decay from the gradient?", "AdamW"),
)
_STOPWORDS = frozenset(
    "a an and are as at be by can do does for from has have how i in is it its not of on or so that the their there they this to was were what when "
    "which with would".split()
)


@dataclass
class Trace:
    """One question under one pattern: its answer, everything that was said, and what it cost."""

    answer: str
    transcript: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def pay(self, made: Generation) -> None:
        """Add a generation's cost."""
        self.prompt_tokens += made.prompt_tokens
        self.completion_tokens += made.completion_tokens
        self.seconds += made.seconds


@dataclass(frozen=True)
class Kit:
    """What a pattern works with."""

    generator: Generator
    search: Search
    settings: PromptingSettings
    seed: int = 0


def _ask(kit: Kit, prompts: list[Messages], max_new_tokens: int, stop: tuple[str, ...] = ()) -> list[Trace]:
    made = kit.generator.generate(prompts, max_new_tokens=max_new_tokens, stop=stop, seed=kit.seed)
    traces = []
    for prompt, generation in zip(prompts, made, strict=True):
        said = "\n".join(f"{m['role']}: {m['content']}" for m in prompt)
        trace = Trace(generation.text, f"{said}\nassistant: {generation.text}")
        trace.pay(generation)
        traces.append(trace)
    return traces


def zero_shot(kit: Kit, questions: list[str]) -> list[Trace]:
    """The question alone."""
    prompts = [[{"role": "system", "content": _SHORT}, {"role": "user", "content": q}] for q in questions]
    return _ask(kit, prompts, kit.settings.max_new_tokens)


def few_shot(kit: Kit, questions: list[str]) -> list[Trace]:
    """Three questions with their answers first, one of them an abstention (Brown et al., 2020)."""
    shots = [turn for q, a in _SHOTS for turn in ({"role": "user", "content": q}, {"role": "assistant", "content": a})]
    prompts = [[{"role": "system", "content": _SHORT}, *shots, {"role": "user", "content": q}] for q in questions]
    return _ask(kit, prompts, kit.settings.max_new_tokens)


def chain_of_thought(kit: Kit, questions: list[str]) -> list[Trace]:
    """Reasoning first, then a line that begins with "Answer:" (Wei et al., 2022; Kojima et al., 2022)."""
    rule = f"Think step by step in one or two sentences. Then write a last line: Answer: and the answer, or Answer: {IDK}"
    prompts = [[{"role": "system", "content": rule}, {"role": "user", "content": q}] for q in questions]
    traces = _ask(kit, prompts, kit.settings.reasoning_tokens)
    for trace in traces:
        trace.answer = final_answer(trace.answer)
    return traces


def final_answer(text: str) -> str:
    """What follows the last "Answer:", or the last line where there is none."""
    parts = re.split(r"(?i)\banswer\s*:", text)
    if len(parts) > 1:
        return parts[-1].strip()
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


_REACT = (
    "Answer the question with the tools. Each turn, write one line: Action: search[words], Action: calculator[arithmetic], "
    f"or Action: finish[answer]. Finish with {IDK} when the observations do not hold the answer."
)
_REACT_SHOT: Messages = [
    {"role": "user", "content": "Question: What does len([1, 2]) * 4 give?"},
    {"role": "assistant", "content": "Action: calculator[2 * 4]"},
    {"role": "user", "content": "Observation: 8"},
    {"role": "assistant", "content": "Action: finish[8]"},
]
_ACTION = re.compile(r"(?i)\b(search|calculator|finish)\s*\[([^\]]*)\]?")


def react(kit: Kit, questions: list[str]) -> list[Trace]:
    """Actions and observations in turn (Yao et al., 2022): at most ``max_steps``, all open questions a step in one batch.

    A turn without an action is taken as the answer; a loop that never finishes abstains.
    """
    chats: list[Messages] = [
        [{"role": "system", "content": _REACT}, *_REACT_SHOT, {"role": "user", "content": f"Question: {q}"}] for q in questions
    ]
    traces = [Trace("", "") for _ in questions]
    open_ = list(range(len(questions)))
    for _ in range(kit.settings.max_steps):
        if not open_:
            break
        made = kit.generator.generate(
            [chats[i] for i in open_], max_new_tokens=kit.settings.max_new_tokens, stop=("Observation:",), seed=kit.seed
        )
        still = []
        for i, generation in zip(open_, made, strict=True):
            traces[i].pay(generation)
            chats[i].append({"role": "assistant", "content": generation.text})
            action = _ACTION.search(generation.text)
            if action is None or action.group(1).lower() == "finish":
                traces[i].answer = action.group(2).strip() if action else final_answer(generation.text)
                continue
            chats[i].append({"role": "user", "content": f"Observation: {_observe(kit, action.group(1).lower(), action.group(2))}"})
            still.append(i)
        open_ = still
    for trace, chat in zip(traces, chats, strict=True):
        trace.transcript = "\n".join(f"{m['role']}: {m['content']}" for m in chat)
    return traces


def _observe(kit: Kit, tool: str, argument: str) -> str:
    if tool == "calculator":
        return calculate(argument)
    found = kit.search([argument], 1)[0] if argument.strip() else []
    return _short(found[0], kit.settings.passage_words) if found else "nothing found"


def _short(text: str, words: int) -> str:
    return " ".join(text.split()[:words])


def grounded(kit: Kit, questions: list[str]) -> list[Trace]:
    """Retrieved passages, the instruction to answer from them alone or abstain, and a check of the answer against them.

    An answer is withheld when a number in it is in no passage, or when less than ``support`` of its content words are: a
    rule over words, cheap and blind to meaning, which the support verifier of the RAG part is to better.
    """
    found = kit.search(questions, kit.settings.passages)
    contexts = ["\n".join(_short(p, kit.settings.passage_words) for p in passages) for passages in found]
    rule = f"Answer the question in a few words, using only the text. If the text does not hold the answer, say: {IDK}"
    prompts = [
        [{"role": "system", "content": rule}, {"role": "user", "content": f"Text:\n{c}\n\nQuestion: {q}"}]
        for c, q in zip(contexts, questions, strict=True)
    ]
    traces = _ask(kit, prompts, kit.settings.max_new_tokens)
    for trace, context in zip(traces, contexts, strict=True):
        if not abstains(trace.answer) and not supported(trace.answer, context, kit.settings.support):
            trace.transcript += "\n(withheld: the passages do not support it)"
            trace.answer = IDK
    return traces


def supported(answer: str, context: str, share: float) -> bool:
    """Whether every number of the answer, and at least ``share`` of its content words, stand in the context."""
    if not numbers_supported(context, answer):
        return False
    words = [w for w in normalise(answer).split() if w not in _STOPWORDS]
    known = set(normalise(context).split())
    return not words or sum(w in known for w in words) / len(words) >= share


PATTERNS: dict[str, Callable[[Kit, list[str]], list[Trace]]] = {
    "zero_shot": zero_shot, "few_shot": few_shot, "chain_of_thought": chain_of_thought, "react": react, "grounded": grounded,
}
