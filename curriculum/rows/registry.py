"""Which studies are tables: the asset that makes a row, the rows it has under a profile, and the asset that compares them.

A new one is one entry here, a body that measures one row, and a body that compares them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from curriculum.errors import UserError
from curriculum.prompting.settings import Pattern
from curriculum.rows.settings import Decoding, Fused, usable
from curriculum.sources import dataset_folder
from curriculum.tuning.settings import METHODS


@dataclass(frozen=True)
class RowStudy:
    """``rows`` names the rows under a profile; ``dynamic`` says that a user's folders, not the profile alone, decide them."""

    table: str
    rows: Callable[[Any], Iterable[str]]
    dynamic: bool = False

    def keys(self, profile: Any) -> list[str]:
        """The rows under ``profile``, in the order of the table.

        Raises:
            UserError: a name that cannot be a row's.
        """
        try:
            return [usable(key) for key in dict.fromkeys(self.rows(profile))]
        except ValueError as error:
            raise UserError(f"{error}; rename it in the profile, or rename the folder") from error


def own_corpora(profile: Any) -> dict[str, str]:
    """The user's corpora, name -> source: those of ``rows.corpora``, and every subfolder of ``rows.corpora_folder``.

    Raises:
        SourceError: the folder does not exist, or a link leads out of it.
        UserError: a name stands for two corpora.
    """
    settings = profile.rows
    if not settings.corpora_folder:
        return dict(settings.corpora)
    folder = dataset_folder(settings.corpora_folder)
    inside = {p.name: f"path:{p}" for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")}
    if twice := sorted(inside.keys() & settings.corpora.keys()):
        raise UserError(f"the corpus '{twice[0]}' is named in rows.corpora and lies in rows.corpora_folder; rename one of them")
    return settings.corpora | inside


def tracks(profile: Any) -> list[str]:
    """The retrieval tracks: the project's own, the user's BEIR folders, mteb's tasks (a task without language subsets)."""
    retrieval = profile.retrieval
    folders = [Path(uri.removeprefix("path:")).name for uri in retrieval.collections]
    return ["notes", "two-hop", "known-item", *folders, *(task.partition("@")[0] for task in retrieval.mteb_tasks)]


ROW_STUDIES: dict[str, RowStudy] = {
    "fusion_row": RowStudy("fusion_table", lambda profile: get_args(Fused)),
    "retrieval_track_row": RowStudy("retrieval_track_table", tracks),
    "embedding_model_row": RowStudy("embedding_model_table", lambda profile: profile.rows.embedding_models),
    "prompt_pattern_row": RowStudy("prompt_pattern_table", lambda profile: get_args(Pattern)),
    "decoding_row": RowStudy("decoding_table", lambda profile: get_args(Decoding)),
    "peft_row": RowStudy("peft_table", lambda profile: METHODS),
    "own_corpus_row": RowStudy("own_corpus_table", own_corpora, dynamic=True),
}


def row_study(asset: str) -> RowStudy:
    """The study whose rows ``asset`` makes.

    Raises:
        UserError: it makes none.
    """
    if asset not in ROW_STUDIES:
        raise UserError(f"'{asset}' has no partitions; those with some are {', '.join(ROW_STUDIES)}")
    return ROW_STUDIES[asset]


def choose(known: list[str], asked: str) -> list[str]:
    """The partitions of a comma-separated list, in the table's order.

    Raises:
        UserError: one is unknown, or none is named.
    """
    wanted = [part.strip() for part in asked.split(",") if part.strip()]
    if not wanted:
        raise UserError("no partition is named: give --partitions a,b, or --all, --missing or --resume")
    if unknown := [key for key in wanted if key not in known]:
        raise UserError(f"no partition {', '.join(map(json.dumps, unknown))}; there are {', '.join(known) or 'none yet'}")
    return [key for key in known if key in wanted]
