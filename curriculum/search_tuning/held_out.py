"""The test questions, sealed: they are given out once, for settings that are named first, and never again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from curriculum.disk import write_atomically
from curriculum.search_tuning.settings import SearchSetting


class SplitSpentError(RuntimeError):
    """The test questions were read before: what is chosen by a second look at them they can no longer judge."""


class HeldOut:
    """Holds the test questions (rows with ``query_id`` and ``group``) until they are read, then lets go of them.

    ``record`` is a file that names the settings they were read for. A killed run that comes to the same settings may go on with its
    reading; one that comes to others may not.
    """

    def __init__(self, questions: pd.DataFrame, record: Path) -> None:
        self._questions: pd.DataFrame | None = questions
        self._names = frozenset(questions["query_id"]) | frozenset(questions["group"])
        self._record = record

    def refuse(self, questions: pd.DataFrame) -> None:
        """Assert that none of ``questions`` is a test question, nor another phrasing of one."""
        leaked = questions.loc[questions["query_id"].isin(self._names) | questions["group"].isin(self._names), "query_id"].tolist()
        assert not leaked, f"{len(leaked)} test questions among those that settings are tried on, the first is {leaked[0]}"

    def read(self, settings: Sequence[SearchSetting]) -> pd.DataFrame:
        """The test questions, for these ``settings`` alone.

        Raises:
            SplitSpentError: they were read before; by another process, if it was for other settings.
        """
        if self._questions is None:
            raise SplitSpentError("the test questions were read already, and are read once")
        wanted = [setting.model_dump(mode="json") for setting in settings]
        before = self.read_for()
        if before and before != wanted:
            raise SplitSpentError(f"the test questions were read for other settings before ({self._record}): they cannot judge these")
        write_atomically(self._record, json.dumps(wanted).encode())  # before they are seen: a kill cannot hide the reading
        given, self._questions = self._questions, None
        return given

    def read_for(self) -> list[dict[str, object]]:
        """The settings that the test questions were read for; none before they are read."""
        return json.loads(self._record.read_text(encoding="utf-8")) if self._record.exists() else []
