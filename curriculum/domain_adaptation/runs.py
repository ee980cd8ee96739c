"""One arm: a model reads on, is measured on three texts, and lends its features to a classifier."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from curriculum.adaptation.model import add_adapter, block_losses, load_base, load_tokenizer
from curriculum.adaptation.settings import AdapterSettings
from curriculum.adaptation.training import train
from curriculum.domain_adaptation.settings import DomainAdaptationSettings
from curriculum.domain_adaptation.texts import DOMAIN, GENERAL, TASK, Material

# what each arm reads, in this order; the control reads as long as DAPT does
ARMS: dict[str, tuple[str, ...]] = {"none": (), "dapt": (DOMAIN,), "tapt": (TASK,), "both": (DOMAIN, TASK), "control": (GENERAL,)}
_BATCH = 16


@dataclass(frozen=True)
class Bench:
    """What the runs share."""

    folder: Path
    material: Material
    settings: DomainAdaptationSettings
    device: str
    precision: str
    checkpoints: Path
    progress: Callable[[str], None]

    def phase(self, text: str) -> AdapterSettings:
        """The settings of reading ``text``."""
        s = self.settings
        return AdapterSettings(
            base=s.base, quantisation="none", rank=s.rank, alpha=s.alpha, block_size=s.block_size, batch_size=s.batch_size,
            steps=s.task_steps if text == TASK else s.domain_steps, learning_rate=s.learning_rate, warmup_steps=s.warmup_steps,
        )  # fmt: skip

    def model(self, seed: int) -> PeftModel:
        """The base with a new adapter, which starts as the base."""
        base = load_base(self.folder, self.phase(DOMAIN), device=self.device, precision=self.precision)
        return add_adapter(base, self.phase(DOMAIN), seed=seed)

    def read(self, model: PeftModel, arm: str, text: str, seed: int) -> list[float]:
        """Go on training ``model`` on ``text``; returns the losses of the steps.

        Each arm has its own checkpoints: to read the task's text after the domain's is another run than to read it first.
        """
        where = {"checkpoints": self.checkpoints / arm / text, "device": self.device, "precision": self.precision}
        return train(model, self.material.train[text], self.phase(text), seed=seed, progress=self.progress, **where).losses

    def measured(self, model: PeftModel) -> dict[str, Any]:
        """Nats a token of every held-out block of every text, and the labels that a classifier on the model's features gives."""
        chunk = AdapterSettings().logit_chunk
        losses = {name: block_losses(model, blocks, chunk=chunk, device=self.device).tolist() for name, blocks in self.material.test.items()}
        return {"losses": losses, **self.classified(model)}

    def classified(self, model: PeftModel) -> dict[str, Any]:
        """A linear classifier on frozen features, its penalty chosen on the dev side: its labels of the test side."""
        texts = self.material.labelled
        features, labels = self.features(model, list(texts["text"])), texts["label"].to_numpy()
        side = {name: (texts["split"] == name).to_numpy() for name in ("train", "dev", "test")}
        best = None
        for penalty in self.settings.penalties:
            classifier = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000))
            classifier.fit(features[side["train"]], labels[side["train"]])
            right = float(np.mean(classifier.predict(features[side["dev"]]) == labels[side["dev"]]))
            if best is None or right > best[0]:
                best = right, penalty, classifier
        assert best is not None
        return {"predicted": best[2].predict(features[side["test"]]).tolist(), "penalty": best[1], "dev_accuracy": best[0]}

    @torch.no_grad()
    def features(self, model: PeftModel, texts: list[str]) -> np.ndarray:
        """The mean of the last layer over each text's tokens: float64 [texts, width]. Short texts with short ones, to waste no padding."""
        model.eval()
        tokenizer, decoder = load_tokenizer(self.folder), model.get_base_model().get_decoder()
        ids = [tokenizer.encode(text, add_special_tokens=False)[: self.settings.text_tokens] or [tokenizer.eos_token_id] for text in texts]
        order, found = sorted(range(len(ids)), key=lambda i: len(ids[i])), {}
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            width = len(ids[rows[-1]])
            padded = torch.tensor([ids[i] + [tokenizer.eos_token_id] * (width - len(ids[i])) for i in rows])
            mask_BT = torch.tensor([[1] * len(ids[i]) + [0] * (width - len(ids[i])) for i in rows]).to(self.device)
            hidden_BTD = decoder(input_ids=padded.to(self.device), attention_mask=mask_BT, use_cache=False).last_hidden_state.double()
            mask_BT1 = mask_BT.unsqueeze(-1)
            means = ((hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)).cpu().numpy()
            found.update(zip(rows, means, strict=True))
        return np.stack([found[i] for i in range(len(ids))])


def run_chain(bench: Bench, arms: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Arms of which each goes on where the one before ended, from the base: arm -> what was measured, as JSON, with its own seconds.

    Raises:
        ValueError: an arm does not begin with what the one before it has read.
    """
    model, read, found = bench.model(seed), (), {}
    for arm in arms:
        if ARMS[arm][: len(read)] != read:
            raise ValueError(f"the arm '{arm}' cannot go on from {read}")
        begun, losses = time.perf_counter(), []
        for text in ARMS[arm][len(read) :]:
            losses += bench.read(model, arm, text, seed)
        seconds, read = time.perf_counter() - begun, ARMS[arm]
        found[arm] = {**bench.measured(model), "train_losses": losses, "seconds": seconds}
    return found
