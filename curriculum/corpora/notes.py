"""The study notes, their questions and the labelled claims, read from a folder and checked on the way in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from curriculum.corpora.documents import document, documents_table, first_sentence, plain
from curriculum.errors import DataError

QUESTION_KINDS = ("answerable", "unanswerable", "false_premise", "russian")
_SPANS = ("answerable", "russian")


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        DataError: the file is missing, not UTF-8 or not YAML; the message names it and the line.
    """
    if not path.exists():
        raise DataError(f"{path} is missing; every notes folder has one")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _front_matter(path: Path) -> tuple[dict[str, Any], str]:
    text = path.read_text(encoding="utf-8")
    found = re.match(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL)
    if not found:
        raise DataError(f"{path} has no front matter; begin it with '---', id, title and part, and '---'")
    return yaml.safe_load(found.group(1)), found.group(2)


def load_notes(folder: Path) -> pd.DataFrame:
    """The notes as a documents table (kind ``note``, ``module`` = the part).

    Raises:
        DataError: no notes, or a note whose id differs from its file name.
    """
    rows = []
    for path in sorted(folder.glob("*.md")):
        if path.stem == "README":
            continue
        head, body = _front_matter(path)
        if head.get("id") != path.stem:
            raise DataError(f"{path}: its id is {head.get('id')!r}; name it {path.stem!r} like the file")
        text = plain(body)
        prose = re.sub(r"^#.*$", "", text, flags=re.M).strip()
        rows.append(
            document(path.stem, head["title"], text, source="notes", module=head["part"], qualified_name=path.stem, kind="note",
                     summary=first_sentence(prose))
        )
    return documents_table(rows, f"the notes folder {folder}")


def load_questions(folder: Path, notes: pd.DataFrame) -> pd.DataFrame:
    """The questions table. Splits come from ``splits.yaml``, by note.

    Raises:
        DataError: a question without a note, of an unknown kind, asked twice, or whose answer is no span of its note.
    """
    splits, texts = read_yaml(folder / "splits.yaml"), dict(zip(notes["doc_id"], notes["text"], strict=True))
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.questions.yaml")):
        note = path.name.removesuffix(".questions.yaml")
        if note not in texts or note not in splits:
            raise DataError(f"{path} asks about '{note}', which has no note or no split in splits.yaml")
        rows.extend(_question(item, note, texts[note], splits[note], path) for item in read_yaml(path))
    _refuse_repeats((r["question_id"] for r in rows), folder, "question id")
    _refuse_repeats((re.sub(r"\W+", " ", r["question"].lower()).strip() for r in rows), folder, "question")
    return pd.DataFrame(rows)


def _question(item: dict[str, Any], note: str, text: str, split: str, path: Path) -> dict[str, Any]:
    kind, answers = item.get("kind"), [str(a) for a in item.get("answers") or []]
    if kind not in QUESTION_KINDS:
        raise DataError(f"{path}: question {item.get('id')!r} is of kind {kind!r}; use one of {', '.join(QUESTION_KINDS)}")
    if kind in _SPANS and not (answers and all(a in text for a in answers)):
        raise DataError(f"{path}: question {item.get('id')!r} needs answers that are verbatim spans of {note}.md; got {answers}")
    return {
        "question_id": item["id"], "note_id": note, "question": item["question"], "phrasings": list(item.get("phrasings") or []),
        "kind": kind, "answers": answers, "difficulty": item.get("difficulty", "medium"), "split": split,
    }


def _refuse_repeats(keys: Iterable[str], folder: Path, what: str) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise DataError(f"{folder}: the {what} {key!r} stands twice; change or remove one")
        seen.add(key)


def load_claims(folder: Path, notes: pd.DataFrame) -> pd.DataFrame:
    """The human-labelled claims table.

    Raises:
        DataError: a claim whose passage does not stand in its note, or an id that stands twice.
    """
    texts = dict(zip(notes["doc_id"], notes["text"], strict=True))
    rows = read_yaml(folder / "claims.yaml")
    for row in rows:
        if row["passage"] not in texts.get(row["note_id"], ""):
            raise DataError(f"{folder / 'claims.yaml'}: the passage of {row['claim_id']!r} does not stand in {row['note_id']}.md")
    _refuse_repeats((r["claim_id"] for r in rows), folder, "claim id")
    columns = ["claim_id", "note_id", "passage", "claim", "supported", "why", "kind", "split"]
    return pd.DataFrame(rows)[columns].astype({"supported": bool})
