"""Rows of the table of decoding algorithms: the beginnings of notes continued by the profile's generator, each way of decoding in turn.

Contrastive search is left out: transformers 5 ships it no more, and its copy on the hub runs code from there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from curriculum.corpora.documents import text_digest
from curriculum.errors import UserError
from curriculum.evaluation.statistics import bootstrap_mean
from curriculum.generation.local import LocalGenerator
from curriculum.reading.metrics import f1
from curriculum.results import Identity, Metric, StudyResult
from curriculum.rows.settings import RowSettings

_BEGINNING = 32  # words of a passage that are given; what follows them is the reference
_PLAIN = {"top_k": 0, "top_p": 1.0, "temperature": 1.0}  # the model's own generation settings may hold others
_WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False, "num_beams": 1},
    "beam": {"do_sample": False, "num_beams": 4, "length_penalty": 1.0},
    "sampling": {"do_sample": True, **_PLAIN},
    "top_k": {"do_sample": True, **_PLAIN, "top_k": 40},  # Fan et al., 2018
    "top_p": {"do_sample": True, **_PLAIN, "top_p": 0.9},  # Holtzman et al., 2020
    "min_p": {"do_sample": True, **_PLAIN, "min_p": 0.1},  # Nguyen et al., 2024
    "typical": {"do_sample": True, **_PLAIN, "typical_p": 0.9},  # Meister et al., 2023
}
_HIGHER = {"reference_f1": True, "distinct_2": True, "repeated_4": False, "log_likelihood": True}


def decoding_row(
    way: str, passages: pd.DataFrame, generator: Any, rows: RowSettings,
    *, seed: int, identities: list[Identity], progress: Callable[[str], None],
) -> StudyResult:  # fmt: skip
    """Continuations of one way of decoding, scored for quality and for variety; one continuation a prompt, drawn from ``seed``.

    ``reference_f1`` is the overlap in words with what the note says next, ``log_likelihood`` the mean over the tokens of the
    continuation under the model itself (natural logarithm, temperature 1), ``distinct_2`` the share of different pairs of tokens
    (Li et al., 2016), ``repeated_4`` the share of runs of four tokens that stood before (Welleck et al., 2020).

    Raises:
        UserError: the generator is an endpoint, which decodes as it likes.
    """
    if not isinstance(generator, LocalGenerator):
        raise UserError("decoding algorithms are compared on a local model; set generator.kind to local in the profile")
    prompts = _prompts(passages, rows.decoding_prompts)
    found, begun = [], time.perf_counter()
    for start in range(0, len(prompts), generator.batch_size):
        found += _continue(generator, prompts.iloc[start : start + generator.batch_size], way, rows.decoding_tokens, seed)
        progress(f"{len(found)} of {len(prompts)} prompts, {time.perf_counter() - begun:.0f} s")
    seconds = time.perf_counter() - begun
    table = pd.DataFrame(found)
    return StudyResult(
        study=f"decoding_row/{way}",
        metrics=[
            *(_mean(table, name, seed) for name in _HIGHER),
            Metric(name="tokens_per_second", value=float(table["tokens"].sum() / seconds), n=len(table), deterministic=False),
        ],
        settings={"way": way, **_WAYS[way], "new_tokens": rows.decoding_tokens, "prompts": len(table)},
        identities=identities, seeds=[seed], per_example=table, tables={"texts": table[["example_id", "prompt", "text", "reference"]]},
    )  # fmt: skip


def _prompts(passages: pd.DataFrame, count: int) -> pd.DataFrame:
    """The notes' passages that are long enough to be continued, by hash."""
    own = passages[(passages["source"] == "notes") & (passages["text"].str.split().str.len() >= 2 * _BEGINNING)]
    return own.assign(order=own["passage_id"].map(text_digest)).sort_values("order").head(count)


@torch.no_grad()
def _continue(generator: LocalGenerator, passages: pd.DataFrame, way: str, tokens: int, seed: int) -> list[dict[str, Any]]:
    words = [text.split() for text in passages["text"]]
    prompts = [" ".join(w[:_BEGINNING]) for w in words]
    inputs = generator.tokenizer(prompts, return_tensors="pt", padding=True).to(generator.device)
    torch.manual_seed(seed)
    out = generator.model.generate(
        **inputs, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=generator.tokenizer.pad_token_id, **_WAYS[way]
    )  # of one length: distinct_2 and repeated_4 depend on it
    width = inputs["input_ids"].shape[1]
    likelihoods = _likelihoods(generator, out, inputs["attention_mask"], width)
    rows = []
    for passage, said, prompt, ids, likelihood in zip(passages["passage_id"], words, prompts, out[:, width:].tolist(), likelihoods, strict=True):
        text, reference = generator.tokenizer.decode(ids, skip_special_tokens=True).strip(), " ".join(said[_BEGINNING:])
        rows.append(
            {"example_id": passage, "prompt": prompt, "text": text, "reference": reference, "reference_f1": f1(text, [reference]),
             "distinct_2": distinct(ids, 2), "repeated_4": 1 - distinct(ids, 4), "log_likelihood": likelihood, "tokens": len(ids)}
        )  # fmt: skip
    return rows


def _likelihoods(generator: LocalGenerator, ids_BT: torch.Tensor, prompt_BT: torch.Tensor, width: int) -> list[float]:
    """Mean natural-log probability of the tokens from ``width`` on, a sequence."""
    mask_BT = torch.cat([prompt_BT, torch.ones_like(ids_BT[:, width:])], dim=1)
    positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
    logits_BTV = generator.model(input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_BT).logits[:, width - 1 : -1]
    scores_BTV = torch.log_softmax(logits_BTV.float(), dim=-1)
    return scores_BTV.gather(-1, ids_BT[:, width:, None]).squeeze(-1).mean(dim=1).tolist()


def distinct(ids: list[int], n: int) -> float:
    """The share of a sequence's runs of ``n`` tokens that differ; 1 where it is shorter than ``n``."""
    runs = Counter(zip(*(ids[i:] for i in range(n)), strict=False))
    return len(runs) / runs.total() if runs else 1.0


def _mean(table: pd.DataFrame, name: str, seed: int) -> Metric:
    low, high = bootstrap_mean(np.asarray(table[name]), seed=seed)
    return Metric(name=name, value=float(table[name].mean()), low=low, high=high, n=len(table), higher_is_better=_HIGHER[name])
