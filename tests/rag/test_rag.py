"""Answers from retrieval: cited, withheld when unsupported; and a report that turns red when it should."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from curriculum.cells import Cells
from curriculum.crossencoder.model import CrossEncoder, Pair
from curriculum.errors import DataError
from curriculum.generation.base import Generation
from curriculum.grounding.similarity import containment
from curriculum.grounding.verifier import Calibration, SupportVerifier
from curriculum.rag.answerers import Draft, GeneratorAnswerer, ReaderAnswerer, clean_answer
from curriculum.rag.answering import COLUMNS, Pipeline, answer_questions, sample_questions
from curriculum.rag.faithfulness import context_precision_recall, faithfulness
from curriculum.rag.report import report_rag
from curriculum.rag.settings import RagSettings
from curriculum.reranking.reranker import Reranker
from tests.crossencoder.tiny import tiny_bert

torch.set_num_threads(1)
SETTINGS = RagSettings(contexts=2, depth=4, max_questions=40, support_threshold=0.9)
FLOOR = 0.60  # the milestone's bar on groundedness
ROLES = ["capital", "river", "mountain", "museum", "mayor", "harbour"]
CITIES = ["Arden", "Belmar", "Corvin", "Dunmore", "Elstow"]


def answer_of(city: str, role: str) -> str:
    return f"{city[:3]}{role[:3]}ium".title()


class WordVerifier(SupportVerifier):
    """A verifier whose judgement is known: the share of the claim's words that the passage has, all of them wanted."""

    def support(self, pairs: Sequence[Pair]) -> np.ndarray:
        return containment(pairs)


