"""What the notes hold, whether anything leaks between their sides, and how far two readers of the labels agree."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from curriculum.corpora.notes import SPLITS
from curriculum.plots import draw
from curriculum.results import Metric, StudyResult

_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"\w+")


def study_notes(
    notes: pd.DataFrame, questions: pd.DataFrame, two_hop: pd.DataFrame, cases: pd.DataFrame, claims: pd.DataFrame,
    *, near_duplicate: float = 0.8, span_words: int = 12, seed: int = 0,
) -> StudyResult:  # fmt: skip
    """Counts by kind, words a note, leakage between the sides of the split, and Cohen's kappa of the claims' readings.

    ``leaked_questions`` counts phrasings whose set of words has a Jaccard similarity of ``near_duplicate`` or more with one of
    another side; ``shared_spans`` counts the notes that hold an answer in the same ``span_words`` words as a note of another side.
    """
    asked = _asked(questions, two_hop)
    near = near_duplicates(asked["text"].tolist(), asked["split"].tolist(), near_duplicate)
    spans = shared_spans(dict(zip(notes["doc_id"], notes["text"], strict=True)), questions, span_words)
    sides = dict(zip(questions["note_id"], questions["split"], strict=True))
    words = notes["text"].map(lambda text: len(_CODE.sub("", text).split()))
    counts = {
        "notes": len(notes), "words": int(words.sum()), "questions": len(questions), "phrasings": len(asked),
        "two_hop_questions": len(two_hop), "prompt_cases": len(cases), "labelled_claims": len(claims),
    }  # fmt: skip
    metrics = [Metric(name=name, value=float(value)) for name, value in counts.items()]
    metrics += [
        Metric(name="leaked_questions", value=float(len(near)), n=len(asked), higher_is_better=False),
        Metric(name="shared_spans", value=float(len(spans)), n=len(notes), higher_is_better=False),
        *kappa_metrics(claims, seed),
    ]
    per_note = _per_note(notes, words, questions, claims, sides)
    tables = {"per_note": per_note, "per_kind": _per_kind(questions, two_hop, cases, claims)}
    leaks = [*(f"{a!r} ~ {b!r}" for a, b in near), *(f"{a} and {b}: {run!r}" for a, b, run in spans)]
    if leaks:
        tables["leaks"] = pd.DataFrame({"leak": leaks})
    return StudyResult(
        study="notes_study", metrics=metrics, seeds=[seed], tables=tables, plots={"words": _plot(per_note)}, per_example=per_note,
        settings={"near_duplicate": near_duplicate, "span_words": span_words}, remarks=_remarks(claims),
    )  # fmt: skip


def _asked(questions: pd.DataFrame, two_hop: pd.DataFrame) -> pd.DataFrame:
    """Every phrasing of every question, with its side."""
    both = pd.concat([t[["question", "phrasings", "split"]] for t in (questions, two_hop) if len(t)], ignore_index=True)
    rows = [{"text": text, "split": row.split} for row in both.itertuples() for text in [row.question, *row.phrasings]]
    return pd.DataFrame(rows)


def near_duplicates(texts: Sequence[str], sides: Sequence[str], threshold: float) -> list[tuple[str, str]]:
    """Pairs of texts of different ``sides`` whose sets of words have a Jaccard similarity of at least ``threshold``."""
    from sklearn.feature_extraction.text import CountVectorizer

    held = CountVectorizer(binary=True, token_pattern=r"\w+").fit_transform(texts).astype(np.int32)
    sizes, side = np.asarray(held.sum(axis=1)).ravel(), np.asarray(sides)
    found = []
    for i in range(held.shape[0]):
        shared = np.asarray((held[i] @ held[i + 1 :].T).todense()).ravel() if i + 1 < held.shape[0] else np.zeros(0)
        union = sizes[i] + sizes[i + 1 :] - shared
        hits = np.flatnonzero((shared >= threshold * np.maximum(union, 1)) & (side[i + 1 :] != side[i]))
        found += [(texts[i], texts[i + 1 + j]) for j in hits]
    return found


def shared_spans(texts: dict[str, str], questions: pd.DataFrame, words: int) -> list[tuple[str, str, str]]:
    """(note, note of another side, run) where a run of ``words`` words around an answer in the first stands in the second too.

    A phrase that many notes share without an answer in it, such as a formula's shape, gives nothing away and does not count.
    """
    said = {note: _WORD.findall(text.casefold()) for note, text in texts.items()}
    holders: dict[str, set[str]] = defaultdict(set)
    for note, own in said.items():
        for start in range(len(own) - words + 1):
            holders[" ".join(own[start : start + words])].add(note)
    sides = dict(zip(questions["note_id"], questions["split"], strict=True))
    found: dict[tuple[str, str], str] = {}
    for question in questions[questions["note_id"].isin(said)].itertuples():
        for answer in question.answers[:1]:
            for run in _runs_around(said[question.note_id], _WORD.findall(answer.casefold()), words):
                for other in holders.get(run, ()):
                    if sides.get(other, question.split) != question.split:
                        found.setdefault((question.note_id, other), run)
    return [(note, other, run) for (note, other), run in sorted(found.items())]


def _runs_around(said: list[str], answer: list[str], words: int) -> list[str]:
    """The runs of ``words`` words that hold the first place of ``answer``, or lie in it where it is longer."""
    starts = (i for i in range(len(said) - len(answer) + 1) if said[i : i + len(answer)] == answer)
    place = next(starts, None)
    if place is None or not answer:
        return []
    first, last = sorted((place, place + len(answer) - words))
    return [" ".join(said[i : i + words]) for i in range(max(0, first), min(last, len(said) - words) + 1)]


def kappa_metrics(claims: pd.DataFrame, seed: int) -> list[Metric]:
    """Cohen's kappa and raw agreement of the first two readings, over the claims that have two; nothing where none has."""
    from sklearn.metrics import cohen_kappa_score

    pairs = np.array([list(r)[:2] for r in claims["readings"] if len(r) >= 2], dtype=bool).reshape(-1, 2)
    if not len(pairs):
        return []
    rng = np.random.default_rng(seed)
    drawn = [cohen_kappa_score(*pairs[rng.integers(0, len(pairs), len(pairs))].T) for _ in range(500)]
    low, high = map(float, np.nanpercentile(drawn, [2.5, 97.5]))
    agreement = float((pairs[:, 0] == pairs[:, 1]).mean())
    return [
        Metric(name="label_kappa", value=float(cohen_kappa_score(*pairs.T)), n=len(pairs), low=low, high=high),
        Metric(name="label_agreement", value=agreement, n=len(pairs)),
    ]


