"""An annotation round over what people said of answers: a sheet for each annotator, and what the sheets that come back agree on.

A round is a CSV file with a row an item (:func:`curriculum.serving.feedback.annotation_items`) and an empty column ``label``. Each annotator
fills a copy with ``helpful`` or ``unhelpful``, and leaves what cannot be told empty. Cohen's kappa says how far the copies agree beyond
chance (Cohen, 1960); the labels that all of an item's annotators gave alike are kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curriculum.disk import write_atomically
from curriculum.errors import DataError, UserError
from curriculum.storage import digest_of

if TYPE_CHECKING:
    import pandas as pd

LABELS, FILE = ("helpful", "unhelpful"), "labels.jsonl"
_SHOWN = ["query", "passage_id", "text", "answer", "comments"]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Agreement:
    """``kept``: item_id, query, passage_id, answer and the label that all gave alike; ``disputed`` items have several labels.

    ``kappa`` is of the first two sheets, over the ``both`` items that each of them labels; None where it has none.
    """

    kept: pd.DataFrame
    kappa: float | None
    both: int
    disputed: int


def with_ids(items: pd.DataFrame) -> pd.DataFrame:
    """``items`` with ``item_id``: of the query and what was judged, so that it stays the same from round to round."""
    return items.assign(item_id=[digest_of([i.query, i.passage_id, i.answer]) for i in items.itertuples()])


def write_round(items: pd.DataFrame, path: Path) -> int:
    """Write the sheet of a round; returns how many items it asks about.

    A cell that a spreadsheet would take for a formula gets an apostrophe before it: people wrote these texts.

    Raises:
        UserError: there is nothing to ask, or the file is there already, perhaps with labels in it.
    """
    if items.empty:
        raise UserError("nobody has given feedback yet: there is nothing to annotate")
    if path.exists():
        raise UserError(f"{path} is there already, and may hold labels; name another file, or move it away")
    sheet = with_ids(items).assign(comments=[" | ".join(c) for c in items["comments"]], label="")
    for column in _SHOWN:
        sheet[column] = [f"'{text}" if text.startswith(_FORMULA) else text for text in sheet[column]]
    columns = ["item_id", *_SHOWN, "helpful", "unhelpful", "label"]
    write_atomically(path, sheet[columns].to_csv(index=False).encode())
    return len(sheet)


def read_sheet(path: Path) -> pd.Series:
    """The labels of a filled sheet by item_id; items without one are left out.

    Raises:
        DataError: no such file, a column is gone, an item stands twice, or a label is another word.
    """
    import pandas as pd

    try:
        sheet = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no sheet of a round: {error}") from error
    if gone := {"item_id", "label"} - set(sheet.columns):
        raise DataError(f"{path} lacks the column {', '.join(sorted(gone))}; fill a copy of what `curriculum annotate FILE` wrote")
    labels = sheet.set_index("item_id")["label"].str.strip().str.lower()
    if labels.index.has_duplicates:
        raise DataError(f"{path}: item {labels.index[labels.index.duplicated()][0]} stands twice; leave one of the rows")
    if len(wrong := labels[(labels != "") & ~labels.isin(LABELS)]):
        raise DataError(f"{path}: the label of item {wrong.index[0]} is '{wrong.iloc[0]}'; write {' or '.join(LABELS)}, or leave it empty")
    return labels[labels != ""]


def agree(items: pd.DataFrame, sheets: Sequence[pd.Series]) -> Agreement:
    """What the sheets agree on. Kappa is over the items that the first two both labelled.

    Raises:
        DataError: a sheet labels an item that no feedback is about.
    """
    import pandas as pd

    known = with_ids(items).set_index("item_id")
    for sheet in sheets:
        if len(unknown := sheet.index.difference(known.index)):
            raise DataError(f"item {unknown[0]} of a sheet is about no feedback here; was it written under another profile?")
    labels = pd.concat(sheets, axis=1, keys=range(len(sheets)))
    alike = labels.nunique(axis=1) == 1
    kept = known.loc[labels.index[alike], ["query", "passage_id", "answer"]].assign(label=labels[alike].bfill(axis=1).iloc[:, 0])
    both = labels.iloc[:, :2].dropna() if len(sheets) > 1 else labels.iloc[:0]
    return Agreement(kept.reset_index(names="item_id"), _kappa(both), len(both), int((~alike).sum()))


def _kappa(both: pd.DataFrame) -> float | None:
    """None without an item, or where both gave a single label throughout: chance alone would agree as well."""
    from sklearn.metrics import cohen_kappa_score

    if both.empty or both.stack().nunique() < 2:
        return None
    return float(cohen_kappa_score(both.iloc[:, 0], both.iloc[:, 1]))


def write_labels(kept: pd.DataFrame, folder: Path) -> Path:
    """``folder/labels.jsonl``: the labels kept so far, those of an item that is labelled anew replaced."""
    path = folder / FILE
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    known = {record["item_id"]: record for record in map(json.loads, filter(None, lines))}
    known |= {record["item_id"]: record for record in kept.to_dict("records")}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in known.values()).encode())
    return path
