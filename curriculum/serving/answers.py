"""A search with the scores and the time of every stage, and an answer sentence by sentence, each verified before it is given out."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from curriculum.grounding.claims import statement
from curriculum.grounding.sentences import sentences
from curriculum.rag.answerers import clean_answer, without_marks
from curriculum.reranking.reranker import blend
from curriculum.reranking.scoring import Ranking
from curriculum.retrieval.hybrid import LEGS
from curriculum.serving.bundle import Bundle
from curriculum.serving.schemas import Passage, Scores, Sentence

_OPEN_MARK = re.compile(r"\s*\[[\d,\s]*$")  # a citation mark that may go on


@dataclass
class Clock:
    """Milliseconds by stage."""

    milliseconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to stage ``name``."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.milliseconds[name] = self.milliseconds.get(name, 0.0) + 1000 * (time.perf_counter() - begun)

    def total(self, begun: float) -> None:
        """Note the time since ``begun`` (of ``time.perf_counter``), the waits between the stages included."""
        self.milliseconds["total"] = 1000 * (time.perf_counter() - begun)


def find(bundle: Bundle, query: str, count: int, *, clock: Clock) -> list[Passage]:
    """The ``count`` best passages; the first of the fusion are reranked, as the measured pipeline does."""
    legs, depth = {}, bundle.setting.rerank_depth
    for name in LEGS:
        with clock.stage(name):
            legs[name] = bundle.retriever.leg(name, [query], max(count, bundle.retriever.depth), bundle.collection)
    with clock.stage("fuse"):
        fused = bundle.retriever.fused(legs, max(count, depth))[0]
    with clock.stage("rerank"):
        ranking, logits = _reranked(bundle, query, fused[:depth])
    ranking += [(passage, 0.0) for passage, _ in fused[depth:]]
    by_leg, before = {name: dict(hits[0]) for name, hits in legs.items()}, dict(fused)
    return [
        _passage(bundle, rank, passage, Scores(
            bm25=by_leg["bm25"].get(passage), dense=by_leg["dense"].get(passage), fused=before[passage],
            reranker=logits.get(passage), final=final,
        ))
        for rank, (passage, final) in enumerate(ranking[:count], 1)
    ]  # fmt: skip


def _reranked(bundle: Bundle, query: str, candidates: Ranking) -> tuple[Ranking, dict[str, float]]:
    """The candidates in their new order, and the cross-encoder's logits: it is not asked where it has no weight or nothing to order."""
    if bundle.reranker.weight == 0 or not candidates:
        return blend(candidates, np.zeros(len(candidates)), 0.0), {}
    logits = bundle.reranker.score([query], [candidates], bundle.texts)[0]
    return blend(candidates, logits, bundle.reranker.weight), {p: float(x) for (p, _), x in zip(candidates, logits, strict=True)}


def _passage(bundle: Bundle, rank: int, passage_id: str, scores: Scores) -> Passage:
    return Passage(rank=rank, scores=scores, **bundle.passages[passage_id])


def as_sentences(pieces: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """(sentence, whether it is the only one) of a text that arrives piece by piece; each as soon as the next one has begun.

    Citation marks are taken out: what is cited is decided by the verifier.
    """
    text, given = "", 0
    for piece in pieces:
        text += piece
        begun = sentences(_OPEN_MARK.sub("", without_marks(text)))
        for sentence in begun[given:-1]:
            given += 1
            yield sentence, False
    whole = sentences(without_marks(text))
    for sentence in whole[given:]:
        yield sentence, len(whole) == 1


def answer(bundle: Bundle, question: str, shown: Sequence[str], *, withhold: bool, clock: Clock) -> Iterator[Sentence]:
    """The sentences of an answer from the passages ``shown`` (ids, best first), each held against all of them by the verifier.

    A sentence that says that the answer is not known is not given. Closing the iterator stops the writer.
    """
    texts = [bundle.texts[passage] for passage in shown]
    index = 0
    with contextlib.closing(_timed(bundle.write(question, texts), clock)) as pieces:
        for sentence, alone in as_sentences(pieces):
            if not clean_answer(sentence):
                continue
            with clock.stage("verify"):
                claim = statement(question, sentence) if alone else sentence
                support = bundle.verifier.support([(text, claim) for text in texts])
            best = float(support.max()) if len(support) else 0.0
            supported = best >= bundle.threshold
            kept = supported or not withhold
            cited = [passage for passage, value in zip(shown, support, strict=True) if value >= bundle.threshold]
            yield Sentence(
                index=index, text=sentence if kept else "", supported=supported, support=best, withheld=not kept, citations=cited
            )
            index += 1


def weakest(said: Sequence[Sentence]) -> float | None:
    """The support of an answer: its weakest sentence's; None where it has none."""
    return min((sentence.support for sentence in said), default=None)


def below(said: Sequence[Sentence], threshold: float | None) -> bool:
    """Whether an answer has less support than the ``threshold`` of abstention, where there is one, asks for."""
    support = weakest(said)
    return threshold is not None and support is not None and support < threshold


def decided(said: Sequence[Sentence], threshold: float | None) -> list[Sentence]:
    """The sentences of an answer, all of them withheld where it is :func:`below`: the threshold's risk was measured on whole answers."""
    if not below(said, threshold):
        return list(said)
    return [sentence.model_copy(update={"text": "", "withheld": True, "citations": []}) for sentence in said]


def _timed(pieces: Iterator[str], clock: Clock) -> Iterator[str]:
    """``pieces``, their time counted as that of the stage ``write``; closed with this."""
    try:
        while True:
            with clock.stage("write"):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece
    finally:
        close = getattr(pieces, "close", None)
        if close:
            close()
