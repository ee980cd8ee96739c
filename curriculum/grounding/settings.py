"""Settings of the support verifier (section ``verifier``)."""

from __future__ import annotations

from pydantic import Field

from curriculum.crossencoder.settings import CrossEncoderSettings


class VerifierSettings(CrossEncoderSettings):
    """How the support verifier is trained and calibrated."""

    steps: int = Field(110, ge=1)
    batch_size: int = Field(8, ge=1, description="pairs of one supported and one unsupported claim a step")
    max_length: int = Field(160, ge=16)
    window_words: int = Field(80, ge=10, description="words of passage judged at once; a longer passage is judged window by window")
    sentence_claims: int = Field(1, ge=0, description="claims made of context sentences for each question-answering example")
    max_examples: int = Field(4000, ge=1, description="question-answering examples that claims are made of")
    baseline_encoder: str = Field("packaged:minilm", description="sentence encoder of the cosine baseline")
    bootstrap_resamples: int = Field(500, ge=100)
