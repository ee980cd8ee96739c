"""Errors of known source, made of questions and passages that are there: whoever attributes errors must give each its own label back."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from curriculum.grounding.claims import statement
from curriculum.grounding.sentences import sentences
from curriculum.rag.report import UNANSWERABLE
from curriculum.rag.sources import ADDITION, IGNORED, OVER_CONFIDENCE, RETRIEVAL_MISS, RIGHT, is_right

_WORDS = 5  # of a sentence that is added, at least: shorter ones are headings


def plant(rows: pd.DataFrame, passages: pd.DataFrame) -> pd.DataFrame:
    """Drafts of known source: ``rows`` again with another ``draft`` and other ``contexts``, and the source in ``planted``.

    ``rows`` have the ``reference`` passages of their gold answers. Of each question with one, and of a stranger, a question of
    another note whose answer is not right for it:

    - right: the gold answer, its passage shown (a verifier that supports nothing fails here);
    - retrieval miss: the stranger's answer, the stranger's passage shown;
    - context ignored: the stranger's answer, the question's own passage shown;
    - unsupported addition: the gold answer and a sentence of the stranger's passage, the question's own passage shown.

    Over-confidence is an answer to a question that has none, over the passages it was shown.
    """
    able = rows[[bool(r) and len(g) > 0 for r, g in zip(rows["reference"], rows["gold"], strict=True)]].reset_index(drop=True)
    texts = dict(zip(passages["passage_id"].astype(str), passages["text"].astype(str), strict=True))
    made = []
    for row in able.to_dict("records"):
        own, gold = row["reference"][:1], str(row["gold"][0])
        made.append({**row, "planted": RIGHT, "draft": gold, "contexts": own})
        stranger = _stranger(row, able)
        if stranger is None:
            continue
        answer, far = str(stranger["gold"][0]), stranger["reference"][:1]
        made.append({**row, "planted": RETRIEVAL_MISS, "draft": answer, "contexts": far})
        made.append({**row, "planted": IGNORED, "draft": answer, "contexts": own})
        added = next((part for part in sentences(texts[far[0]]) if len(part.split()) >= _WORDS), None)
        if added is not None:
            made.append({**row, "planted": ADDITION, "draft": f"{statement(row['question'], gold)} {added}", "contexts": own})
    unanswerable = rows[rows["kind"].isin(UNANSWERABLE)].to_dict("records")
    answers: Sequence[str] = [str(gold[0]) for gold in able["gold"]]
    made += [
        {**row, "planted": OVER_CONFIDENCE, "draft": answers[i % len(answers)]} for i, row in enumerate(unanswerable) if answers
    ]
    return pd.DataFrame(made, columns=[*rows.columns, "planted"])


def _stranger(row: dict[str, object], able: pd.DataFrame) -> dict[str, object] | None:
    """The next question of another note whose answer is not right for ``row``."""
    start = able.index[able["question_id"] == row["question_id"]][0]
    order = [*able.index[start + 1 :], *able.index[:start]]
    candidates = (able.loc[i].to_dict() for i in order if able.at[i, "note_id"] != row["note_id"])
    return next((c for c in candidates if not is_right(str(c["gold"][0]), row["gold"])), None)
