"""Data, model and budget of the reader."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Trial(BaseModel):
    """One row of the hyper-parameter table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(gt=0)
    batch_size: int = Field(gt=0, description="windows a micro-batch; an optimiser step takes ``accumulate`` of them")
    epochs: int = Field(1, gt=0)
    max_length: int = Field(gt=32, description="tokens of a window")


class SearchSettings(BaseModel):
    """The hyper-parameter study: Optuna's TPE over these ranges, judged on dev questions; the best setting trains the reader."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: int = Field(3, gt=0, description="finished trials in all")
    examples: int = Field(160, gt=0, description="training questions a trial sees")
    first: tuple[Trial, ...] = Field((), description="settings known to be worth trying, tried before the sampler chooses")
    startup: int = Field(4, ge=0, description="trials before TPE has enough to go by; until then it draws at random")
    learning_rate: tuple[float, float] = Field((2e-4, 4e-4), description="lowest and highest, drawn on a log scale")
    batch_size: tuple[int, ...] = Field((8, 16), min_length=1)
    epochs: tuple[int, ...] = Field((1,), min_length=1, description="of a trial, not of the final training")
    max_length: tuple[int, ...] = Field((160,), min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> SearchSettings:
        low, high = self.learning_rate
        if not 0 < low <= high:
            raise ValueError(f"learning_rate must be [lowest, highest] above 0, got [{low}, {high}]")
        if len(self.first) > self.trials:
            raise ValueError(f"{len(self.first)} settings under first do not fit into {self.trials} trials; raise trials")
        for trial in self.first:
            choices = {name: getattr(trial, name) in getattr(self, name) for name in ("batch_size", "epochs", "max_length")}
            outside = [name for name, inside in ({"learning_rate": low <= trial.learning_rate <= high} | choices).items() if not inside]
            if outside:
                raise ValueError(f"a setting under first lies outside the ranges searched: widen {', '.join(outside)}")
        return self


class ReaderSettings(BaseModel):
    """The reader. The defaults are the starter profile's: about two minutes on two cores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field("packaged:minilm", description="source of a BERT-family encoder")
    train_source: str = Field("", description="SQuAD v1 JSON by path:, or a hub: dataset; empty: questions on the notes and Python docs")
    test_source: str = Field("", description="where the test questions come from; empty: an unseen part of train_source, by article")
    in_domain_share: float = Field(0.0, ge=0, lt=1, description="share of test_source's articles that is trained on and not tested on")
    train_examples: int = Field(900, gt=0)
    dev_examples: int = Field(80, gt=0)
    test_examples: int = Field(240, gt=0)
    stride: int = Field(48, ge=0, description="tokens that two windows of one context share")
    search: SearchSettings = SearchSettings()
    epochs: int = Field(1, gt=0, description="of the final training, at most")
    evaluations: int = Field(3, gt=0, description="times an epoch of the final training that dev is scored, evenly spaced")
    patience: int = Field(3, gt=0, description="evaluations without a better dev F1 after which the final training stops")
    accumulate: int = Field(1, gt=0, description="micro-batches whose gradients make one optimiser step")
    warmup_share: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    checkpoint_every: int = Field(25, gt=0, description="optimiser steps")
    max_answer_tokens: int = Field(48, gt=0)
    n_best: int = Field(20, gt=0)

    @model_validator(mode="after")
    def _has_test_articles(self) -> ReaderSettings:
        if self.in_domain_share and not (self.test_source or self.train_source.startswith("hub:")):
            raise ValueError("in_domain_share takes articles from test_source; name one")
        return self
