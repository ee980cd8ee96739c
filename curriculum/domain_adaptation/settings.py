"""Model, texts and budget of the study of domain- and task-adaptive pre-training."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DomainAdaptationSettings(BaseModel):
    """The same model and rate for every arm. The defaults are the starter profile's: two cores, offline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field("packaged:smollm2", description="causal language model that reads on, by LoRA in full precision")
    domain_source: str = Field("packaged:notes", description="domain text: packaged:notes, split as its questions are; or path: a folder or file")
    classification: str = Field(
        "packaged:notes", description="packaged:notes, the part of the syllabus a question is about; or path: a folder of train.csv and test.csv"
    )
    general_source: str = Field("", description="text outside the domain: path: a folder or file; the adapter's domain corpus where empty")
    seeds: int = Field(3, ge=1)
    domain_steps: int = Field(6, ge=1, description="of DAPT, and of the control that reads general text instead")
    task_steps: int = Field(3, ge=1, description="of TAPT")
    batch_size: int = Field(4, ge=1, description="blocks a step")
    block_size: int = Field(128, ge=8, description="tokens a block predicts")
    learning_rate: float = Field(1e-3, gt=0)
    warmup_steps: int = Field(1, ge=0, description="of each phase: the optimizer starts cold")
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    test_blocks: int = Field(6, ge=2, description="held-out blocks of each text that are measured")
    train_texts: int = Field(150, ge=1, description="labelled texts the classifier sees, by hash; TAPT reads all of the training side")
    dev_texts: int = Field(40, ge=1, description="for the choice of the classifier's penalty")
    test_texts: int = Field(120, ge=2)
    text_tokens: int = Field(48, ge=8, description="tokens of a labelled text; the rest is cut")
    penalties: tuple[float, ...] = Field((0.01, 0.1, 1.0), min_length=1, description="inverse strengths (C) of the classifier's penalty")
