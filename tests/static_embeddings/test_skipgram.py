"""Negative sampling: gradients against autograd, steps against gensim's compiled code, and what breaks when it is broken."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from curriculum.static_embeddings import parity, skipgram
from curriculum.static_embeddings.models import shuffled, train
from curriculum.static_embeddings.skipgram import sgns_loss, train_skipgram, with_noise
from curriculum.static_embeddings.words import Corpus, build_corpus, words_of
from tests.static_embeddings.small import SETTINGS, TOPICS, texts


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return build_corpus([words_of(text) for text in texts()], 2)


def separation(vectors: torch.Tensor, corpus: Corpus) -> float:
    """Mean cosine within topics less the mean across them."""
    unit = torch.nn.functional.normalize(vectors, dim=1)
    topic = {word: number for number, members in enumerate(TOPICS.values()) for word in members}
    rows = [(corpus.index[word], number) for word, number in topic.items()]
    cosines = unit[[i for i, _ in rows]] @ unit[[i for i, _ in rows]].T
    of = torch.tensor([number for _, number in rows])
    same = of[:, None] == of[None]
    off = ~torch.eye(len(rows), dtype=torch.bool)
    return float(cosines[same & off].mean() - cosines[~same].mean())


def looked_up(cells: int, end: float, scale: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """gensim's sigmoid: a table over [-end, end], read at cell (s + end) * scale."""
    table = torch.sigmoid(torch.tensor([(i / cells * 2 - 1) * end for i in range(cells)]))
    return lambda scores: scores.copy_(table[((scores + end) * scale).long().clamp(0, cells - 1)])


def test_the_gradients_are_autograds() -> None:
    assert parity.sgns_autograd_error() < 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_a_step_is_gensims_but_for_its_tables(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1e-4 < parity.gensim_step_error(subwords=False, seed=seed) < 0.05
    monkeypatch.setattr(torch.Tensor, "sigmoid_", looked_up(1000, 6, 83))
    assert parity.gensim_step_error(subwords=False, seed=seed) < 5e-6
    real = skipgram.compose
    monkeypatch.setattr(torch.Tensor, "sigmoid_", looked_up(512, 8, 32))
    monkeypatch.setattr(skipgram, "compose", lambda table, bags, words: real(table, bags, words) * (1 + 1 / (bags.take(words)[2] - 1))[:, None])
    assert parity.gensim_step_error(subwords=True, seed=seed) < 5e-6


def test_a_wrong_gradient_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = skipgram.sgns_gradients
    monkeypatch.setattr(skipgram, "sgns_gradients", lambda v, targets, mask: (real(v, targets, mask)[0] * 0.5, real(v, targets, mask)[1]))
    assert parity.gensim_step_error(subwords=False) > 0.1
    monkeypatch.setattr(parity, "sgns_gradients", lambda v, targets, mask: real(v, targets, torch.ones_like(mask)))
    assert parity.sgns_autograd_error() > 1e-3, "noise that is the context has to be masked"


def test_the_first_loss_of_zero_contexts() -> None:
    targets, mask = with_noise(torch.arange(10), torch.full((10, 5), 11))
    loss = sgns_loss(torch.randn(10, 4), torch.zeros(10, 6, 4), mask)
    assert targets.shape == (10, 6) and float(loss) / 10 == pytest.approx(6 * math.log(2), rel=1e-6)


def test_noise_that_is_the_context_does_not_count() -> None:
    _, mask = with_noise(torch.tensor([3, 4]), torch.tensor([[3, 1], [5, 4]]))
    assert mask.tolist() == [[1, 0, 1], [1, 1, 0]]


def test_training_finds_the_topics_and_repeats_itself(corpus: Corpus) -> None:
    made = train_skipgram(corpus, SETTINGS, seed=0)
    assert made.losses[-1] < made.losses[0] < 6 * math.log(2) and separation(made.words_VD, corpus) > 0.5
    assert torch.equal(made.words_VD, train_skipgram(corpus, SETTINGS, seed=0).words_VD)
    theirs = train("gensim_skipgram", corpus, SETTINGS, 0, lambda line: None)["gensim_skipgram"].words_VD
    assert separation(theirs, corpus) > 0.5


def test_without_contexts_nothing_is_found(corpus: Corpus) -> None:
    broken = shuffled(corpus, 0)
    assert (broken.counts == corpus.counts).all() and sorted(broken.ids) == sorted(corpus.ids)
    assert abs(separation(train_skipgram(broken, SETTINGS, seed=0).words_VD, corpus)) < 0.1


def test_noise_from_the_true_contexts_shows_in_the_loss(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = train_skipgram(corpus, SETTINGS, seed=0).losses[-1]
    real = skipgram.with_noise

    def from_contexts(contexts: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each pair's noise is another word of the same topic: just what stands around it."""
        ids = [[corpus.index[form] for word in members for form in (word, word + "s", word + "ing")] for members in TOPICS.values()]
        topic = {i: torch.tensor(members) for members in ids for i in members}
        rows = torch.stack([topic[int(i)][noise[row] % 18] for row, i in enumerate(contexts)])
        return real(contexts, rows)

    monkeypatch.setattr(skipgram, "with_noise", from_contexts)
    broken = train_skipgram(corpus, SETTINGS.model_copy(update={"epochs": 1}), seed=0)
    # the best that a model can do when noise and context have one distribution is to score every pair log(1 / k)
    assert broken.losses[-1] > sound + 0.3


def test_gensim_reads_a_long_text_to_its_end() -> None:
    """It cuts a list of words after ten thousand without a word; a book is one such list."""
    corpus = build_corpus([["sun", "moon"] * 5000 + ["oak", "elm"] * 2500], 1)
    moved = {}
    for rate in (0.025, 1e-12):  # at the second rate every vector stays as it began
        settings = SETTINGS.model_copy(update={"learning_rate": rate, "minimum_learning_rate": 1e-12, "epochs": 1, "subsample": 0.0})
        moved[rate] = train("gensim_skipgram", corpus, settings, 0, lambda line: None)["gensim_skipgram"].words_VD
    change_V = (moved[0.025] - moved[1e-12]).norm(dim=1)
    assert min(change_V[corpus.index[word]] for word in ("oak", "elm", "sun")) > 0.01
