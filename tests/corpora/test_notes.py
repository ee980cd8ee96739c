"""The notes loader on a folder of its own, and every way such a folder can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from curriculum.corpora.claims import CLAIM_COLUMNS, load_claims
from curriculum.corpora.documents import COLUMNS
from curriculum.corpora.notes import QUESTION_COLUMNS, load_notes, load_questions
from curriculum.corpora.schemas import conform
from curriculum.corpora.two_hop import TWO_HOP_COLUMNS, load_two_hop
from curriculum.errors import DataError

NOTE = "---\nid: {0}\ntitle: About {0}\npart: search\n---\n\n# About {0}\n\nA {0} weighs 3 kg. It is green.\n"
QUESTION = {
    "id": "apple-01", "question": "How heavy?", "phrasings": ["What weight?"], "kind": "answerable", "answers": ["3 kg"],
    "difficulty": "easy",
}
CLAIM = {
    "claim_id": "c1", "passage": "A apple weighs 3 kg.", "claim": "It weighs 4 kg.", "supported": False, "why": "3, not 4",
    "kind": "swapped-number", "readings": [False, True],
}
TWO_HOP = {
    "id": "t1", "question": "Which is heavier?", "phrasings": ["What weighs more?"], "kind": "comparison", "difficulty": "hard",
    "answers": ["3 kg"], "supports": [{"note_id": "apple", "span": "weighs 3 kg"}, {"note_id": "fig", "span": "A fig weighs 3 kg"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("apple", "fig", "pear"):
        (tmp_path / f"{name}.md").write_text(NOTE.format(name))
    (tmp_path / "README.md").write_text("no note")
    russian = {"id": "apple-02", "question": "Какой вес?", "kind": "russian", "answers": ["3 kg"]}
    write(tmp_path / "apple.questions.yaml", [QUESTION, russian])
    write(tmp_path / "pear.questions.yaml", [{"id": "pear-01", "question": "Who?", "kind": "unanswerable", "answers": []}])
    write(tmp_path / "splits.yaml", {"apple": "train", "fig": "train", "pear": "test"})
    write(tmp_path / "apple.claims.yaml", [CLAIM])
    write(tmp_path / "two_hop.yaml", [TWO_HOP])
    return tmp_path


def write(path: Path, content: object) -> None:
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")


def load(folder: Path) -> None:
    notes = load_notes(folder)
    load_questions(folder, notes)
    load_claims(folder, notes)
    load_two_hop(folder, notes)


def test_a_sound_folder(folder: Path) -> None:
    notes = load_notes(folder)
    assert list(notes.columns) == COLUMNS and notes["doc_id"].tolist() == ["apple", "fig", "pear"]
    apple = notes.iloc[0]
    assert apple["text"] == "# About apple\n\nA apple weighs 3 kg. It is green." and apple["summary"] == "A apple weighs 3 kg."
    assert (apple["title"], apple["module"], apple["kind"], apple["source"]) == ("About apple", "search", "note", "notes")
    questions = load_questions(folder, notes)
    assert list(questions.columns) == QUESTION_COLUMNS and questions["split"].tolist() == ["train", "train", "test"]
    assert questions["answers"].tolist() == [["3 kg"], ["3 kg"], []] and questions["phrasings"][0] == ["What weight?"]
    claims = load_claims(folder, notes)
    assert list(claims.columns) == CLAIM_COLUMNS and claims["supported"].dtype == bool
    assert claims.loc[0, ["note_id", "split", "readings"]].tolist() == ["apple", "dev", [False, True]]
    two_hop = load_two_hop(folder, notes)
    assert list(two_hop.columns) == TWO_HOP_COLUMNS and two_hop["split"].tolist() == ["train"]
    assert two_hop["note_ids"][0] == ["apple", "fig"] and two_hop["spans"][0] == ["weighs 3 kg", "A fig weighs 3 kg"]
    for table, name in ((questions, "notes_questions"), (claims, "labelled_claims"), (two_hop, "two_hop_questions")):
        assert conform(table, name) is not None


def test_no_two_hop_questions_are_none(folder: Path) -> None:
    (folder / "two_hop.yaml").unlink()
    assert len(load_two_hop(folder, load_notes(folder))) == 0


@pytest.mark.parametrize(
    ("column", "value"), [("kind", "rhetorical"), ("question", " "), ("answers", []), ("split", "later"), ("phrasings", [""])]
)
def test_a_table_that_breaks_its_schema_is_refused(folder: Path, column: str, value: object) -> None:
    table = load_questions(folder, load_notes(folder))
    table.at[0, column] = value
    with pytest.raises(DataError, match="notes_questions breaks its schema"):
        conform(table, "notes_questions")


def question(**changes: object) -> Callable[[Path], None]:
    return lambda folder: write(folder / "apple.questions.yaml", [{**QUESTION, **changes}])


def claim(**changes: object) -> Callable[[Path], None]:
    return lambda folder: write(folder / "apple.claims.yaml", [{**CLAIM, **changes}])


def two_hop(**changes: object) -> Callable[[Path], None]:
    return lambda folder: write(folder / "two_hop.yaml", [{**TWO_HOP, **changes}])


def supports(*places: tuple[str, str]) -> Callable[[Path], None]:
    return two_hop(supports=[{"note_id": note, "span": span} for note, span in places])


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (question(answers=["4 kg"]), r"apple-01': '4 kg' is no verbatim span of apple.md"),
        (question(kind="russian", answers=["три"]), "no verbatim span"),
        (question(answers=[]), "is answerable and needs at least one answer"),
        (question(kind="unanswerable"), "is unanswerable and must have no answers"),
        (question(kind="rhetorical"), "kind 'rhetorical'; use one of answerable"),
        (question(difficulty="extreme"), "difficulty 'extreme'"),
        (question(question=""), r"apple.questions.yaml: entry 1 lacks question"),
        (question(id="pear-01"), "question id 'pear-01' stands 2 times"),
        (question(question="who"), "the question 'who' stands 2 times"),
        (question(phrasings=["How heavy"]), "the question 'how heavy' stands 2 times"),
        (text("apple.questions.yaml", "id: not a list"), "is no list"),
        (text("apple.questions.yaml", "- id: x\n  question: [unclosed\n"), r"apple.questions.yaml, line \d: not valid YAML"),
        (text("plum.questions.yaml", "[]"), "asks about 'plum', which has no note"),
        (text("splits.yaml", "apple: train\nfig: train\n"), r"no split for \['pear'\]"),
        (text("splits.yaml", "apple: train\nfig: train\npear: dev\nplum: dev\n"), r"no note for \['plum'\]"),
        (text("splits.yaml", "apple: train\nfig: train\npear: later\n"), "pear: later; a split is one of"),
        (lambda folder: (folder / "splits.yaml").unlink(), "splits.yaml does not exist"),
        (text("pear.md", "# no front matter"), "pear.md has no front matter"),
        (text("pear.md", "---\nid: pear\ntitle: [\n---\ntext"), r"pear.md, line \d: not valid YAML"),
        (text("pear.md", "---\nid: pear\n---\ntext"), "the front matter lacks title, part"),
        (text("pear.md", NOTE.format("plum")), "its id is 'plum'; name it 'pear'"),
        (text("pear.md", "---\nid: pear\ntitle: P\npart: q\n---\n# only a heading\n"), "has no text below"),
        (lambda folder: (folder / "pear.md").write_bytes(b"---\nid: p\xff"), "pear.md, line 2: not UTF-8"),
        (text("pear.md", "---\nid: pear\ntitle: P\npart: q\nlinks: [ftp:x]\n---\ntext"), "the link 'ftp:x' is no web address"),
        (claim(passage="not there"), "'c1': its passage is no verbatim span of the note"),
        (text("plum.claims.yaml", "[]"), "about 'plum', which has no note"),
        (lambda folder: (folder / "apple.claims.yaml").unlink(), "holds no [*].claims.yaml"),
        (claim(readings=["no"]), "readings are .'no'.; list one true or false a reader"),
        (claim(readings=[True, True]), "supported is false, and every reader says otherwise"),
        (claim(supported="yes"), "supported is 'yes'; write true or false"),
        (claim(kind="hearsay"), "kind is 'hearsay'"),
        (lambda folder: write(folder / "apple.claims.yaml", [CLAIM, CLAIM]), "claim id 'c1' stands 2 times"),
        (two_hop(kind="trick"), "'t1' is of kind 'trick'; use one of bridge, comparison"),
        (two_hop(difficulty="extreme"), "'t1' is of difficulty 'extreme'"),
        (two_hop(answers=["4 kg"]), "the answer '4 kg' is in neither span"),
        (two_hop(phrasings=["which is heavier"]), "the question 'which is heavier' stands 2 times"),
        (supports(("apple", "3 kg")), "needs two supports, of two notes"),
        (supports(("apple", "3 kg"), ("apple", "green")), "needs two supports, of two notes"),
        (supports(("apple", "3 kg"), ("plum", "3 kg")), "rests on 'plum', which has no note"),
        (supports(("apple", "3 kg"), ("fig", "4 kg")), "'4 kg' is no verbatim span of fig.md"),
        (supports(("apple", "3 kg"), ("pear", "3 kg")), "rests on notes of two sides .test, train.; choose notes of one"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    load(folder)
    spoil(folder)
    with pytest.raises(DataError, match=message):
        load(folder)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no documents"):
        load_notes(tmp_path)
