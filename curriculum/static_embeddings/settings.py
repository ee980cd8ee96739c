"""Budgets of the study of static word embeddings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class GloveSettings(BaseModel):
    """GloVe's own budget: it reads the counts, not the text, so epochs are passes over the observed cells."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: int = Field(10, gt=0, description="words on either side; a word at distance n counts 1/n")
    x_max: float = Field(10.0, gt=0, description="count from which a cell weighs one; the paper's 100 is for billions of tokens")
    power: float = Field(0.75, gt=0)
    epochs: int = Field(25, gt=0)
    batches: int = Field(40, gt=0, description="parts the observed cells are drawn into at random, a step each")
    learning_rate: float = Field(0.05, gt=0, description="of AdaGrad")


class StaticEmbeddingsSettings(BaseModel):
    """What is trained, and what it is scored on. The defaults are the starter profile's: twenty minutes of a core that is shared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field("packaged:pydocs", description="text trained on: packaged:pydocs or path:DIR")
    similarity: str = Field("packaged:word-similarity", description="graded word pairs: that, or path: of a file or folder")
    analogies: str = Field("packaged:word-analogy", description="word analogies: that, or path: of a file or folder")
    maximum_tokens: int = Field(600_000, gt=0, description="the text is cut after this many words")
    minimum_count: int = Field(5, gt=0)
    dimensions: int = Field(64, gt=0)
    window: int = Field(5, gt=0, description="a radius is drawn from 1 to this for each word")
    negatives: int = Field(5, gt=0)
    noise_power: float = Field(0.75, ge=0)
    subsample: float = Field(1e-3, ge=0, description="threshold t of keeping a word with probability sqrt(t / f); 0 keeps all")
    epochs: int = Field(4, gt=0)
    learning_rate: float = Field(0.025, gt=0, description="falls linearly to minimum_learning_rate")
    minimum_learning_rate: float = Field(1e-4, gt=0)
    batch_pairs: int = Field(2048, gt=0, description="pairs a step; their gradients are summed, as in one step a pair")
    minimum_gram: int = Field(3, gt=0)
    maximum_gram: int = Field(6, gt=0)
    buckets: int = Field(100_000, gt=0, description="rows of the n-gram table; the paper has 2,000,000")
    glove: GloveSettings = GloveSettings()
    seeds: int = Field(3, gt=0)
    unseen_words: int = Field(150, gt=0, description="words taken out of the text, that fastText is asked for afterwards")
    neighbours: int = Field(10, gt=0)
    resamples: int = Field(1000, gt=0, description="of the bootstrap")
    shown_words: tuple[str, ...] = ("array", "function", "exception", "file", "thread", "matrix", "month", "king", "city", "music")

    @model_validator(mode="after")
    def _ordered(self) -> StaticEmbeddingsSettings:
        if self.minimum_gram > self.maximum_gram or self.minimum_learning_rate > self.learning_rate:
            raise ValueError("minimum_gram must not be above maximum_gram, nor minimum_learning_rate above learning_rate")
        return self
