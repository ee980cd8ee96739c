"""The tokenizer study on small corpora: what is measured, and that training repeats itself."""

from __future__ import annotations

from pydoc_data.topics import topics

import pandas as pd
import pytest

from curriculum.corpora.russian import PACKAGED, load_russian
from curriculum.errors import DataError
from curriculum.results import StudyResult
from curriculum.sources import dataset_folder
from curriculum.tokenization.parity import encoding_parity, merge_agreement, scratch_encoder
from curriculum.tokenization.settings import TokenizationSettings
from curriculum.tokenization.sources import study_texts
from curriculum.tokenization.study import compare_tokenizers, measure, own_training
from curriculum.tokenization.training import DETERMINISTIC, KINDS, Kind, train_tokenizer

PAGES = [paragraph for name in ("assert", "for", "strings", "numbers", "import", "try") for paragraph in topics[name].split("\n\n")]
CORPORA = {
    "prose": sorted({p for p in PAGES if len(p) > 100}),
    "rules": sorted({f"rule_{i} ::= part_{i % 7} | part_{i % 5} [rule_{i // 2}]" for i in range(120)}),
}
SETTINGS = TokenizationSettings(study_vocab_sizes=(300, 600), study_characters=20_000, study_documents=10, study_merges=60)


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return compare_tokenizers(CORPORA, SETTINGS, seed=0, foreign={"Russian": ["Сколько байтов в слове?"]})


def test_metrics(result: StudyResult) -> None:
    assert result.value("round_trip__bpe") == 1.0 and result.value("unknown_rate__bpe") == 0.0
    assert result.value("merge_agreement__scratch_bpe") == 1.0
    for kind in ("wordpiece", "unigram"):
        parity = result.metric(f"parity__{kind}")
        assert parity is not None and parity.value == 1.0 and parity.n == 20
    for kind in KINDS:
        metric = result.metric(f"bytes_per_token__{kind}")
        assert metric is not None and metric.n == 20 and metric.low <= metric.value <= metric.high and metric.value > 1
        assert result.value(f"fertility__{kind}") > 1 and 0 <= result.value(f"unknown_rate__{kind}") <= 1


def test_scores_are_one_row_a_document(result: StudyResult) -> None:
    assert len(result.per_example) == 20 and result.per_example["example_id"].is_unique
    assert result.per_example["fertility__unigram"].mean() == pytest.approx(result.value("fertility__unigram"))


def test_tables_and_plots(result: StudyResult) -> None:
    table: pd.DataFrame = result.tables["tokenizers"]
    assert len(table) == 2 * 2 * 3
    bpe = table[(table["corpus"] == "prose") & (table["tokenizer"] == "bpe")].set_index("vocabulary")
    assert bpe["bytes_per_token"][600] > bpe["bytes_per_token"][300]
    transfer = result.tables["transfer"].set_index(["trained_on", "measured_on", "tokenizer"])
    assert len(transfer) == 2 * 3 * 3
    assert transfer["unknown_rate"]["prose", "Russian", "wordpiece"] > 0.5
    assert transfer["unknown_rate"]["prose", "Russian", "bpe"] == 0 and transfer["round_trip"]["prose", "Russian", "bpe"] == 1
    assert transfer["fertility"]["prose", "prose", "bpe"] < transfer["fertility"]["rules", "prose", "bpe"]
    assert all(png.startswith(b"\x89PNG") and len(png) < 50_000 for png in result.plots.values())


def test_training_on_the_own_text_is_held_against_the_best_of_the_others() -> None:
    found = [("a", "a", 1.5), ("b", "a", 3.0), ("c", "a", 2.0), ("a", "b", 2.0), ("b", "b", 2.5), ("c", "b", 4.0), ("a", "c", 9.0)]
    transfer = pd.DataFrame([{"trained_on": t, "measured_on": m, "tokenizer": "bpe", "fertility": f} for t, m, f in found])
    own = own_training(transfer).set_index("corpus")
    assert own["gain"].to_dict() == {"a": 2.0 / 1.5, "b": 2.0 / 2.5}, "c trained nothing, and a text that others serve better falls below 1"
    assert own["trained_on"].to_dict() == {"a": "c", "b": "a"}
    assert own_training(transfer.iloc[:1]).empty