class WordSearch:
    """Ranks passages by the words they share with the query."""

    def __init__(self, passages: pd.DataFrame) -> None:
        self.ids, self.texts = passages["passage_id"].tolist(), (passages["title"] + " " + passages["text"]).tolist()

    def legs(self, queries: list[str], k: int, collection: str = "project") -> dict[str, list[list[tuple[str, float]]]]:
        return {"words": self.search(queries, k, collection)}

    def search(self, queries: list[str], k: int, collection: str = "project") -> list[list[tuple[str, float]]]:
        found = []
        for query in queries:
            scores = containment([(text, query) for text in self.texts])
            found.append([(self.ids[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")[:k]])
        return found


def passages() -> pd.DataFrame:
    rows = []
    for city in CITIES:
        for position, role in enumerate(ROLES):
            text = f"The {role} of {city} is {answer_of(city, role)}. What is known of it is little."
            own = {"passage_id": f"{city}#{position}", "doc_id": city, "title": city, "text": text}
            rows.append({**own, "collection": "project", "position": position})
    return pd.DataFrame(rows)


def questions() -> pd.DataFrame:
    rows = []
    for city in CITIES:
        for role in ROLES:
            asked = f"What is the {role} of {city}?"
            rows.append({"note_id": city, "question": asked, "kind": "answerable", "answers": [answer_of(city, role)]})
        for kind, thing in (("unanswerable", "age"), ("false_premise", "second moon")):
            rows.append({"note_id": city, "question": f"What is the {thing} of {city}?", "kind": kind, "answers": []})
    table = pd.DataFrame(rows)
    return table.assign(question_id=[f"q{i:02d}" for i in range(len(table))], split="test", documents=[[city] for city in table["note_id"]])


class Extractor:
    """Reads "... is X." out of a passage; where the question's role is not in it, X all the same but with a low score."""

    def __call__(self, pairs: list[tuple[str, str]]) -> list[tuple[str, float]]:
        role = [q.split(" the ")[1].split(" of ")[0] for q, _ in pairs]
        return [(text.split(" is ")[1].split(".")[0], float(r in text)) for r, (_, text) in zip(role, pairs, strict=True)]


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> SupportVerifier:
    encoder = CrossEncoder.start(tiny_bert(tmp_path_factory.mktemp("bert")), max_length=32, seed=0)
    return WordVerifier(encoder, window_words=40, calibration=Calibration(threshold=0.9))


def pipeline(verifier: SupportVerifier, answerer: object) -> Pipeline:
    return Pipeline(WordSearch(passages()), Reranker(verifier.encoder, weight=0.0), verifier, answerer)  # type: ignore[arg-type]


def run(verifier: SupportVerifier, answerer: object, **changed: object) -> pd.DataFrame:
    settings = SETTINGS.model_copy(update=changed)
    with tempfile.TemporaryDirectory() as folder:
        return answer_questions(questions(), passages(), pipeline(verifier, answerer), settings, cells=Cells(Path(folder)), progress=print)


@pytest.fixture(scope="module")
def answers(verifier: SupportVerifier) -> pd.DataFrame:
    return run(verifier, ReaderAnswerer(Extractor()))


def test_answers_are_cited_and_unsupported_ones_withheld(answers: pd.DataFrame, tmp_path: Path) -> None:
    assert list(answers.columns) == COLUMNS and answers["question_id"].is_unique and len(answers) == 40
    answers.to_parquet(tmp_path / "answers.parquet")
    by_kind = answers.set_index("kind")
    assert not by_kind.loc["answerable", "abstained"].any()
    assert by_kind.loc[["unanswerable", "false_premise"], "abstained"].all()
    for row in answers.itertuples():
        assert set(row.citations) <= set(row.contexts) and len(row.contexts) == 2
        assert bool(row.citations) == bool(row.answer) == (not row.abstained)
        assert row.draft in row.transcript and row.seconds > 0


def test_a_killed_run_goes_on_with_the_questions_that_are_left(answers: pd.DataFrame, verifier: SupportVerifier, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    class Killed(ReaderAnswerer):
        def answer(self, questions: Sequence[str], contexts: Sequence[Sequence[str]]) -> list[Draft]:
            asked.append(list(questions))
            if len(asked) == 2:
                raise KeyboardInterrupt
            return super().answer(questions, contexts)

    lines: list[str] = []

    def run_again() -> pd.DataFrame:
        parts, cells = pipeline(verifier, Killed(Extractor())), Cells(tmp_path, lines.append)
        return answer_questions(questions(), passages(), parts, SETTINGS, cells=cells, progress=lines.append)

    with pytest.raises(KeyboardInterrupt):
        run_again()
    resumed = run_again()
    assert [len(part) for part in asked] == [25, 15, 15] and asked[1] == asked[2]
    assert "questions 1 to 25: kept from before" in lines and lines[-1] == "questions 26 to 40 of 40: 30 answered so far"
    pd.testing.assert_frame_equal(resumed.drop(columns="seconds"), answers.drop(columns="seconds"))


def test_a_good_pipeline_passes(answers: pd.DataFrame, verifier: SupportVerifier) -> None:
    result = report_rag(answers, verifier, passages(), SETTINGS)
    for name in ("groundedness", "answer_f1", "answer_rate", "citation_rate", "gold_cited_rate", "context_recall"):
        assert result.value(name) == 1.0, name
    assert result.value("unanswerable_answered_rate") == 0.0
    assert result.value("context_precision") == pytest.approx(0.5)  # two passages shown, one of them is the answer's
    grounded = result.metric("groundedness")
    assert grounded is not None and grounded.n == 30 and grounded.low is not None and grounded.high is not None
    assert result.value("groundedness__drafts") < 1.0  # drafts to unanswerable questions were withheld, yet are counted here
    assert result.per_example["example_id"].is_unique and result.plots["support"].startswith(b"\x89PNG")
    assert set(result.tables["by_kind"]["kind"]) == {"answerable", "unanswerable", "false_premise", "all"}


def test_swapped_contexts_fall_below_the_bar(answers: pd.DataFrame, verifier: SupportVerifier) -> None:
    given = answers[~answers["abstained"]].reset_index(drop=True)
    shift = len(ROLES)
    swapped = given.assign(**{c: given[c].tolist()[shift:] + given[c].tolist()[:shift] for c in ("contexts", "citations")})
    result = report_rag(swapped, verifier, passages(), SETTINGS)
    assert result.value("groundedness") < FLOOR
    assert result.value("context_recall") < 0.5 and result.value("gold_cited_rate") == 0.0


def test_always_abstaining_drops_the_answer_rate(verifier: SupportVerifier) -> None:
    silent = run(verifier, ReaderAnswerer(lambda pairs: [("", 0.0)] * len(pairs)))
    result = report_rag(silent, verifier, passages(), SETTINGS)
    assert result.value("answer_rate") == 0.0 and result.value("answer_f1") == 0.0
    assert result.value("unanswerable_answered_rate") == 0.0
    assert math.isnan(result.value("groundedness"))  # nothing was said: no check may read that as grounded


def test_always_answering_raises_the_unanswerable_answered_rate(verifier: SupportVerifier) -> None:
    loose = run(verifier, ReaderAnswerer(Extractor()), withhold=False)
    result = report_rag(loose, verifier, passages(), SETTINGS)
    assert result.value("unanswerable_answered_rate") == 1.0
    assert result.value("citation_rate") < 1.0 and result.value("groundedness") < 1.0


def test_ungrounded_answers_fall_below_the_bar(answers: pd.DataFrame, verifier: SupportVerifier) -> None:
    invented = answers.assign(answer=["Xylophonium" if a else "" for a in answers["answer"]])
    assert report_rag(invented, verifier, passages(), SETTINGS).value("groundedness") < FLOOR


class Scripted:
    """A generator that says what it is told to, and keeps the prompts it was given."""

    name = "scripted"

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.prompts = texts, []

    def generate(self, prompts: list, *, max_new_tokens: int, **options: object) -> list[Generation]:
        self.prompts += prompts
        return [Generation(text, 10, 5, 0.1, "stop") for text in self.texts[: len(prompts)]]


def test_generator_answers_from_numbered_passages() -> None:
    generator = Scripted(["It is Ardcapium [1, 2].", "I don't know."])
    drafts = GeneratorAnswerer(generator, max_new_tokens=8, passage_words=3).answer(["What?", "Who?"], [["a b c d", "e f"], ["g"]])
    assert [d.text for d in drafts] == ["It is Ardcapium.", ""]
    assert "[1] a b c\n[2] e f" in generator.prompts[0][1]["content"] and "cite" in generator.prompts[0][0]["content"]
    assert drafts[1].transcript.endswith("assistant: I don't know.") and drafts[0].seconds == 0.1


def test_abstentions_are_recognised() -> None:
    for text in ("I do not know.", "The passages do not contain that.", "It is not mentioned."):
        assert clean_answer(text) == ""
    assert clean_answer("It  is 7 [3].") == "It is 7."


def test_faithfulness_is_ragas_over_our_verdicts(verifier: SupportVerifier) -> None:
    contexts = ["The river of Arden is Ardrivium.", "The mayor of Arden is Ardmayium."]
    both = "The river of Arden is Ardrivium. The mayor of Arden is Bob Smith Jones Brown."
    answers = ["The river of Arden is Ardrivium.", both, "", "Ardrivium"]
    scores = faithfulness(["What is it?"] * 4, answers, [contexts, contexts, contexts, []], verifier)
    assert scores[:2] == [1.0, 0.5] and math.isnan(scores[2]) and scores[3] == 0.0


def test_context_precision_and_recall_by_id() -> None:
    precision, recall = context_precision_recall([["a", "b"], ["c"], ["d"], []], [["a", "z"], ["c"], [], ["e"]])
    assert precision[:2] == [0.5, 1.0] and recall[:2] == [0.5, 1.0]
    assert math.isnan(precision[2]) and math.isnan(recall[2]) and math.isnan(precision[3]) and recall[3] == 0.0


def test_sampling_keeps_every_kind_and_names_an_empty_split() -> None:
    sampled = sample_questions(questions(), SETTINGS.model_copy(update={"max_questions": 8}))
    assert len(sampled) <= 8 and set(sampled["kind"]) == {"answerable", "unanswerable", "false_premise"}
    assert sampled.equals(sample_questions(questions(), SETTINGS.model_copy(update={"max_questions": 8})))
    with pytest.raises(DataError, match="split 'dev'"):
        sample_questions(questions(), SETTINGS.model_copy(update={"split": "dev"}))


def test_answers_over_other_passages_are_refused(answers: pd.DataFrame, verifier: SupportVerifier) -> None:
    with pytest.raises(DataError, match="not among the passages"):
        report_rag(answers, verifier, passages().head(3), SETTINGS)
    with pytest.raises(DataError, match="empty"):
        report_rag(answers.head(0), verifier, passages(), SETTINGS)


def test_documents_of_another_collection_are_no_reference(answers: pd.DataFrame, verifier: SupportVerifier) -> None:
    own = passages()
    others = own.assign(collection="other", passage_id="other/" + own["passage_id"])
    with_others = report_rag(answers, verifier, pd.concat([own, others], ignore_index=True), SETTINGS)
    assert with_others.value("context_recall") == 1.0 == report_rag(answers, verifier, own, SETTINGS).value("context_recall")
