"""The cells of the ablation study: which part is changed in each, how it is trained, and what is measured of it."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curriculum.artifacts import DirectoryArtifact
from curriculum.errors import DataError
from curriculum.storage import digest_of
from curriculum.tokenization.packing import TokenBlocks
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.experts import load_entropy
from curriculum.transformer.model import Transformer, leak_probe
from curriculum.transformer.objectives import NextToken, block_nats, mean_nats, token_nats
from curriculum.transformer.settings import AblationSettings
from curriculum.transformer.shapes import active_parameters
from curriculum.transformer.training import make_optimizer, train_config, train_step

GRADIENT_BLOCKS = 16  # of the validation text, behind the gradient norms


@dataclass(frozen=True)
class Variant:
    """One row of the study. ``change``: fields of the model's configuration, ``training``: of its budget; ``small``: on the small corpus."""

    group: str
    label: str
    change: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    small: bool = False

    def config(self, settings: AblationSettings, vocab_size: int) -> ModelConfig:
        """The model's shape: pre-norm RMSNorm, SwiGLU, RoPE, tied and dense but for the change."""
        shape = {"layers": settings.layers, "width": settings.width, "heads": settings.heads, "kv_heads": settings.heads, "hidden": settings.hidden}
        return ModelConfig(**{"vocab_size": vocab_size, **shape, **self.change})

    def budget(self, settings: AblationSettings) -> AblationSettings:
        """The settings that the variant is trained under."""
        return settings.model_copy(update=self.training)


def variants(settings: AblationSettings) -> list[Variant]:
    """Every row, group by group; the first of a group is what its others are compared with."""
    post = {"norm_place": "post", "embedding_norm": True}  # as in BERT: without it the first block reads raw embeddings
    plain = settings.hidden * 3 // 2  # two matrices instead of three
    routed = {
        "experts": settings.experts, "experts_per_token": settings.experts_per_token, "expert_hidden": settings.hidden // settings.experts_per_token,
    }  # fmt: skip
    changes: dict[str, dict[str, dict[str, Any]]] = {
        "norm": {"rms_pre": {}, "layer_pre": {"norm": "layer"}, "rms_post": post, "layer_post": {"norm": "layer", **post}},
        "activation": {
            "swiglu": {}, "geglu": {"activation": "geglu"}, "gelu": {"activation": "gelu", "hidden": plain},
            "relu": {"activation": "relu", "hidden": plain},
        },
        "position": {
            "rope": {}, "alibi": {"position": "alibi"}, "learned": {"position": "learned", "max_positions": settings.length},
            # looked-up vectors are scaled as in Vaswani et al. (2017, 3.4), or the sinusoids would drown them
            "sinusoidal": {"position": "sinusoidal", "embedding_scale": math.sqrt(settings.width)}, "no_position": {"position": "none"},
        },
        "embedding": {"tied": {}, "untied": {"tied": False}},
        "experts": {"dense": {}, "balanced": routed, "unbalanced": routed},
    }  # fmt: skip
    budgets = {"unbalanced": {"balance_weight": 0.0}}
    rows = [Variant(group, label, change, budgets.get(label, {})) for group, found in changes.items() for label, change in found.items()]
    shares = (0.0, *settings.dropouts)
    return rows + [Variant("dropout", dropout_label(share), {"dropout": share}, small=True) for share in shares]


def dropout_label(share: float) -> str:
    """The row of a share: ``dropout_10`` for 0.1."""
    return f"dropout_{100 * share:g}".replace(".", "_")


@dataclass(frozen=True)
class Text:
    """What every cell reads, int64 [blocks, tokens + 1]: ``test`` is ``long`` cut into blocks of the training length."""

    vocab_size: int
    train: Tensor
    small: Tensor
    validation: Tensor
    test: Tensor
    long: Tensor

    def digest(self) -> str:
        """What finished cells belong to."""
        return digest_of([digest_of(part.tolist()) for part in (self.small, self.validation, self.long)] + [self.vocab_size, int(self.train.sum())])


def recut(blocks: Tensor, length: int, limit: int = 10**9) -> Tensor:
    """Packed blocks [n, tokens + 1] as at most ``limit`` blocks of another length; each token is still predicted once."""
    stream = torch.cat([blocks[:, :-1].flatten(), blocks[-1, -1:]])
    if len(stream) <= length:
        return blocks.new_zeros(0, length + 1)
    return stream.unfold(0, length + 1, length)[:limit].contiguous()


