"""The finished cells of a study that is a table: a killed run goes on with the next cell instead of the first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curriculum.disk import write_atomically
from curriculum.storage import digest_of


@dataclass(frozen=True)
class Cell:
    """A cell that any process can compute: ``function`` of ``arguments`` gives its result (JSON), seeds and all."""

    name: str
    settings: Any
    function: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]


class Cells:
    """Results that are JSON, each kept in a file of ``folder`` under a name and the settings it was computed from."""

    def __init__(self, folder: Path, progress: Callable[[str], None] = lambda line: None) -> None:
        self.folder, self.progress = folder, progress

    def get(self, name: str, settings: Any, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``compute`` returned when it ran under this ``name`` and these ``settings`` (JSON), or what it returns now.

        A file that does not parse counts as absent. The result passes through JSON either way, so both runs see the same.
        """
        kept = self._kept(name, settings)
        return self._keep(name, settings, compute()) if kept is None else kept

    def get_all(self, wanted: Sequence[Cell], workers: int, say: Callable[[int, dict[str, Any]], str]) -> list[dict[str, Any]]:
        """The result of every cell: those kept from before, and the others, ``workers`` at a time, each kept as it ends.

        ``say`` gives the line of progress of what ends, from its place in ``wanted`` and its result. Small models gain little from a second
        thread and more from a second process; so with more than one worker each is a process of one thread, and a result is the same as
        that of one thread here. What an error or a kill finds unfinished is computed anew.
        """
        found = {place: kept for place, cell in enumerate(wanted) if (kept := self._kept(cell.name, cell.settings)) is not None}
        missing = [(place, cell) for place, cell in enumerate(wanted) if place not in found]
        for place, value in _computed(missing, min(workers, len(missing))):
            found[place] = self._keep(wanted[place].name, wanted[place].settings, value)
            self.progress(f"{len(found)}/{len(wanted)} {wanted[place].name}: {say(place, found[place])}")
        return [found[place] for place in range(len(wanted))]

    def _path(self, name: str, settings: Any) -> Path:
        return self.folder / f"{digest_of([name, settings])[:20]}.json"

    def _kept(self, name: str, settings: Any) -> dict[str, Any] | None:
        path = self._path(name, settings)
        if not path.exists():
            return None
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))["value"]
        except (ValueError, KeyError):
            return None
        self.progress(f"{name}: kept from before")
        return kept

    def _keep(self, name: str, settings: Any, value: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps({"name": name, "value": value})
        write_atomically(self._path(name, settings), text.encode())
        return json.loads(text)["value"]


def side_by_side(gib: float = 0.8, device: str = "cpu") -> int:
    """How many cells of ``gib`` GiB to compute at once: one a thread that torch may use, within half of the free memory; on a GPU one.

    0.8 holds torch and a model of some million parameters.
    """
    import psutil
    import torch

    fitting = int(psutil.virtual_memory().available / 2**31 / gib)
    return max(1, min(torch.get_num_threads(), fitting)) if device == "cpu" else 1


def _computed(cells: Sequence[tuple[int, Cell]], workers: int) -> Iterator[tuple[int, dict[str, Any]]]:
    if workers < 2:
        for place, cell in cells:
            yield place, cell.function(*cell.arguments)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    try:  # loky's workers end with the process that started them, however that ends
        tasks = (delayed(_alone)(place, cell) for place, cell in cells)
        yield from Parallel(workers, return_as="generator_unordered", pre_dispatch=workers, max_nbytes=None)(tasks)
    finally:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _alone(place: int, cell: Cell) -> tuple[int, dict[str, Any]]:
    import torch

    torch.set_num_threads(1)
    return place, cell.function(*cell.arguments)
