"""The losses of learning from preferences, from scratch, and the divergence that holds the policy back."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid


def bradley_terry_loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """``-log sigmoid(r_chosen - r_rejected)`` of each pair [pairs] (Bradley and Terry, 1952; Ouyang et al., 2022, eq. 1)."""
    return -logsigmoid(chosen - rejected)


def dpo_loss(
    chosen: torch.Tensor, rejected: torch.Tensor, reference_chosen: torch.Tensor, reference_rejected: torch.Tensor, *, beta: float
) -> torch.Tensor:
    """``-log sigmoid(beta (h_w - h_l))`` of each pair, ``h`` the log-ratio of policy and reference (Rafailov et al., 2023, eq. 7).

    Log-probabilities [pairs] are sums over the answer's tokens.
    """
    return -logsigmoid(beta * ((chosen - reference_chosen) - (rejected - reference_rejected)))


def group_advantages(rewards: torch.Tensor) -> torch.Tensor:
    """Each reward [prompts, group] against its prompt's mean, in standard deviations of the group; 0 where all are equal.

    Shao et al. (2024), DeepSeekMath: the group's mean takes the place of PPO's value model.
    """
    spread = rewards.std(1, keepdim=True)
    return (rewards - rewards.mean(1, keepdim=True)) / (spread + 1e-4)


def penalty(log_probabilities: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """``exp(d) - d - 1`` with ``d = log ref - log pi`` [tokens]: never negative; over samples of pi its mean is KL(pi || ref).

    Schulman (2020), "Approximating KL divergence", k3.
    """
    difference = reference - log_probabilities
    return difference.exp() - difference - 1


def grpo_loss(
    log_probabilities: torch.Tensor, old: torch.Tensor, reference: torch.Tensor, advantages: torch.Tensor, owner: torch.Tensor,
    *, beta: float, clip: float,
) -> torch.Tensor:  # fmt: skip
    """The clipped policy loss with a KL penalty (Shao et al., 2024, eq. 3): mean over an answer's tokens, then over answers.

    Args:
        log_probabilities, old, reference: [tokens], of the policy, of the policy that sampled, of the reference.
        advantages: [answers].
        owner: int64 [tokens], the answer a token belongs to.
        beta: weight of :func:`penalty`.
        clip: half-width of the range in which the ratio counts.
    """
    ratio = (log_probabilities - old).exp()
    gain = advantages[owner]
    loss = -torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain) + beta * penalty(log_probabilities, reference)
    return (per_answer(loss, owner, len(advantages)) / per_answer(torch.ones_like(loss), owner, len(advantages))).mean()


def token_divergence(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KL(pi || ref) of the next token in nats, exact over the vocabulary: logits [tokens, vocabulary] -> [tokens].

    Summed along answers that pi sampled, its mean is the divergence of whole answers, with less variance than log-ratios have.
    """
    log_pi, log_reference = logits.log_softmax(-1), reference.log_softmax(-1)
    return (log_pi.exp() * (log_pi - log_reference)).sum(-1)


def per_answer(values: torch.Tensor, owner: torch.Tensor, answers: int) -> torch.Tensor:
    """Sums of ``values`` [tokens] over the tokens of each answer: [answers]."""
    return torch.zeros(answers, dtype=values.dtype, device=values.device).index_add(0, owner, values)
