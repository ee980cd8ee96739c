"""The sets that are searched beside the project's own passages: the user's BEIR folders, and mteb's tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from curriculum.corpora.readers import Beir, read_beir
from curriculum.errors import DataError
from curriculum.retrieval.passages import PROJECT
from curriculum.retrieval.settings import RetrievalSettings


def retrieval_sets(settings: RetrievalSettings, dataset: Callable[[str], Path]) -> list[Beir]:
    """Every set of the settings; ``dataset`` finds the local folder of a source. Each is a collection named after it.

    Raises:
        DataError: two sets, or a set and the project's own collection, have one name.
    """
    sets = [read_beir(dataset(uri)) for uri in settings.collections]
    if settings.mteb_tasks:
        from curriculum.retrieval.mteb_task import load_task  # mteb takes seconds to import, and its tasks need the hub

        sets += [one for source in settings.mteb_tasks for one in load_task(source)]
    twice = [name for name, times in Counter([PROJECT, "notes", "two-hop", "known-item", *(s.name for s in sets)]).items() if times > 1]
    if twice:
        raise DataError(f"collections need names of their own, and {', '.join(twice)} is taken; rename the folder")
    return sets
