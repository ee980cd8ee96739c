"""Tuning a sentence encoder by the in-batch contrastive loss, with mined hard negatives and exact resume."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from curriculum.artifacts import ModelArtifact
from curriculum.checkpoint import load_checkpoint, save_checkpoint
from curriculum.crossencoder.training import schedule
from curriculum.embedding.mining import Mined, Tuple, mine_positive_aware, plan_batches
from curriculum.embedding.settings import EmbedderSettings
from curriculum.errors import DataError
from curriculum.reranking.mining import Retriever, inverse_cloze_queries, judged_queries
from curriculum.retrieval.dense import Encoder
from curriculum.retrieval.passages import contents
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.storage import digest_of


def train_embedder(
    passages: pd.DataFrame,
    tracks: pd.DataFrame,
    settings: EmbedderSettings,
    search: RetrievalSettings,
    *,
    retriever: Retriever,
    model: Path,
    out: Path,
    checkpoints: Path,
    progress: Callable[[str], None],
    seed: int = 0,
    device: str = "cpu",
) -> ModelArtifact:
    """Tune ``model`` on dev queries and on sentences of the passages, write a sentence-transformers model to ``out``.

    Test queries are not read, and their relevant passages make no training query. Prompts are those of ``search``.

    Raises:
        DataError: there is nothing to train on.
    """
    mined = mine_training_tuples(passages, tracks, settings, search, retriever=retriever, model=model, seed=seed, device=device)
    progress(f"{len(mined.tuples)} training queries; {mined.too_near} of {mined.candidates} candidates too near the positive")
    trained, losses = fit(mined.tuples, settings, search, model=model, checkpoints=checkpoints, progress=progress, seed=seed, device=device)
    trained.save_pretrained(str(out), create_model_card=False)
    facts = {
        "base": settings.base, "training_queries": len(mined.tuples), "steps": settings.steps, "last_loss": float(np.mean(losses[-20:])),
        "too_near_share": mined.too_near / max(1, mined.candidates), "dimension": int(trained.get_embedding_dimension() or 0),
    }  # fmt: skip
    return ModelArtifact(out, facts)


def mine_training_tuples(
    passages: pd.DataFrame, tracks: pd.DataFrame, settings: EmbedderSettings, search: RetrievalSettings, *,
    retriever: Retriever, model: Path, seed: int, device: str,
) -> Mined:  # fmt: skip
    """Every dev query and some sentences of passages that answer no test query, with negatives mined by ``retriever``.

    Raises:
        DataError: there are no dev queries and no sentences, or none has enough negatives.
    """
    rng = random.Random(seed)
    texts = dict(zip(passages["passage_id"].astype(str), contents(passages), strict=True))
    dev, test = tracks[tracks["split"] == "dev"], tracks[tracks["split"] == "test"]
    held_out = frozenset(str(p) for ids in test["relevant_ids"] for p in ids)
    queries = judged_queries(dev, texts, rng) if len(dev) else []
    queries += inverse_cloze_queries(passages, held_out, settings.self_supervised_queries, rng)
    if not queries:
        raise DataError("there are no dev queries and no sentences to train the embedder on; raise embedder.self_supervised_queries")
    encoder = Encoder(model, search.model_copy(update={"max_tokens": settings.max_length}), device)
    return mine_positive_aware(
        queries, retriever, encoder, texts,
        negatives=settings.negatives, depth=settings.mining_depth, positive_share=settings.positive_share, rng=rng,
    )  # fmt: skip


def fit(
    tuples: Sequence[Tuple], settings: EmbedderSettings, search: RetrievalSettings, *,
    model: Path, checkpoints: Path, progress: Callable[[str], None], seed: int, device: str,
) -> tuple[Any, list[float]]:  # fmt: skip
    """The tuned ``SentenceTransformer`` and the loss of each step.

    The loss is the library's: cross-entropy over the scaled cosines of a query with its positive, its mined negatives, and the
    passages of the batch's other queries (InfoNCE; Henderson et al., 2017, https://arxiv.org/abs/1705.00652). A run that was killed
    resumes from ``checkpoints`` and ends with the weights it would have had.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    torch.manual_seed(seed)
    encoder = SentenceTransformer(str(model), device=device, local_files_only=True)
    kept_length = encoder.max_seq_length
    encoder.max_seq_length = min(settings.max_length, kept_length or settings.max_length)
    loss = MultipleNegativesRankingLoss(encoder, scale=settings.scale)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    plan = plan_batches(tuples, settings.batch_size, settings.steps, seed)
    run = digest_of([settings.model_dump(), search.query_prompt, search.passage_prompt, seed, [[t.query, t.positive, *t.negatives] for t in tuples]])
    start, losses = load_checkpoint(checkpoints, encoder, optimizer, run=run) or (0, [])
    if start:
        progress(f"resumed at step {start}/{settings.steps}")
    begun = time.perf_counter()
    for step in range(start, settings.steps):
        rate = settings.learning_rate * schedule(step, settings.steps, settings.warmup_share)
        losses.append(_step(loss, optimizer, [tuples[i] for i in plan[step]], rate, settings, search))
        if (step + 1) % settings.checkpoint_every == 0 and step + 1 < settings.steps:
            save_checkpoint(checkpoints, encoder, optimizer, step=step + 1, losses=losses, run=run)
        if (step + 1) % 10 == 0 or step + 1 == settings.steps:
            seconds = (time.perf_counter() - begun) / (step + 1 - start)
            progress(f"step {step + 1}/{settings.steps} loss {np.mean(losses[-10:]):.3f}, {seconds:.1f} s a step")
    encoder.max_seq_length = kept_length
    return encoder.eval(), losses


def _step(
    loss: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: list[Tuple], rate: float, settings: EmbedderSettings,
    search: RetrievalSettings,
) -> float:  # fmt: skip
    encoder: Any = loss.model
    encoder.train()
    columns = [[t.query for t in batch], [t.positive for t in batch], *([t.negatives[n] for t in batch] for n in range(settings.negatives))]
    own = encoder.prompts  # what the model's files say, which ``encode_query`` and ``encode_document`` put before texts too
    ask = search.query_prompt if search.query_prompt is not None else own.get("query")
    hold = search.passage_prompt if search.passage_prompt is not None else own.get("document") or own.get("passage")
    prompts = [ask or None, *([hold or None] * (1 + settings.negatives))]
    features = [
        {name: tensor.to(encoder.device) if hasattr(tensor, "to") else tensor for name, tensor in encoder.preprocess(column, prompt=prompt).items()}
        for column, prompt in zip(columns, prompts, strict=True)
    ]
    for group in optimizer.param_groups:
        group["lr"] = rate
    value = loss(features, torch.empty(0))
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    torch.nn.utils.clip_grad_norm_(encoder.parameters(), settings.clip_norm)
    optimizer.step()
    return float(value.detach())


