"""Our losses against trl's own: the same small models, the same pairs, loss and gradients through its trainers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from curriculum.alignment.losses import dpo_loss, grpo_loss, per_answer
from curriculum.alignment.model import Group, answer_logits, chosen_log_probabilities, rows_of
from curriculum.alignment.training import pairs_in

_BETA, _CLIP = 0.3, 0.2
_SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


def dpo_parity(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[dict[str, str]]) -> dict[str, float]:
    """``trl_loss_error`` and ``trl_gradient_error``: DPO's loss and its gradients (relative to the largest) against trl's DPOTrainer.

    ``pairs`` have a prompt, a chosen and a rejected text, each answer beginning with a space. trl tokenises, pads and scores them
    as rows of their own; here a row holds the prompt once. Policy and reference are two small models with different weights.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model, reference = _small(tokenizer, 1), _small(tokenizer, 2)
    with tempfile.TemporaryDirectory() as folder:
        trainer = DPOTrainer(
            model=model, ref_model=reference, processing_class=tokenizer, train_dataset=Dataset.from_list(list(pairs)),
            args=DPOConfig(output_dir=folder, beta=_BETA, per_device_train_batch_size=len(pairs), **_PLAIN),
        )  # fmt: skip
        batch = next(iter(trainer.get_train_dataloader()))
        theirs = trainer.compute_loss(model, batch)
        gradients = _gradients(model, theirs)
    groups = [_group(tokenizer, pair) for pair in pairs]
    rows = rows_of(groups, pad=tokenizer.pad_token_id)
    better, worse = pairs_in(groups)
    ours = per_answer(chosen_log_probabilities(answer_logits(model, rows), rows), rows.owner, len(rows.last))
    with torch.no_grad():
        base = per_answer(chosen_log_probabilities(answer_logits(reference, rows), rows), rows.owner, len(rows.last))
    loss = dpo_loss(ours[better], ours[worse], base[better], base[worse], beta=_BETA).mean()
    return {"trl_loss_error": _difference(loss, theirs), "trl_gradient_error": _furthest(_gradients(model, loss), gradients)}


def grpo_parity(tokenizer: PreTrainedTokenizerBase, groups: Sequence[Group]) -> dict[str, float]:
    """``trl_grpo_loss_error`` and ``trl_grpo_gradient_error``, against trl's GRPOTrainer with its loss type "grpo".

    trl reads prompts padded on the left, an answer a row; the old and the reference log-probabilities are made up, and given to both.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    model, answers = _small(tokenizer, 1), [(prompt, answer) for prompt, some in groups for answer in some]
    rows = rows_of(groups, pad=tokenizer.pad_token_id)
    ours = chosen_log_probabilities(answer_logits(model, rows), rows)
    waves = torch.arange(len(ours)).sin()
    sampled, held = ours.detach() - 0.4 * waves, ours.detach() + 0.5 * waves.flip(0)  # some ratios are clipped, some are not
    advantages = torch.linspace(-1, 1, len(answers))
    inputs = {
        "prompt_ids": _padded([p for p, _ in answers], left=True), "prompt_mask": _padded([[1] * len(p) for p, _ in answers], left=True),
        "completion_ids": _padded([a for _, a in answers]), "completion_mask": _padded([[1] * len(a) for _, a in answers]),
        "advantages": advantages,
    }  # fmt: skip
    for name, values in (("old_per_token_logps", sampled), ("ref_per_token_logps", held)):
        inputs[name] = _padded([part.tolist() for part in values.split([len(a) for _, a in answers])])
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, beta=0.0, epsilon=_CLIP, loss_type="grpo", use_bias_correction_kl=False, per_device_train_batch_size=2,
            num_generations=2, **_PLAIN,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=config, processing_class=tokenizer,
            train_dataset=Dataset.from_list([{"prompt": "a"}] * 2),
        )  # fmt: skip
        trainer.beta = _BETA  # from the start it would load a reference from the hub; its log-probabilities are given
        model.eval()  # trl divides by the accumulated steps while it trains
        theirs = trainer._compute_loss(model, inputs)
        gradients = _gradients(model, theirs)
    loss = grpo_loss(ours, sampled, held, advantages, rows.owner, beta=_BETA, clip=_CLIP)
    return {"trl_grpo_loss_error": _difference(loss, theirs), "trl_grpo_gradient_error": _furthest(_gradients(model, loss), gradients)}


def _padded(rows: Sequence[list], *, left: bool = False) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[0] * (width - len(row)) + row if left else row + [0] * (width - len(row)) for row in rows])


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).detach().abs())


def _group(tokenizer: PreTrainedTokenizerBase, pair: dict[str, str]) -> Group:
    answers = [tokenizer(pair[name], add_special_tokens=False)["input_ids"] for name in ("chosen", "rejected")]
    return tokenizer(pair["prompt"], add_special_tokens=False)["input_ids"], [[*ids, tokenizer.eos_token_id] for ids in answers]


_PLAIN: dict[str, Any] = {"bf16": False, "gradient_checkpointing": False, "report_to": "none", "use_cpu": True, "disable_tqdm": True}


def _small(tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, initializer_range=0.2, **_SHAPE, **ends))


def _gradients(model: torch.nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


def _furthest(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    largest = max(float(t.abs().max()) for t in theirs)
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) / largest