def _per_note(
    notes: pd.DataFrame, words: pd.Series, questions: pd.DataFrame, claims: pd.DataFrame, sides: dict[str, str]
) -> pd.DataFrame:
    asked, claimed = questions.groupby("note_id").size(), claims.groupby("note_id").size()
    table = pd.DataFrame({"example_id": notes["doc_id"], "part": notes["module"], "words": words})
    return table.assign(
        split=table["example_id"].map(sides).fillna(""),
        questions=table["example_id"].map(asked).fillna(0).astype(int),
        claims=table["example_id"].map(claimed).fillna(0).astype(int),
    )


def _per_kind(questions: pd.DataFrame, two_hop: pd.DataFrame, cases: pd.DataFrame, claims: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for name, table in (("questions", questions), ("two-hop questions", two_hop), ("prompt cases", cases), ("claims", claims)):
        for kind, group in table.groupby("kind", sort=True):
            by_side = group["split"].value_counts() if "split" in group else pd.Series(dtype=int)
            rows.append({"table": name, "kind": kind, "n": len(group)} | {side: int(by_side.get(side, 0)) for side in SPLITS})
    return pd.DataFrame(rows)


def _remarks(claims: pd.DataFrame) -> list[str]:
    apart = [row.claim_id for row in claims.itertuples() if len(set(map(bool, row.readings))) > 1]
    return [f"The readers differ on {len(apart)} claims: {', '.join(apart)}."] if apart else []


def _plot(per_note: pd.DataFrame) -> bytes:
    parts = per_note.groupby("part", sort=False)["words"]

    def paint(axes: Any) -> None:
        axes.boxplot([group.to_numpy() for _, group in parts], tick_labels=[name for name, _ in parts])
        axes.tick_params(axis="x", labelrotation=30)

    return draw(paint, title="Length of the notes by part", y="words of prose")
