"""Each trainer against a reference: autograd, a step of gensim's compiled code, plain numpy, gensim's n-grams."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from curriculum.results import Metric
from curriculum.static_embeddings.glove import Tables, cooccurrence, glove_loss_and_gradients, make_part
from curriculum.static_embeddings.skipgram import sgns_gradients, sgns_loss, sgns_step, with_noise
from curriculum.static_embeddings.subwords import Bags, character_grams, gram_hash
from curriculum.static_embeddings.words import Corpus, build_corpus

_STRANGE = ("a", "of", "naïve", "κόσμος", "привет", "日本語", "e\u0301clair", "🙂ok", "don't")


def sgns_autograd_error(seed: int = 0) -> float:
    """Largest difference in double precision between the analytic gradients of a batch, noise equal to its context included, and
    autograd's."""
    generator = torch.Generator().manual_seed(seed)
    v, targets = (torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in ((32, 16), (32, 6, 16)))
    _, real = with_noise(torch.randint(4, (32,), generator=generator), torch.randint(4, (32, 5), generator=generator))
    assert 0 < real.sum() < real.numel(), "the batch shows no noise word that is the context"
    sgns_loss(v, targets, real.double()).backward()
    with torch.no_grad():
        by_v, slope = sgns_gradients(v, targets, real.double())
        by_targets = slope[:, :, None] * v[:, None]
    assert v.grad is not None and targets.grad is not None
    return max(float((by_v - v.grad).abs().max()), float((by_targets - targets.grad).abs().max()))


def gensim_step_error(subwords: bool, seed: int = 0) -> float:
    """Largest difference, as a share of the largest move, between gensim's update of one sentence and ours, pair by pair.

    The sentence has two words and the noise table one, the third, so nothing is random. Left are two habits of gensim 4.4.0. It reads
    the sigmoid from a table: in Word2Vec 1,000 cells over [-6, 6], at cell 83 (s + 6) where 83.3 (s + 6) is meant; in FastText 512 cells
    over [-8, 8]. And in training, though not afterwards, its FastText divides a word's sum by its n-grams alone, without the word's own
    row. With these copied, the steps agree to rounding.
    """
    from gensim.models import FastText, Word2Vec

    rng = np.random.default_rng(seed)
    shared = {"vector_size": 8, "window": 1, "min_count": 1, "sample": 0, "sg": 1, "negative": 1, "workers": 1, "seed": seed}
    model = FastText(min_n=3, max_n=4, bucket=50, **shared) if subwords else Word2Vec(**shared)
    model.build_vocab([["where", "the", "noise"], ["where", "the"], ["where"]])
    model.cum_table = np.array([0, 0, 2**31 - 1], dtype=np.uint32)
    model.syn1neg[:] = rng.normal(scale=0.5, size=model.syn1neg.shape).astype(np.float32)
    table = [model.wv.vectors_vocab, model.wv.vectors_ngrams] if subwords else [model.wv.vectors]
    for part in table:
        part[:] = rng.normal(scale=0.5, size=part.shape).astype(np.float32)
    ours, context = torch.from_numpy(np.concatenate(table)), torch.from_numpy(model.syn1neg.copy())
    start, start_context = ours.clone(), context.clone()
    model.train([["where", "the"]], total_examples=1, epochs=1, start_alpha=0.1, end_alpha=0.1, report_delay=1e9)
    bags = Bags.of([i, *(3 + int(row) for row in model.wv.buckets_word[i])] for i in range(3)) if subwords else None
    for centre, target in ((0, 1), (1, 0)) if subwords else ((1, 0), (0, 1)):  # Word2Vec predicts the centre from its context
        targets, real = with_noise(torch.tensor([target]), torch.tensor([[2]]))
        sgns_step(ours, context, bags, torch.tensor([centre]), targets, real, 0.1)
    theirs = torch.from_numpy(np.concatenate(table))
    moved = max(float((theirs - start).abs().max()), float((context - start_context).abs().max()))
    return max(float((ours - theirs).abs().max()), float((context - torch.from_numpy(model.syn1neg)).abs().max())) / moved


