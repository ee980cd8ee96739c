"""Training of the support verifier on claims derived from question answering."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curriculum.artifacts import ModelArtifact
from curriculum.crossencoder.model import CrossEncoder
from curriculum.crossencoder.training import train
from curriculum.errors import DataError
from curriculum.grounding.controls import with_controls
from curriculum.grounding.settings import VerifierSettings
from curriculum.grounding.synthesis import training_groups
from curriculum.grounding.verifier import SupportVerifier, failed_checks, fit_calibration

if TYPE_CHECKING:
    import pandas as pd


def train_verifier(
    qa_examples: pd.DataFrame,
    labelled_claims: pd.DataFrame,
    settings: VerifierSettings,
    *,
    model: Path,
    out: Path,
    checkpoints: Path,
    progress: Callable[[str], None],
    seed: int = 0,
    device: str = "cpu",
    precision: str = "float32",
) -> ModelArtifact:
    """Train on the training split of ``qa_examples``, calibrate on the dev split of ``labelled_claims`` with its controls.

    Raises:
        DataError: a split is empty, or the dev claims do not hold both labels.
    """
    rows = qa_examples[qa_examples["split"] == "train"]
    if rows.empty:
        raise DataError("qa_dataset has no rows of split 'train'; the support verifier is trained on these")
    rows = rows.sample(min(len(rows), settings.max_examples), random_state=seed)
    groups = training_groups(rows, words=settings.window_words, per_example=settings.sentence_claims, seed=seed)
    progress(f"{len(groups)} training pairs of claims from {len(rows)} question-answering examples")
    encoder = CrossEncoder.start(model, max_length=settings.max_length, seed=seed, device=device)
    losses = train(
        encoder, groups, settings, loss="binary", seed=seed, checkpoints=checkpoints, progress=progress, precision=precision
    )
    verifier = SupportVerifier(encoder, window_words=settings.window_words)
    dev = labelled_claims[labelled_claims["split"] == "dev"]
    if dev["supported"].nunique() != 2:
        raise DataError("labelled_claims needs supported and unsupported rows of split 'dev': the threshold is chosen on these")
    dev = with_controls(dev)
    pairs = list(zip(dev["passage"], dev["claim"], strict=True))
    verifier.calibration = fit_calibration(verifier.logits(pairs), failed_checks(pairs), dev["supported"].to_numpy(bool))
    verifier.save(out)
    facts = {
        "training_pairs": len(groups), "steps": settings.steps, "last_loss": float(np.mean(losses[-20:])),
        "threshold": verifier.threshold, "calibration_claims": len(dev),
    }  # fmt: skip
    return ModelArtifact(out, facts)
