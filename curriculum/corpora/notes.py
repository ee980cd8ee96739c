"""The study notes and the questions over them, read from a folder and checked on the way in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import yaml

from curriculum.corpora.documents import document, documents_table, first_sentence, language_of, plain
from curriculum.corpora.readers import read_text
from curriculum.errors import DataError

QUESTION_KINDS = ("answerable", "unanswerable", "false_premise", "russian")
DIFFICULTIES = ("easy", "medium", "hard")
SPLITS = ("train", "dev", "test")
QUESTION_COLUMNS = ["question_id", "note_id", "question", "phrasings", "kind", "answers", "difficulty", "split"]
_SPANS = ("answerable", "russian")


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        DataError: the file is missing, not UTF-8 or not YAML; the message names it and the line.
    """
    return _yaml(read_text(path), path)


def _yaml(text: str, path: Path, first_line: int = 1) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = first_line + error.problem_mark.line if error.problem_mark else first_line
        raise DataError(f"{path}, line {line}: not valid YAML ({error.problem}); correct the line") from error
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not valid YAML ({error})") from error


def load_notes(folder: Path) -> pd.DataFrame:
    """The notes as a documents table (kind ``note``, ``module`` = the part). ``README.md`` is no note.

    Raises:
        DataError: no notes, a note without front matter, without text, or whose id differs from its file name.
    """
    return documents_table([_note(path) for path in note_files(folder)], f"the notes folder {folder}")


def note_files(folder: Path) -> list[Path]:
    """The notes of a folder, by name."""
    return [path for path in sorted(folder.glob("*.md")) if path.stem != "README"]


def front_matter(path: Path) -> tuple[dict[str, Any], str]:
    """The checked front matter of a note, and its text.

    Raises:
        DataError: as :func:`load_notes`, of this one.
    """
    found = re.match(r"---\n(.*?)\n---(?:\n(.*))?\Z", read_text(path), re.DOTALL)
    if not found:
        raise DataError(f"{path} has no front matter; begin it with '---', id, title and part, and '---'")
    head, text = _yaml(found.group(1), path, first_line=2), plain(found.group(2) or "")
    if not isinstance(head, dict):
        raise DataError(f"{path}: the front matter is no mapping; write 'id: {path.stem}', 'title: ...', 'part: ...'")
    missing = [name for name in ("id", "title", "part") if not head.get(name)]
    if missing:
        raise DataError(f"{path}: the front matter lacks {', '.join(missing)}")
    if head["id"] != path.stem:
        raise DataError(f"{path}: its id is {head['id']!r}; name it {path.stem!r} like the file")
    broken = [link for link in head.get("links") or [] if not is_web_address(str(link))]
    if broken:
        raise DataError(f"{path}: the link {broken[0]!r} is no web address; write it whole, from https:// on")
    prose = re.sub(r"^#.*$", "", text, flags=re.MULTILINE).strip()
    if not prose:
        raise DataError(f"{path} has no text below its front matter")
    return head, text


def _note(path: Path) -> dict[str, str]:
    head, text = front_matter(path)
    prose = re.sub(r"^#.*$", "", text, flags=re.MULTILINE).strip()
    return document(
        path.stem, str(head["title"]), text, source="notes", module=str(head["part"]), qualified_name=path.stem, kind="note",
        summary=first_sentence(prose), language=language_of(text),
    )


def is_web_address(link: str) -> bool:
    """Whether a link is an http or https address with a host."""
    address = urlsplit(link)
    return address.scheme in {"http", "https"} and "." in address.netloc