def plain_glove(counts_VV: np.ndarray, tables: tuple[np.ndarray, ...], x_max: float, power: float) -> tuple[float, list[np.ndarray]]:
    """GloVe's J and its gradients by W, C, a, b: one cell after the other over a dense count matrix, as the paper writes it."""
    w, c, a, b = tables
    loss, gradients = 0.0, [np.zeros_like(table) for table in tables]
    for i, j in zip(*np.nonzero(counts_VV), strict=True):
        weight = min(1.0, (counts_VV[i, j] / x_max) ** power)
        error = w[i] @ c[j] + a[i] + b[j] - np.log(counts_VV[i, j])
        loss += weight * error**2
        for gradient, place, step in zip(gradients, (i, j, i, j), (c[j], w[i], 1.0, 1.0), strict=True):
            gradient[place] += 2 * weight * error * step
    return loss, gradients


def plain_counts(corpus: Corpus, window: int) -> np.ndarray:
    """Co-occurrence counts [V, V] by two plain loops over the text."""
    counts = np.zeros((len(corpus.words), len(corpus.words)))
    for i in range(len(corpus.ids)):
        for j in range(max(0, i - window), min(len(corpus.ids), i + window + 1)):
            if i != j and corpus.text_of[i] == corpus.text_of[j]:
                counts[corpus.ids[i], corpus.ids[j]] += 1 / abs(i - j)
    return counts


def glove_errors(corpus: Corpus, window: int = 4, x_max: float = 3.0, seed: int = 0) -> tuple[float, float]:
    """Largest differences from the plain loops, of the counts and of the loss and gradients (as shares of the largest entry)."""
    rng, size = np.random.default_rng(seed), len(corpus.words)
    plain, ours = plain_counts(corpus, window), cooccurrence(corpus, window)
    tables = tuple(rng.normal(size=shape).astype(np.float32) for shape in ((size, 8), (size, 8), size, size))
    loss, gradients = plain_glove(plain, tuple(table.astype(np.float64) for table in tables), x_max, 0.75)
    found, by_table = glove_loss_and_gradients(Tables(*map(torch.from_numpy, tables)), make_part(ours, x_max, 0.75))
    errors = [abs(float(found) - loss) / loss]
    errors += [float(np.abs(mine.numpy() - true).max() / np.abs(true).max()) for mine, true in zip(by_table, gradients, strict=True)]
    return float(np.abs(ours.toarray() - plain).max()), max(errors)


def gram_mismatches(words: Iterable[str], minimum: int, maximum: int) -> int:
    """Words, and some in other scripts, whose n-grams or hashes are not exactly gensim's."""
    from gensim.models.fasttext_inner import compute_ngrams_bytes, ft_hash_bytes

    wrong = 0
    for word in (*words, *_STRANGE):
        grams = character_grams(word, minimum, maximum)
        hashes = [ft_hash_bytes(gram.encode("utf-8")) for gram in grams]
        theirs = sorted(gram.decode("utf-8") for gram in compute_ngrams_bytes(word, minimum, maximum))
        wrong += sorted(grams) != theirs or [gram_hash(gram) for gram in grams] != hashes
    return wrong


def parity_metrics(corpus: Corpus, minimum_gram: int, maximum_gram: int) -> list[Metric]:
    """All of the above; GloVe on the first 400 tokens of the corpus."""
    start = [corpus.words[i] for i in corpus.ids[:400]]
    counts, glove = glove_errors(build_corpus([start[:250], start[250:]], 1))
    values: dict[str, Any] = {
        "sgns_gradient_error": sgns_autograd_error(), "gensim_step_error": gensim_step_error(subwords=False),
        "glove_count_error": counts, "glove_gradient_error": glove,
        "gram_mismatches": gram_mismatches(corpus.words, minimum_gram, maximum_gram),
    }
    return [Metric(name=name, value=float(value), higher_is_better=False) for name, value in values.items()]
