"""Budgets of the alignment study."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AlignmentSettings(BaseModel):
    """Model, pairs and budget. The defaults are the starter profile's: at most twelve minutes on two cores, offline.

    The counts follow from about 7 ms a token of a LoRA step and 2.5 ms a token scored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field("packaged:smollm2", description="causal language model that is aligned (Llama-family module names)")
    passage_words: int = Field(40, ge=10, description="at most, of the passage a question is asked about")
    sft_questions: int = Field(72, ge=1, description="questions whose grounded answer is imitated")
    preference_questions: int = Field(80, ge=1, description="questions whose pairs train the reward model and DPO")
    policy_questions: int = Field(40, ge=1, description="questions the policy answers while it is optimised")
    test_questions: int = Field(48, ge=2, description="held-out questions: their pairs are ranked, and every model answers them")
    rank: int = Field(8, ge=1, description="of the LoRA adapters, one a step of the study, on every linear layer but the head")
    alpha: int = Field(16, ge=1)
    batch_size: int = Field(4, ge=1, description="questions an optimiser step, each with its grounded and ungrounded answers")
    warmup_share: float = Field(0.1, ge=0, le=1)
    clip_norm: float = Field(1.0, gt=0)
    sft_rate: float = Field(5e-4, gt=0)
    reward_rate: float = Field(5e-4, gt=0)
    dpo_rate: float = Field(2e-4, gt=0)
    dpo_beta: float = Field(0.1, gt=0)
    policy_rate: float = Field(2e-4, gt=0)
    policy_beta: float = Field(0.1, ge=0, description="weight of the KL penalty, in standard deviations of the reward a nat")
    clip: float = Field(0.2, gt=0, lt=1, description="range in which the ratio of new to old probability counts")
    kl_bound: float = Field(
        1.84, gt=0, description="nats an answer: what best-of-16 spends at most, ln 16 - 15/16; the policy may not spend more at any step"
    )
    group: int = Field(4, ge=2, description="sampled answers a question, against whose mean each is judged")
    prompts_a_step: int = Field(4, ge=1)
    policy_steps: int = Field(10, ge=1)
    max_new_tokens: int = Field(16, ge=1)
    decoding_batch: int = Field(16, ge=1)
    verifier_questions: int = Field(48, ge=1, description="held-out questions whose pairs the support verifier ranks")
