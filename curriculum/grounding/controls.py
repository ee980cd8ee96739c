"""Control claims: labelled by construction, so that overlap with the passage is no cue to the label in either direction.

People who write claims word the supported ones afresh and alter the unsupported ones in a word or two. Overlap is then a cue,
turned round: on such a set a scorer that hates quotations looks good. The two controls are what is missing.
"""

from __future__ import annotations

import pandas as pd

from curriculum.grounding.sentences import sentences

KINDS = ("control-quotation", "control-mismatch")


def with_controls(claims: pd.DataFrame) -> pd.DataFrame:
    """``claims`` (one split) and its controls: a quotation for each unsupported claim, a mismatch for each supported one.

    A quotation is a whole sentence of the passage: supported. A mismatch is a supported claim beside the passage of another
    note: unsupported. Both are made in the order of the rows, without chance.
    """
    supported = claims[claims["supported"].astype(bool)]
    unsupported = claims[~claims["supported"].astype(bool)]
    rows = []
    for place, row in enumerate(unsupported.itertuples()):
        whole = [part for part in sentences(str(row.passage)) if len(part.split()) >= 5] or [str(row.passage)]
        rows.append(_row(row, "quotation", str(row.passage), whole[place % len(whole)], True))
    others = {note: claims.loc[claims["note_id"] != note, "passage"].tolist() for note in claims["note_id"].unique()}
    for place, row in enumerate(supported.itertuples()):
        if others[row.note_id]:
            rows.append(_row(row, "mismatch", str(others[row.note_id][(7 * place) % len(others[row.note_id])]), str(row.claim), False))
    return pd.concat([claims, pd.DataFrame(rows, columns=claims.columns)], ignore_index=True)


def _row(row: object, kind: str, passage: str, claim: str, supported: bool) -> dict[str, object]:
    same = row._asdict()  # type: ignore[attr-defined]
    own = {"claim_id": f"{same['claim_id']}/{kind}", "passage": passage, "claim": claim, "supported": supported}
    return {**same, **own, "kind": f"control-{kind}", "why": "by construction"}
