"""Methods, tasks and budget of the study of parameter-efficient fine-tuning."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

Method = Literal["none", "full", "lora", "qlora", "prefix", "prompt", "p_tuning_v2", "bottleneck", "ia3"]
METHODS: tuple[Method, ...] = get_args(Method)

# three a method, some three to ten apart: what is usual for it in the middle. "none" trains nothing but the classifier's head
_RATES: dict[Method, tuple[float, ...]] = {
    "none": (), "full": (2e-5, 1e-4, 5e-4), "lora": (3e-4, 1e-3, 3e-3), "qlora": (3e-4, 1e-3, 3e-3), "prefix": (3e-4, 1e-3, 1e-2),
    "prompt": (3e-3, 3e-2, 3e-1), "p_tuning_v2": (3e-3, 3e-2, 1e-1), "bottleneck": (3e-4, 1e-3, 3e-3), "ia3": (3e-3, 1e-2, 1e-1),
}  # fmt: skip


class TuningSettings(BaseModel):
    """The same models, data, steps and batches for every method. The defaults are the starter profile's: two cores, offline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field("packaged:smollm2", description="causal language model of the generation task")
    encoder: str = Field("packaged:minilm", description="encoder of the classification task")
    classification: str = Field(
        "packaged:notes", description="packaged:notes, the part of the syllabus a question is about; or path: a folder of train.csv and test.csv"
    )
    seeds: int = Field(3, ge=1, description="runs at the chosen learning rate; the first of them chose it")
    learning_rates: dict[Method, tuple[float, ...]] = Field(_RATES, description="the grid of a method; the dev split chooses, a task at a time")
    head_learning_rate: float = Field(5e-3, gt=0, description="of the classifier's head, which every method trains")
    steps: int = Field(10, ge=1)
    batch_size: int = Field(4, ge=1, description="blocks a step")
    block_size: int = Field(48, ge=8, description="tokens a block predicts")
    dev_blocks: int = Field(8, ge=1)
    test_blocks: int = Field(16, ge=2)
    classifier_steps: int = Field(40, ge=1)
    classifier_batch_size: int = Field(16, ge=1, description="texts a step")
    classifier_tokens: int = Field(48, ge=8, description="tokens of a text; the rest is cut")
    train_texts: int = Field(640, ge=1, description="at most, by hash")
    dev_texts: int = Field(160, ge=1)
    test_texts: int = Field(300, ge=2)
    rank: int = Field(8, ge=1, description="of LoRA and QLoRA, on every linear layer but the head")
    alpha: int = Field(16, ge=1)
    virtual_tokens: int = Field(8, ge=1, description="of prefix tuning, prompt tuning and P-tuning v2")
    prefix_hidden: int = Field(128, ge=1, description="inner width of the network that makes the prefix while it is trained")
    bottleneck: int = Field(32, ge=1, description="inner width of a bottleneck adapter")
    warmup_share: float = Field(0.1, ge=0, le=1)
    clip_norm: float = Field(1.0, gt=0)

    @field_validator("learning_rates")
    @classmethod
    def _complete(cls, value: dict[Method, tuple[float, ...]]) -> dict[Method, tuple[float, ...]]:
        found = {**_RATES, **value}
        if empty := [method for method, rates in found.items() if not rates and method != "none"]:
            raise ValueError(f"no learning rate for {', '.join(empty)}: give each at least one")
        return found

    def of(self, method: Method) -> TuningSettings:
        """What the row of ``method`` reads: of the grids only its own."""
        return self.model_copy(update={"learning_rates": {method: self.learning_rates[method]}})