def read_text(corpus: DirectoryArtifact, settings: AblationSettings) -> Text:
    """The corpus in blocks of the training length.

    Raises:
        DataError: a split fills no block.
    """
    splits = {name: TokenBlocks(corpus.path, name) for name in ("train", "validation", "test")}
    train = recut(splits["train"].blocks, settings.length)
    long = recut(splits["test"].blocks, settings.length * settings.stretch, settings.test_windows)
    validation = recut(splits["validation"].blocks, settings.length, settings.validation_blocks)
    small = train[: max(1, settings.small_tokens // settings.length)]
    if not (len(train) and len(long) > 1 and len(validation)):
        raise DataError(
            f"{corpus.path} holds fewer than two test windows of {settings.length * settings.stretch} tokens, or no block to train or "
            "validate on; raise tokenization.held_out_tokens, or lower ablations.length or ablations.stretch"
        )
    return Text(splits["train"].vocab_size, train, small, validation, recut(long, settings.length), long)


def train_cell(text: Text, variant: Variant, settings: AblationSettings, seed: int, folder: Path) -> dict[str, Any]:
    """Train one variant under one seed and measure it; what comes back is JSON."""
    config, blocks = variant.config(settings, text.vocab_size), text.small if variant.small else text.train
    torch.manual_seed(seed)  # the weights that training starts from
    begin = block_gradients(Transformer(config), text.validation[:GRADIENT_BLOCKS])
    run = train_config(
        config, blocks, variant.budget(settings), seed=seed, checkpoints=folder, progress=lambda line: None, validation=text.validation
    )
    shutil.rmtree(folder, ignore_errors=True)  # the cell's result stands for the weights
    model = run.model.eval()
    nats = block_nats(model, text.test)
    found = {
        "nats": nats.tolist(), "curve": run.validation, "parameters": config.parameters(), "active_parameters": active_parameters(config.shape()),
        "gradients_before": begin, "gradients_after": block_gradients(model, text.validation[:GRADIENT_BLOCKS]), "seconds": run.seconds,
        "mask_leak": leak_probe(model, text.vocab_size, length=min(48, settings.length)),
    }  # fmt: skip
    if variant.small:
        found["training_nats"] = float(block_nats(model, text.small).mean())
    if variant.group == "position" or not variant.change:
        found |= past_length(model, text, nats, settings.length)
    if config.experts:
        found |= expert_load(model, text.test)
    return found


def block_gradients(model: Transformer, blocks: Tensor) -> list[float]:
    """Norm of the loss's gradient at each block's weights, without dropout, from the first block to the last."""
    was_training = model.training
    model.eval().zero_grad()
    mean_nats(model, NextToken().batch(blocks)).backward()
    norms = [math.sqrt(sum(float(p.grad.square().sum()) for p in block.parameters() if p.grad is not None)) for block in model.decoder.blocks]
    model.train(was_training).zero_grad()
    return norms


@torch.no_grad()
def past_length(model: Transformer, text: Text, nats: np.ndarray, length: int) -> dict[str, Any]:
    """The loss past the training length, on the same tokens read in one long window and in blocks of the training length.

    ``by_position``: mean nats at each place of a window. ``past_whole`` and ``past_cut``, a window each: mean nats of the tokens past
    the first training length, with all of the window before them, and with no more than their own block. ``refused``: the
    model's words where it cannot read that far.
    """
    try:
        parts = [token_nats(model, part).view(len(part.ids_BT), -1) for part in NextToken().batch(text.long).split(8)]
    except ValueError as refusal:  # a table of learned positions has no row for the next one
        return {"refused": str(refusal)}
    whole = torch.cat(parts).double()
    cut = nats.reshape(len(text.long), -1)[:, 1:].mean(1)
    return {"by_position": whole.mean(0).tolist(), "past_whole": whole[:, length:].mean(1).tolist(), "past_cut": cut.tolist()}


@torch.no_grad()
def expert_load(model: Transformer, blocks: Tensor) -> dict[str, Any]:
    """A layer each: entropy of the experts' load as a share of the even one's, and the smallest and largest load in even loads."""
    routes: list[Tensor] = []
    model.hidden(blocks[:, :-1], routes=routes)
    kept, experts = model.config.experts_per_token, model.config.experts
    shares = [torch.bincount(logits.topk(kept).indices.flatten(), minlength=experts) / logits.shape[0] / kept * experts for logits in routes]
    return {
        "entropy": [load_entropy(logits, kept) for logits in routes],
        "smallest_load": [float(share.min()) for share in shares], "largest_load": [float(share.max()) for share in shares],
    }  # fmt: skip


def step_seconds(text: Text, rows: list[Variant], settings: AblationSettings, seed: int) -> dict[str, list[float]]:
    """Seconds of ``timing_rounds`` training steps of each row, taken in turn so that the machine's other work falls on all alike."""
    batch, found = NextToken().batch(text.train[: settings.batch_size]), {row.label: [] for row in rows}
    torch.manual_seed(seed)
    models = {row.label: Transformer(row.config(settings, text.vocab_size)).train() for row in rows}
    optimizers = {label: make_optimizer(model, settings) for label, model in models.items()}
    for number in range(settings.timing_rounds + 1):
        for label, model in models.items():
            begun = time.perf_counter()
            train_step(model, optimizers[label], [batch], number, settings)
            if number:  # the first step makes the optimizer's state
                found[label].append(time.perf_counter() - begun)
    return found


def cell_key(text_digest: str, variant: Variant, settings: AblationSettings, vocab_size: int, seed: int) -> dict[str, Any]:
    """What decides a cell's result: rows that agree in it are one cell."""
    kept = variant.budget(settings).model_dump(mode="json", exclude={"seeds", "dropouts", "timing_rounds"})
    return {"text": text_digest, "config": asdict(variant.config(settings, vocab_size)), "settings": kept, "small": variant.small, "seed": seed}
