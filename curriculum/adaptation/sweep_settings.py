"""Budgets of the sweep of an adapter's rank and place."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


class SweepSettings(BaseModel):
    """What is varied, on how little. A fit is ``steps`` of ``batch_size`` blocks; the defaults are the starter profile's: two cores, offline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field("packaged:smollm2", description="causal language model that is adapted, in NF4")
    own_source: str = Field("", description="a third domain of the user's own: path: a folder or file of text; none where empty")
    general_source: str = Field("", description="text to forget: path: a folder or file; where empty, a domain's is the held-out text of the others")
    ranks: tuple[int, ...] = Field((2, 8, 32), min_length=2, description="tried on the modules of the reference")
    targets: dict[str, tuple[str, ...]] = Field(
        {"attention": _ATTENTION, "mlp": _FEED_FORWARD, "all": (*_ATTENTION, *_FEED_FORWARD)},
        description="linear layers that get an adapter, by the last part of their name; tried at the reference's rank",
    )
    reference_rank: int = Field(8, ge=1)
    reference_targets: str = "all"
    reference_seeds: int = Field(2, ge=1, description="of the reference alone: what chance does, beside what the choices do")
    alpha: int = Field(16, ge=1, description="the same for every rank, as the paper has it: the output is scaled by alpha / rank")
    steps: int = Field(6, ge=1)
    batch_size: int = Field(4, ge=1, description="blocks a step")
    block_size: int = Field(128, ge=8, description="tokens a block predicts")
    learning_rate: float = Field(1e-3, gt=0)
    warmup_steps: int = Field(1, ge=0)
    test_blocks: int = Field(8, ge=2, description="held-out blocks of a text that are measured")

    @model_validator(mode="after")
    def _reference_is_tried(self) -> SweepSettings:
        if self.reference_rank not in self.ranks or self.reference_targets not in self.targets:
            raise ValueError("reference_rank must be one of ranks, and reference_targets one of targets")
        return self
