"""Training a sparse encoder: a new head learns to name pieces, then passages are told apart under the FLOPS regulariser; exact resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from curriculum.artifacts import ModelArtifact
from curriculum.checkpoint import load_checkpoint, save_checkpoint
from curriculum.crossencoder.training import schedule
from curriculum.embedding.mining import Tuple, plan_batches
from curriculum.embedding.settings import EmbedderSettings
from curriculum.embedding.training import mine_training_tuples
from curriculum.learned_sparse.encoder import has_head, is_sparse_encoder, language_model, start_encoder
from curriculum.learned_sparse.settings import LearnedSparseSettings
from curriculum.reranking.mining import Retriever
from curriculum.reranking.settings import RerankerSettings
from curriculum.reranking.training import split_dev
from curriculum.retrieval.passages import contents
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.storage import digest_of

MASKED = 0.15  # share of the pieces that are hidden while a new head is taught; BERT's
_SAMPLE = 32  # passages on which a new head's zero is set


@dataclass(frozen=True)
class Run:
    """What both stages share: where to resume from, whom to tell, and what makes this run another one."""

    settings: LearnedSparseSettings
    checkpoints: Path
    progress: Callable[[str], None]
    seed: int

    def train(self, stage: str, data: Any, model: torch.nn.Module, optimizer: Any, steps: int, step: Callable[[int], list[float]]) -> list[Any]:
        """Call ``step`` for each number below ``steps``; the parts of the loss that it returned. A killed stage goes on bit for bit."""
        folder, run = self.checkpoints / stage, digest_of([stage, self.settings.model_dump(mode="json"), self.seed, data])
        start, losses = load_checkpoint(folder, model, optimizer, run=run) or (0, [])
        if start:
            self.progress(f"{stage}: resumed at step {start}/{steps}")
        begun = time.perf_counter()
        for number in range(start, steps):
            losses.append(step(number))
            if (number + 1) % self.settings.checkpoint_every == 0 or number + 1 == steps:
                save_checkpoint(folder, model, optimizer, step=number + 1, losses=losses, run=run)
                said = ", ".join(f"{part:.3f}" for part in np.mean(losses[-10:], axis=0))
                self.progress(f"{stage}: step {number + 1}/{steps} loss {said}, {(time.perf_counter() - begun) / (number + 1 - start):.1f} s a step")
        return losses


def train_sparse_encoder(
    passages: pd.DataFrame, tracks: pd.DataFrame, settings: LearnedSparseSettings, *,
    mining: EmbedderSettings, tuning: RerankerSettings, search: RetrievalSettings, retriever: Retriever, model: Path, miner: Path,
    out: Path, checkpoints: Path, progress: Callable[[str], None], seed: int = 0, device: str = "cpu",
) -> ModelArtifact:  # fmt: skip
    """Train the sparse encoder that starts from ``model`` and write it, as sentence-transformers does, to ``out``.

    Queries and hard negatives are mined as those of the tuned embedder, by ``retriever`` and the sentence encoder ``miner``; but of the dev
    queries only the part that chooses no weights (of :func:`split_dev`). Of the others, as of test queries, no relevant passage is used.

    Raises:
        DataError: there is nothing to train on.
    """
    run, texts = Run(settings, checkpoints, progress, seed), contents(passages)
    encoder = start_encoder(model, texts, settings, seed, device)
    if not is_sparse_encoder(model) and not has_head(model):
        _teach_head(encoder, texts, run)
    losses, tuples = [], []
    if settings.steps:
        known = _only_training(tracks, tuning, seed)
        mined = mine_training_tuples(passages, known, mining, search, retriever=retriever, model=miner, seed=seed, device=device)
        tuples = mined.tuples
        progress(f"{len(tuples)} training queries; {mined.too_near} of {mined.candidates} candidates too near the positive")
        losses = fit(encoder, tuples, run)
    encoder.max_seq_length = settings.max_tokens
    encoder.eval().save_pretrained(str(out), create_model_card=False)
    last = np.mean(losses[-20:], axis=0).tolist() if losses else []
    return ModelArtifact(out, {"base": settings.base, "training_queries": len(tuples), "steps": settings.steps, "last_losses": last})


def _only_training(tracks: pd.DataFrame, tuning: RerankerSettings, seed: int) -> pd.DataFrame:
    """``tracks`` with the dev queries that choose weights moved to the test split, which training neither asks nor answers."""
    dev = tracks[tracks["split"] == "dev"]
    if dev.empty:
        return tracks
    training = split_dev(dev, tuning, seed)[1]
    held = tracks.index.isin(dev.index.difference(training.index))
    return tracks.assign(split=np.where(held, "test", tracks["split"]))


def _teach_head(encoder: Any, texts: Sequence[str], run: Run) -> None:
    """Teach a new head, over a body that stays as it is, to name the piece at every place; some pieces are hidden.

    A softmax does not say where the zero of its logits lies, and SPLADE's activation cuts there: in the end the bias is moved such that a
    passage activates ``start_terms`` terms on average.
    """
    model, settings, tokenizer = language_model(encoder), run.settings, encoder.tokenizer
    body = {id(p) for p in model.base_model.parameters()}
    fresh = [p for p in model.parameters() if id(p) not in body]  # the decoder's matrix is the word embeddings, so the body's
    optimizer = torch.optim.AdamW(fresh, lr=settings.head_learning_rate, weight_decay=0.0)
    rng, special = np.random.default_rng(run.seed), torch.tensor(tokenizer.all_special_ids, device=model.device)
    plan = [rng.choice(len(texts), min(settings.batch_size, len(texts)), replace=False).tolist() for _ in range(settings.head_steps)]

    def read(chosen: list[int]) -> dict[str, torch.Tensor]:
        found = tokenizer([texts[i] for i in chosen], truncation=True, max_length=settings.train_tokens, padding=True, return_tensors="pt")
        return {name: tensor.to(model.device) for name, tensor in found.items()}

    def step(number: int) -> list[float]:
        inputs = read(plan[number])
        ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
        hidden = torch.rand(ids.shape, generator=torch.Generator().manual_seed(run.seed * 100_003 + number)).to(ids.device) < MASKED
        inputs["input_ids"] = torch.where(hidden & real, tokenizer.mask_token_id, ids)
        for group in optimizer.param_groups:
            group["lr"] = settings.head_learning_rate * schedule(number, settings.head_steps, settings.warmup_share)
        named = real & ~torch.isin(ids, special)
        loss = cross_entropy(model(**inputs).logits[named], ids[named])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return [float(loss.detach())]

    model.requires_grad_(False).eval()
    for parameter in fresh:
        parameter.requires_grad_(True)
    run.train("head", list(texts), model, optimizer, settings.head_steps, step)
    with torch.no_grad():
        inputs = read(rng.choice(len(texts), min(_SAMPLE, len(texts)), replace=False).tolist())
        logits_BTV = model(**inputs).logits.masked_fill(~inputs["attention_mask"].bool()[..., None], -torch.inf)
        best_BV = logits_BTV.amax(dim=1)
        kept = min(settings.start_terms, best_BV.shape[1] - 1) * len(best_BV)
        model.get_output_embeddings().bias -= best_BV.flatten().topk(kept + 1).values[-1]
    model.requires_grad_(True)


def flops_weight(step: int, steps: int, share: float) -> float:
    """Between 0 and 1: how much of the regulariser counts at ``step``, rising quadratically over ``share`` of ``steps`` (SPLADE)."""
    return min(1.0, (step / max(1, int(share * steps))) ** 2)


def fit(encoder: Any, tuples: Sequence[Tuple], run: Run) -> list[Any]:
    """Train ``encoder``; of each step the ranking loss and the regulariser's part of the loss.

    The losses are the library's: cross-entropy over inner products of a query with its positive, its mined negatives and the passages of
    the batch's other queries, plus FLOPS, the squared mean activation summed over the vocabulary (Formal et al., 2021,
    https://arxiv.org/abs/2109.10086; Paria et al., 2020, https://arxiv.org/abs/2004.05665).
    """
    from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss

    settings, negatives = run.settings, len(tuples[0].negatives)
    torch.manual_seed(run.seed)
    encoder.max_seq_length = settings.train_tokens
    asks_model = settings.query_weights == "mlm"
    loss = SpladeLoss(
        encoder, SparseMultipleNegativesRankingLoss(encoder, scale=settings.scale), document_regularizer_weight=settings.passage_flops,
        query_regularizer_weight=settings.query_flops if asks_model else None,
    )  # fmt: skip
    if settings.freeze_words:
        language_model(encoder).get_input_embeddings().requires_grad_(False)
    learnt = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    plan = plan_batches(tuples, settings.batch_size, settings.steps, run.seed)

    def step(number: int) -> list[float]:
        batch = [tuples[i] for i in plan[number]]
        part = flops_weight(number, settings.steps, settings.flops_warmup_share)
        loss.document_regularizer_weight = settings.passage_flops * part
        if asks_model:
            loss.query_regularizer_weight = settings.query_flops * part
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule(number, settings.steps, settings.warmup_share)
        columns = [[t.query for t in batch], [t.positive for t in batch], *([t.negatives[n] for t in batch] for n in range(negatives))]
        found = loss([_features(encoder, column, "document" if at else "query") for at, column in enumerate(columns)])
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(found.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(learnt, settings.clip_norm)
        optimizer.step()
        parts = {name: float(value.detach()) for name, value in found.items()}
        return [parts.pop("base_loss"), sum(parts.values())]

    encoder.train()
    return run.train("contrastive", [[t.query, t.positive, *t.negatives] for t in tuples], encoder, optimizer, settings.steps, step)


def _features(encoder: Any, texts: list[str], task: str) -> dict[str, Any]:
    """What the library's own trainer feeds: the model's prompt for the task before each text."""
    prompt = encoder.prompts.get(task) or None
    found = encoder.preprocess(texts, prompt=prompt, task=task)
    return {name: tensor.to(encoder.device) if hasattr(tensor, "to") else tensor for name, tensor in found.items()}