def load_questions(folder: Path, notes: pd.DataFrame) -> pd.DataFrame:
    """The questions table (``QUESTION_COLUMNS``). Splits come from ``splits.yaml``, by note.

    Raises:
        DataError: a question without a note, of an unknown kind, asked twice, or whose answer is no span of its note.
    """
    texts = dict(zip(notes["doc_id"], notes["text"], strict=True))
    splits, rows = load_splits(folder, set(texts)), []
    for path in sorted(folder.glob("*.questions.yaml")):
        note = path.name.removesuffix(".questions.yaml")
        if note not in texts:
            raise DataError(f"{path} asks about '{note}', which has no note; add {note}.md or rename the file")
        rows += [_question(item, note, texts[note], splits[note], path) for item in read_items(path)]
    if not rows:
        raise DataError(f"{folder} holds no *.questions.yaml; write one beside a note")
    refuse_repeats((row["question_id"] for row in rows), folder, "question id")
    refuse_repeats((text for row in rows for text in [row["question"], *row["phrasings"]]), folder, "question", normalised=True)
    return pd.DataFrame(rows)[QUESTION_COLUMNS]


def load_splits(folder: Path, notes: set[str]) -> dict[str, str]:
    """Note id -> train, dev or test, for every note.

    Raises:
        DataError: a note without a split, a split without a note, or an unknown split.
    """
    path = folder / "splits.yaml"
    splits = read_yaml(path)
    if not isinstance(splits, dict):
        raise DataError(f"{path} is no mapping; write one 'note: split' a line")
    unknown, without = sorted(set(splits) - notes), sorted(notes - set(splits))
    if unknown or without:
        raise DataError(f"{path}: no note for {unknown or 'none'}, no split for {without or 'none'}; name every note once")
    wrong = sorted(f"{note}: {split}" for note, split in splits.items() if split not in SPLITS)
    if wrong:
        raise DataError(f"{path}: {', '.join(wrong)}; a split is one of {', '.join(SPLITS)}")
    return splits


def read_items(path: Path, required: tuple[str, ...] = ("id", "question", "kind")) -> list[dict[str, Any]]:
    """The mappings that a YAML file lists.

    Raises:
        DataError: it is no list, or an entry lacks a required field; the message says which.
    """
    items = read_yaml(path)
    if not isinstance(items, list):
        raise DataError(f"{path} is no list; begin every entry with '- {required[0]}:'")
    for number, item in enumerate(items, 1):
        missing = [name for name in required if not isinstance(item, dict) or item.get(name) in (None, "")]
        if missing:
            raise DataError(f"{path}: entry {number} lacks {', '.join(missing)}")
    return items


def _question(item: dict[str, Any], note: str, text: str, split: str, path: Path) -> dict[str, Any]:
    kind, difficulty, place = item["kind"], item.get("difficulty", "medium"), f"{path}: question {item['id']!r}"
    answers, phrasings = ([str(value) for value in item.get(name) or []] for name in ("answers", "phrasings"))
    if kind not in QUESTION_KINDS:
        raise DataError(f"{place} is of kind {kind!r}; use one of {', '.join(QUESTION_KINDS)}")
    if difficulty not in DIFFICULTIES:
        raise DataError(f"{place} is of difficulty {difficulty!r}; use one of {', '.join(DIFFICULTIES)}")
    if bool(answers) != (kind in _SPANS):
        wanted = "needs at least one answer" if kind in _SPANS else "must have no answers"
        raise DataError(f"{place} is {kind} and {wanted}")
    absent = [answer for answer in answers if answer not in text]
    if absent:
        raise DataError(f"{place}: {absent[0]!r} is no verbatim span of {note}.md; quote the note")
    return {
        "question_id": str(item["id"]), "note_id": note, "question": str(item["question"]), "phrasings": phrasings, "kind": kind,
        "answers": answers, "difficulty": difficulty, "split": split,
    }


def refuse_repeats(values: Iterable[str], folder: Path, what: str, *, normalised: bool = False) -> None:
    """Raise a DataError for the first value that stands twice; ``normalised`` compares without case and punctuation."""
    counts = Counter(re.sub(r"\W+", " ", value.casefold()).strip() if normalised else value for value in values)
    twice = [value for value, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"{folder}: the {what} {twice[0]!r} stands {counts[twice[0]]} times; change or remove one")
