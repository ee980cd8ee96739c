"""A causal language model with one LoRA adapter a role, and passes in which several answers share their prompt's computation.

An answer is a dozen tokens and its prompt ninety. So a row holds the prompt once and all its answers after it; each answer sees
the prompt and itself, at the positions it would have alone. What comes out is what separate rows give, and a test holds that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from curriculum.adaptation.model import quiet
from curriculum.alignment.settings import AlignmentSettings

Group = tuple[list[int], list[list[int]]]  # tokens of a prompt, and of each of its answers
_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def prompt_text(passage: str, question: str) -> str:
    """What a model is given; its answer follows after a space."""
    return f"Passage: {passage}\nQuestion: {question}\nAnswer in a few words of the passage:"


def group_of(tokenizer: PreTrainedTokenizerBase, prompt: str, answers: Sequence[str]) -> Group:
    """The tokens of a prompt and of its answers, each with a space before it and the end token after it."""
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return ids, [[*tokenizer(f" {answer}", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for answer in answers]


@dataclass(frozen=True)
class Rows:
    """Groups as one batch. Places are indices into the flattened [rows * length].

    ``owner`` int64 [tokens] names the answer of each answer token, ``before`` the place that predicts it, ``last`` [answers] the
    place of an answer's last token. Answers are numbered through the groups in order.
    """

    ids_RT: torch.Tensor
    positions_RT: torch.Tensor
    seen_R1TT: torch.Tensor
    targets: torch.Tensor
    before: torch.Tensor
    owner: torch.Tensor
    last: torch.Tensor


def rows_of(groups: Sequence[Group], *, pad: int, device: str = "cpu") -> Rows:
    """Lay out each group as prompt, answer, answer, ...; shorter rows are padded on the right."""
    length = max(len(prompt) + sum(map(len, answers)) for prompt, answers in groups)
    ids, positions, part = [], [], []
    targets, before, owner, last = [], [], [], []
    for r, (prompt, answers) in enumerate(groups):
        row, place, belongs = list(prompt), list(range(len(prompt))), [0] * len(prompt)
        for number, answer in enumerate(answers, 1):
            start = r * length + len(row)
            before += [r * length + len(prompt) - 1, *range(start, start + len(answer) - 1)]
            targets += answer
            owner += [len(last)] * len(answer)
            last.append(start + len(answer) - 1)
            row += answer
            place += range(len(prompt), len(prompt) + len(answer))
            belongs += [number] * len(answer)
        rest = length - len(row)
        ids.append(row + [pad] * rest)
        positions.append(place + [0] * rest)
        part.append(belongs + [-1] * rest)
    part_RT = torch.tensor(part, device=device)
    own = (part_RT[:, None, :] == part_RT[:, :, None]) | (part_RT[:, None, :] == 0)
    earlier = torch.ones(length, length, dtype=torch.bool, device=device).tril()

    def tensor(values: list) -> torch.Tensor:
        return torch.tensor(values, device=device)

    seen = (own & earlier)[:, None]
    return Rows(tensor(ids), tensor(positions), seen, tensor(targets), tensor(before), tensor(owner), tensor(last))


def plain(model: torch.nn.Module) -> Any:
    """The transformers model below any adapters; a call of it still goes through them."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def hidden_states(model: torch.nn.Module, rows: Rows) -> torch.Tensor:
    """The last layer's states [rows * length, width]."""
    decoder = plain(model).get_decoder()
    out = decoder(input_ids=rows.ids_RT, position_ids=rows.positions_RT, attention_mask=rows.seen_R1TT, use_cache=False)
    return out.last_hidden_state.flatten(0, 1)


def answer_logits(model: torch.nn.Module, rows: Rows) -> torch.Tensor:
    """Logits [tokens, vocabulary] of the answers' tokens alone."""
    return plain(model).get_output_embeddings()(hidden_states(model, rows)[rows.before]).float()


def chosen_log_probabilities(logits: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Log-probability [tokens] of each answer token, in nats."""
    return logits.log_softmax(-1).gather(1, rows.targets[:, None])[:, 0]


def attach(model: torch.nn.Module, role: str, settings: AlignmentSettings, *, seed: int) -> PeftModel:
    """``model`` with a new adapter called ``role``, which is active; it starts as no change."""
    torch.manual_seed(seed)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, bias="none", task_type="CAUSAL_LM", target_modules=_LINEAR)
    if isinstance(model, PeftModel):
        model.add_adapter(role, config)
        model.set_adapter(role)
        return model
    return get_peft_model(model, config, adapter_name=role)


def adapter(model: PeftModel, role: str) -> dict[str, torch.nn.Parameter]:
    """The parameters of one adapter, by name."""
    return {name: p for name, p in model.named_parameters() if f".{role}." in name}


def merged(model: PeftModel) -> PreTrainedModel:
    """The model with its adapter added into its weights: what later roles start from and are compared with."""
    with quiet():
        whole = model.merge_and_unload()
    return whole.requires_grad_(False)


@torch.no_grad()
def decode(
    model: torch.nn.Module, prompts: Sequence[list[int]], *, end: int, pad: int, limit: int, each: int = 1,
    generator: torch.Generator | None = None, device: str = "cpu",
) -> list[list[int]]:  # fmt: skip
    """``each`` answers a prompt, in the order of the prompts: greedy, or with ``generator`` sampled at temperature 1 from all tokens.

    An answer ends with ``end`` unless ``limit`` cut it. A prompt is read once for all its answers.
    """
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    whole, positions = plain(model), (mask.cumsum(1) - 1).clamp(min=0)
    out = whole(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
    cache = out.past_key_values
    cache.batch_repeat_interleave(each)
    logits, mask, at = (t.repeat_interleave(each, 0) for t in (out.logits[:, -1], mask, positions[:, -1:]))
    taken: list[torch.Tensor] = []
    done = torch.zeros(len(logits), dtype=torch.bool, device=device)
    while True:
        step = logits.argmax(-1) if generator is None else torch.multinomial(logits.float().softmax(-1), 1, generator=generator)[:, 0]
        taken.append(torch.where(done, end, step))
        done |= step == end
        if done.all() or len(taken) == limit:
            return [_until(row, end) for row in torch.stack(taken, 1).tolist()]
        at, mask = at + 1, torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        out = whole(input_ids=taken[-1][:, None], attention_mask=mask, position_ids=at, past_key_values=cache, use_cache=True)
        logits = out.logits[:, -1]


def _until(row: list[int], end: int) -> list[int]:
    return row[: row.index(end) + 1] if end in row else row
