"""The finished cells of a study that is a table: a killed run goes on with the next cell instead of the first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from curriculum.disk import write_atomically
from curriculum.storage import digest_of


class Cells:
    """Results that are JSON, each kept in a file of ``folder`` under a name and the settings it was computed from."""

    def __init__(self, folder: Path, progress: Callable[[str], None] = lambda line: None) -> None:
        self.folder, self.progress = folder, progress

    def get(self, name: str, settings: Any, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``compute`` returned when it ran under this ``name`` and these ``settings`` (JSON), or what it returns now.

        A file that does not parse counts as absent. The result passes through JSON either way, so both runs see the same.
        """
        path = self.folder / f"{digest_of([name, settings])[:20]}.json"
        if path.exists():
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))["value"]
            except (ValueError, KeyError):
                pass
            else:
                self.progress(f"{name}: kept from before")
                return kept
        text = json.dumps({"name": name, "value": compute()})
        write_atomically(path, text.encode())
        return json.loads(text)["value"]