def test_a_russian_tokenizer_spends_fewer_tokens_on_russian(result: StudyResult) -> None:
    russian = load_russian(dataset_folder(PACKAGED), PACKAGED)
    found = compare_tokenizers({"prose": CORPORA["prose"], "Russian": list(russian["text"])[:300]}, SETTINGS, seed=0)
    gains = found.tables["own_training"].set_index(["corpus", "tokenizer"])["gain"]
    assert gains["Russian", "bpe"] > 2 and found.value("own_training_gain__bpe") > 1
    assert found.value("own_training_gain__bpe") == gains.xs("bpe", level="tokenizer").min()
    assert result.value("own_training_gain__bpe") > 1


def test_a_document_is_counted_by_hand() -> None:
    tokenizer = train_tokenizer("wordpiece", ["low lower lowest"], 60)
    found = measure(tokenizer, "low Ж lower")
    assert (found.words, found.bytes, found.unknown, found.exact) == (3, 12, 1, False)
    assert found.tokens >= 3 and found.scores()["unknown_rate"] == 1 / found.tokens


@pytest.mark.parametrize("kind", KINDS)
def test_training_repeats_itself(kind: Kind, result: StudyResult) -> None:
    texts = CORPORA["prose"][:40]
    first, second = (train_tokenizer(kind, texts, 500) for _ in range(2))
    lengths = [sum(len(tokenizer.encode(text).ids) for text in texts) for tokenizer in (first, second)]
    assert lengths[1] == pytest.approx(lengths[0], rel=0.03)
    if kind in DETERMINISTIC:
        assert first.to_str() == second.to_str()
    metric = result.metric(f"fertility__{kind}")
    assert metric is not None and metric.deterministic == (kind in DETERMINISTIC)


def test_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="unknown tokenizer kind 'words'"):
        train_tokenizer("words", ["a"], 300)  # type: ignore[arg-type]


def test_a_wrong_tie_break_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from curriculum.tokenization import parity

    real = parity.learn_merges
    monkeypatch.setattr(parity, "learn_merges", lambda texts, count: list(reversed(real(texts, count))))
    assert merge_agreement(CORPORA["prose"], 60).value < 0.1


def test_a_wrong_encoding_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from curriculum.tokenization import unigram, wordpiece

    trained = [(kind, train_tokenizer(kind, CORPORA["prose"], 600), CORPORA["prose"][:20]) for kind in KINDS]
    monkeypatch.setattr(wordpiece, "PREFIX", "")
    monkeypatch.setattr(unigram, "words_of", str.split)
    assert {metric.name: metric.value < 0.5 for metric in encoding_parity(trained)} == {"parity__wordpiece": True, "parity__unigram": True}
    assert [metric.n for metric in encoding_parity(trained, characters=1)] == [1, 1], "the first document at least"
    with pytest.raises(ValueError, match="no encoder over a vocabulary for the kind 'bpe'"):
        scratch_encoder("bpe", trained[0][1])


def test_too_few_documents() -> None:
    with pytest.raises(DataError, match="leaves none to measure"):
        compare_tokenizers({"one": ["the same text"] * 5}, SETTINGS, seed=0)


def test_texts_of_the_study() -> None:
    documents = pd.DataFrame({"source": ["stdlib", "numpy", "language-reference"], "text": ["a", "b", "c"]})
    notes = pd.DataFrame({"text": ["# Heading\n\n" + "long " * 40 + "\n\nshort"]})
    questions = pd.DataFrame(
        {"kind": ["russian", "answerable"], "question": ["Что?", "What?"], "phrasings": [["Чего?"], ["Which?"]]}
    )
    russian = pd.DataFrame({"text": ["Перезапустить ядро"]})
    corpora, foreign = study_texts(documents, notes, questions, russian)
    assert corpora == {
        "reference and standard library": ["a", "c"], "library docstrings": ["b"], "study notes": ["long " * 40],
        "Russian interface texts": ["Перезапустить ядро"],
    }
    assert foreign == {"Russian questions": ["Что?", "Чего?"]}
    own, none = study_texts(documents, notes, questions.iloc[1:], russian, own=pd.DataFrame({"text": ["mine"]}))
    assert own["own documents"] == ["mine"] and none == {}
