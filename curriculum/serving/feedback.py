"""What people thought of answers: appended to a JSONL file with the versions that answered, and read back for an annotation round."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curriculum.serving.schemas import Feedback

if TYPE_CHECKING:
    import pandas as pd

FILE = "feedback.jsonl"


class FeedbackStore:
    """Keeps the last ``kept`` answers, so that feedback can name one, and appends what is said of them to ``folder/feedback.jsonl``.

    The file holds questions and comments as people wrote them: it is readable by its owner alone.
    """

    def __init__(self, folder: Path, kept: int) -> None:
        self._path, self._kept = folder / FILE, kept
        self._answers: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, request_id: str, record: Mapping[str, Any]) -> None:
        """Keep what was answered: its kind, query, passages (texts by id), answer and versions."""
        with self._lock:
            self._answers[request_id] = record
            while len(self._answers) > self._kept:
                self._answers.popitem(last=False)

    def store(self, feedback: Feedback) -> dict[str, Any] | None:
        """Append the feedback with what it is about, synced to the disk; the record, or None where it names nothing that was answered."""
        with self._lock:
            answered = self._answers.get(feedback.request_id)
            if answered is None or (feedback.passage_id is not None and feedback.passage_id not in answered["passages"]):
                return None
            shown = answered["passages"]
            record = {
                "feedback_id": uuid.uuid4().hex, "at": datetime.now(UTC).isoformat(timespec="seconds"), **answered, "passages": list(shown),
                "text": shown.get(feedback.passage_id, ""), **feedback.model_dump(),
            }  # fmt: skip
            self._append(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            return record

    def _append(self, line: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # a writer was killed in the middle of its line
            os.write(descriptor, b"\n" + line if torn else line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def annotation_items(folder: Path) -> pd.DataFrame:
    """What an annotator is asked next: one row a query and passage (or a query and answer, ``passage_id`` ""), those disputed first.

    ``text`` is the passage's as it was shown; ``helpful`` and ``unhelpful`` count the votes; ``versions`` are of the last answer. A line
    that a kill cut short is left out.
    """
    import pandas as pd

    columns = ["query", "passage_id", "text", "answer", "helpful", "unhelpful", "comments", "versions"]
    items: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in _records(folder / FILE):
        passage = record["passage_id"] or ""
        answer = "" if passage else record["answer"]
        blank = (record["query"], passage, record.get("text", ""), answer, 0, 0, [], "")  # text: lines of an earlier version have none
        item = items.setdefault((record["query"], passage, answer), dict(zip(columns, blank, strict=True)))
        item[record["verdict"]] += 1
        item["comments"] += [record["comment"]] if record["comment"] else []
        item["versions"] = json.dumps(record["versions"], sort_keys=True)
    table = pd.DataFrame(list(items.values()), columns=columns)
    disputed = table[["helpful", "unhelpful"]].min(axis=1)
    order = table.assign(disputed=disputed).sort_values(["disputed", "unhelpful", "query", "passage_id"], ascending=[False, False, True, True])
    return order[columns].reset_index(drop=True)


def _records(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_bytes().split(b"\n") if path.exists() else []:  # not splitlines: a comment may hold other line ends
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
