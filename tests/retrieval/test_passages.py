"""Passages keep all of the text, and known items cannot be found by what was taken from them."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.corpora.documents import COLUMNS as DOCUMENTS
from curriculum.corpora.documents import document, first_sentence
from curriculum.errors import DataError
from curriculum.retrieval.passages import choose_known_items, chunk, contents, project_passages, without_summary
from curriculum.retrieval.settings import RetrievalSettings

WORD = st.text("abcdefgh", min_size=1, max_size=9)
SENTENCE = st.lists(WORD, min_size=1, max_size=30).map(lambda words: " ".join(words) + ".")
PARAGRAPH = st.tuples(st.lists(SENTENCE, min_size=1, max_size=6), st.sampled_from([" ", "\n"])).map(lambda p: p[1].join(p[0]))


@given(st.lists(PARAGRAPH, min_size=1, max_size=6), st.integers(11, 60))
def test_no_word_is_lost_and_no_passage_is_much_too_long(paragraphs: list[str], words: int) -> None:
    passages = [text for _, text in chunk("\n\n".join(paragraphs), words)]
    said = " ".join(passages).split()
    left = iter(said)
    assert all(word in left for word in " ".join(paragraphs).split())  # in order; a cut paragraph may say one sentence twice
    assert all(len(text.split()) <= 1.25 * words + 1 for text in passages)


def test_sections_are_never_mixed_and_a_short_tail_joins_what_precedes_it() -> None:
    text = "# Top\nUnder it.\n\nbefore " + "one two three four " * 4 + "\n\n## Second\n\n" + "five six seven eight " * 5 + "\n\ntail end"
    assert [(heading, text.split()[0], text.split()[-1]) for heading, text in chunk(text, 20)] == [
        ("Top", "Under", "four"), ("Second", "five", "end"),
    ]


def test_a_long_paragraph_is_cut_between_sentences_and_the_pieces_share_a_short_one() -> None:
    long = " ".join(f"s{n} w w w w w w w w." if n != 2 else "s2 w." for n in range(6))
    first, second, *_ = [text for _, text in chunk(long, 20)]
    assert first.startswith("s0") and first.endswith("s2 w.") and second.startswith("s2 w. s3")


def test_an_endless_line_is_cut() -> None:
    passages = [text for _, text in chunk("x" * 2000, 20)]
    assert len(passages) > 10 and "".join(passages) == "x" * 2000


def test_every_answer_stands_whole_in_a_passage(notes: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    settings = RetrievalSettings(known_items=0)
    own = project_passages(notes[0], pd.DataFrame(columns=DOCUMENTS, dtype=str), settings)
    answerable = notes[1][notes[1]["kind"] == "answerable"]
    assert len(answerable) > 50
    for question in answerable.itertuples():
        texts = own.loc[own["doc_id"] == question.note_id, "text"]
        assert any(answer in text for answer in question.answers for text in texts), question.question_id


def docstring(name: str, summary: str, rest: str = "It keeps the rest of its text, which says much more than that. " * 4) -> dict[str, str]:
    text = f"{summary}\n\n{rest}"
    return document(
        f"stdlib/{name}", name, text, source="stdlib", module="m", qualified_name=name, kind="function", summary=first_sentence(text)
    )


def library() -> pd.DataFrame:
    rows = [
        docstring("m.good", "Lay out the given boxes from left to right."),
        docstring("m.wrapped", "Turn the argument into\na mapping from names to their numbers."),
        docstring("m.short", "Do it."),
        docstring("m.rotate", "Rotate all of the points about the origin by an angle."),
        docstring("m.twin_a", "Return what both of the twins are known to return."),
        docstring("m.twin_b", "Return what both of the twins are known to return."),
        docstring("m.quoted", "Close the underlying file and all that depends on it."),
        docstring("m.quoting", "Say again what others said before it.", "Close the underlying file and all that depends on it. " * 3),
        docstring("m.bare", "Give back a copy that shares nothing with it.", "Short."),
    ]
    return pd.DataFrame(rows)


def test_known_items_are_telling_unique_unnamed_and_leave_something_to_find() -> None:
    known = choose_known_items(library(), 100)
    assert set(known) == {"stdlib/m.good", "stdlib/m.wrapped", "stdlib/m.quoting"}
    assert choose_known_items(library(), 2) == dict(list(known.items())[:2])


def test_the_query_is_gone_from_what_is_indexed() -> None:
    made = project_passages(pd.DataFrame(columns=DOCUMENTS, dtype=str), library(), RetrievalSettings(passage_words=30))
    asked = made[made["known_item_query"] != ""]
    assert len(asked) == 3 and set(asked["position"]) == {0}
    indexed = " ".join(" ".join(contents(made)).split())
    assert all(query not in indexed for query in asked["known_item_query"])
    assert "Do it." in indexed  # other documents keep their summaries
    assert made["passage_id"].is_unique


def test_a_summary_that_does_not_begin_its_text_is_not_removed_from_elsewhere() -> None:
    assert without_summary("A B c.\n\nMore.", "A B c.") == "More."
    assert without_summary("Other. A B c. More.", "A B c.") == ""


def test_notes_and_known_items_fit_whatever_the_limit(notes: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    made = project_passages(notes[0], library(), RetrievalSettings(max_passages=1))
    assert set(made["doc_id"]) == {*notes[0]["doc_id"], *choose_known_items(library(), 100)}


def test_no_text_is_an_error() -> None:
    nothing = pd.DataFrame(columns=DOCUMENTS, dtype=str)
    with pytest.raises(DataError, match="no passages"):
        project_passages(nothing, nothing, RetrievalSettings())
