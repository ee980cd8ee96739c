"""Skip-gram, GloVe and fastText from scratch beside gensim's, scored on word similarity, analogies and words never seen."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from curriculum.cells import Cell, Cells, side_by_side
from curriculum.results import StudyResult
from curriculum.static_embeddings.models import TRAININGS, Trained, shuffled, train
from curriculum.static_embeddings.parity import parity_metrics
from curriculum.static_embeddings.report import REMARKS, Found, metrics_of, per_example, plots_of, tables_of
from curriculum.static_embeddings.scoring import analogy_hits, neighbours, pair_cosines
from curriculum.static_embeddings.settings import StaticEmbeddingsSettings
from curriculum.static_embeddings.unseen import choose_unseen, meaning_neighbours, probe_unseen, stem_chance
from curriculum.static_embeddings.words import Corpus, build_corpus, cut_words

CONTROL = "shuffled_text"  # skip-gram on the words of the text in random order
PROBES = 500  # words whose neighbours are compared between models: the most frequent after the hundred that are mostly grammar


@dataclass(frozen=True)
class Task:
    """The text without the words taken out, what models are scored on, and the meaning neighbours of the words taken out."""

    corpus: Corpus
    pairs: pd.DataFrame
    analogies: pd.DataFrame
    unseen: tuple[str, ...]
    meaning: list[list[int]]

    @property
    def questions_Q4(self) -> np.ndarray:
        return np.array([[self.corpus.index.get(word, -1) for word in row] for row in self.analogies[list("abcd")].to_numpy()])


def static_embeddings_study(
    texts: list[str], pairs: pd.DataFrame, analogies: pd.DataFrame, settings: StaticEmbeddingsSettings, *, seed: int, cells: Cells
) -> StudyResult:
    """Train every model at every seed on ``texts`` (documents), and score each; a finished training is kept in ``cells``.

    ``pairs`` and ``analogies`` are tables as :mod:`curriculum.static_embeddings.sets` reads them.
    """
    words = cut_words(texts, settings.maximum_tokens)
    full = build_corpus(words, settings.minimum_count)
    protected = frozenset(pairs["word1"]) | frozenset(pairs["word2"]) | frozenset(analogies[list("abcd")].to_numpy().ravel())
    unseen = choose_unseen(full, settings.unseen_words, protected, seed)
    corpus = build_corpus(words, settings.minimum_count, frozenset(unseen))
    plain = settings.model_dump(mode="json")
    # the key of a cell: what it was trained on and scored on, not only the settings that name it
    content = [hashlib.sha256(corpus.ids.tobytes() + full.ids.tobytes()).hexdigest(), pairs.to_csv(), analogies.to_csv()]
    key = [plain, hashlib.sha256("".join(content).encode()).hexdigest(), seed]
    meaning = cells.get("gensim skip-gram on the whole text", key, lambda: _meaning(unseen, full, corpus, settings, seed, cells.progress))
    task, found = Task(corpus, pairs, analogies, unseen, meaning["neighbours"]), Found()
    seeds = [seed + number for number in range(settings.seeds)]
    wanted = [Cell(f"{t}, seed {n}", key, _cell, (t, task, settings, n)) for n in seeds for t in TRAININGS]
    wanted.append(Cell("control: shuffled text", key, _control, (task, settings, seed)))
    *trained, control = cells.get_all(wanted, side_by_side(), lambda *_: "trained and scored")
    for models in [*trained, {CONTROL: control}]:
        found.add(models)
    chance = {"stem": stem_chance(unseen, corpus, settings.neighbours), "meaning": settings.neighbours / len(corpus.words)}
    scored, by_set = metrics_of(task, found, settings, chance, CONTROL)
    return StudyResult(
        study="static_embeddings_study", metrics=[*scored, *parity_metrics(corpus, settings.minimum_gram, settings.maximum_gram)],
        settings=plain, seeds=seeds, remarks=REMARKS, per_example=per_example(task, found),
        tables={"similarity": by_set, **tables_of(task, found, settings)}, plots=plots_of(found, scored),
    )


def _meaning(
    unseen: tuple[str, ...], full: Corpus, corpus: Corpus, settings: StaticEmbeddingsSettings, seed: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    reference = train("gensim_skipgram", full, settings, seed, progress)["gensim_skipgram"]
    return {"neighbours": meaning_neighbours(unseen, full, reference.words_VD, corpus, settings.neighbours)}


def _cell(training: str, task: Task, settings: StaticEmbeddingsSettings, seed: int) -> dict[str, Any]:
    begun = time.process_time()
    made = train(training, task.corpus, settings, seed, lambda line: None)
    seconds = time.process_time() - begun
    return {name: {"seconds": seconds, **_score(model, task, settings)} for name, model in made.items()}


def _control(task: Task, settings: StaticEmbeddingsSettings, seed: int) -> dict[str, Any]:
    made = train("skipgram", shuffled(task.corpus, seed), settings, seed, lambda line: None)["skipgram"]
    return _score(made, task, settings)


def _score(model: Trained, task: Task, settings: StaticEmbeddingsSettings) -> dict[str, Any]:
    """Everything measured on one trained model, as JSON: a list by pair, by question, by probe word, by word taken out."""
    corpus, vectors = task.corpus, model.words_VD

    def look_up(words: list[str]) -> torch.Tensor:
        return vectors[[corpus.index[word] for word in words]]

    def any_word(words: list[str]) -> torch.Tensor:
        assert model.compose is not None
        rows = model.compose(words)
        known = [number for number, word in enumerate(words) if word in corpus.index]
        rows[known] = look_up([words[number] for number in known])
        return rows

    def nearest(words: list[str]) -> list[list[int]]:
        own = [[corpus.index[word]] for word in words]
        return neighbours(look_up(words), vectors, settings.neighbours, own).tolist()

    shown, start = [word for word in settings.shown_words if word in corpus.index], min(100, len(corpus.words) // 10)
    found: dict[str, Any] = {
        "losses": model.losses, "cosines": pair_cosines(look_up, corpus.index.__contains__, task.pairs).tolist(),
        "hits": analogy_hits(vectors, task.questions_Q4).tolist(), "near": nearest(list(corpus.words[start : start + PROBES])),
        "shown": {word: [corpus.words[i] for i in ids[:5]] for word, ids in zip(shown, nearest(shown), strict=True)} if shown else {},
    }
    probe = (task.meaning, settings.neighbours)
    if model.compose is not None:
        found["all_cosines"] = pair_cosines(any_word, lambda word: True, task.pairs).tolist()
        found["unseen"] = probe_unseen(task.unseen, corpus, model.compose, vectors, *probe)
    if model.untrained is not None:
        before_VD, vectorise = model.untrained
        found["untrained"] = probe_unseen(task.unseen, corpus, vectorise, before_VD, *probe)
    return found
