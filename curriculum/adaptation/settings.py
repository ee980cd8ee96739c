"""Budgets of the QLoRA adapter and of its report."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AdapterSettings(BaseModel):
    """Base model, adapter and budget. The defaults are the starter profile's: two cores, offline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field("packaged:smollm2", description="causal language model that is adapted (Llama-family module names by default)")
    quantisation: Literal["nf4", "none"] = Field("nf4", description="nf4: linear layers in 4 bits (QLoRA); none: plain LoRA")
    double_quantisation: bool = Field(True, description="quantise the scales of the 4-bit blocks too: 0.37 bits a weight less")
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1, description="the adapter's output is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the adapter's input while training")
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1,
        description="linear layers that get an adapter, by the last part of their name",
    )
    block_size: int = Field(512, ge=8, description="tokens a packed block predicts")
    batch_size: int = Field(1, ge=1, description="blocks a forward pass")
    accumulation: int = Field(1, ge=1, description="forward passes an optimiser step")
    steps: int = Field(20, ge=1)
    learning_rate: float = Field(5e-4, gt=0)
    warmup_steps: int = Field(2, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    optimizer: Literal["auto", "adamw"] = Field("auto", description="auto: paged on CUDA, plain elsewhere; adamw: plain")
    gradient_checkpointing: bool = Field(False, description="keep one tensor a layer, recompute the rest: a third more time")
    logit_chunk: int = Field(128, ge=1, description="positions whose logits exist at one time")
    checkpoint_every: int = Field(5, ge=1, description="steps between checkpoints")
    domain_blocks: int = Field(12, ge=2, description="held-out domain blocks the report measures")
    general_blocks: int = Field(6, ge=2, description="blocks of text outside the domain the report measures")
    general_source: str = Field("packaged:notes", description="text outside the domain: packaged:notes, or path: a folder or file")
