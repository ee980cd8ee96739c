"""GloVe: counts and gradients against plain loops, and the properties its loss has by construction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from curriculum.static_embeddings import glove, parity
from curriculum.static_embeddings.glove import Tables, adagrad_step, cooccurrence, glove_loss_and_gradients, make_part, train_glove
from curriculum.static_embeddings.words import Corpus, build_corpus, words_of
from tests.static_embeddings.small import SETTINGS, texts
from tests.static_embeddings.test_skipgram import separation


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return build_corpus([words_of(text) for text in texts()], 2)


def tables(size: int, seed: int = 0) -> Tables:
    generator = torch.Generator().manual_seed(seed)
    return Tables(*(torch.randn(*shape, generator=generator) for shape in ((size, 6), (size, 6), (size,), (size,))))


def test_counts_by_hand() -> None:
    corpus = build_corpus([["a", "b", "c", "a"], ["c", "b"]], 1)
    counts, at = cooccurrence(corpus, 2).toarray(), corpus.index
    assert counts[at["a"], at["b"]] == 1 + 1 / 2 and counts[at["b"], at["c"]] == 2
    assert counts[at["a"], at["a"]] == 0, "three words apart" and (counts == counts.T).all()


def test_counts_loss_and_gradients_are_those_of_plain_loops(corpus: Corpus) -> None:
    start = [corpus.words[i] for i in corpus.ids[:300]]
    counts, gradients = parity.glove_errors(build_corpus([start[:200], start[200:]], 1))
    assert counts < 1e-9 and gradients < 1e-5


def test_a_wrong_weight_would_be_seen(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    real = glove.make_part
    monkeypatch.setattr(parity, "make_part", lambda cells, x_max, power: real(cells, x_max, 1.0))
    assert parity.glove_errors(build_corpus([[corpus.words[i] for i in corpus.ids[:300]]], 1))[1] > 1e-2


def test_moving_a_constant_between_the_biases_changes_nothing(corpus: Corpus) -> None:
    part, made = make_part(cooccurrence(corpus, 4), 10, 0.75), tables(len(corpus.words))
    moved = Tables(made.w_VD, made.c_VD, made.a_V + 1.5, made.b_V - 1.5)
    first, gradients = glove_loss_and_gradients(made, part)
    second, others = glove_loss_and_gradients(moved, part)
    assert float(first) == pytest.approx(float(second), rel=1e-4)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-1) for a, b in zip(gradients, others, strict=True))


def test_a_perfect_fit_has_no_loss_and_no_gradient() -> None:
    made = tables(5)
    counts = torch.exp(made.w_VD @ made.c_VD.T + made.a_V[:, None] + made.b_V).double().numpy()
    part = make_part(csr_matrix(counts), 100, 0.75)
    loss, gradients = glove_loss_and_gradients(made, part)
    assert float(loss) < 1e-8 and max(float(g.abs().max()) for g in gradients) < 1e-4


def test_the_weights_are_the_papers() -> None:
    part = make_part(csr_matrix(np.array([[1.0, 10.0], [100.0, 1e6]])), 100, 0.75)
    assert part.weights.tolist() == pytest.approx([0.0316, 0.1778, 1.0, 1.0], abs=1e-4)
    assert float(make_part(csr_matrix([[100 * 0.5 ** (4 / 3)]]), 100, 0.75).weights) == pytest.approx(0.5, abs=1e-6)


def test_adagrad_is_torchs() -> None:
    made, squares = tables(4), Tables(*(torch.ones_like(value) for value in tables(4).all()))
    parameters = [value.clone().requires_grad_() for value in made.all()]
    reference = torch.optim.Adagrad(parameters, lr=0.05, initial_accumulator_value=1.0, eps=0)
    for seed in range(3):
        gradients = tables(4, seed + 1).all()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient / 2
        reference.step()
        adagrad_step(made, squares, gradients, 0.05)
    assert all(torch.allclose(ours, theirs, atol=1e-6) for ours, theirs in zip(made.all(), parameters, strict=True))


def test_training_finds_the_topics(corpus: Corpus) -> None:
    made, alone = train_glove(corpus, SETTINGS.glove, 16, seed=0)
    assert made.losses[-1] < 0.5 * made.losses[0]
    assert separation(made.words_VD, corpus) > 0.3 and separation(alone, corpus) > 0.2
