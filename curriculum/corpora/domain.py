"""The text an adapter is tuned on: prose of the Python documentation, or a user's own folder, split by document."""

from __future__ import annotations

import pandas as pd

from curriculum.corpora.deduplicate import clusters
from curriculum.corpora.documents import split_of
from curriculum.corpora.settings import CorporaSettings
from curriculum.errors import DataError


def build_domain_corpus(documents: pd.DataFrame, settings: CorporaSettings) -> pd.DataFrame:
    """``documents`` with a ``split`` column (train, test), each cut to its budget in characters; near-duplicates on one side.

    Raises:
        DataError: one side would be empty.
    """
    prose = documents[documents["source"].isin(["stdlib", "language-reference"])]
    chosen = (prose if len(prose) else documents).reset_index(drop=True)
    first = clusters(list(chosen["text"]), settings.near_duplicate_jaccard)
    keys = [chosen["digest"].iloc[i] for i in first]
    chosen = chosen.assign(split=[split_of(key, {"train": 0.8, "test": 0.2}) for key in keys]).sort_values("digest")
    budgets = {"train": settings.domain_train_characters, "test": settings.domain_test_characters}
    kept = []
    for split, budget in budgets.items():
        side = chosen[chosen["split"] == split]
        before = side["text"].str.len().cumsum().shift(fill_value=0)
        kept.append(side[before < budget])
        if kept[-1].empty:
            raise DataError(f"the domain corpus has no {split} documents; give corpora.domain_source more files")
    return pd.concat(kept, ignore_index=True)
