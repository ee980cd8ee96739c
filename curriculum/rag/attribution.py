"""Where a wrong answer came from: one of four sources by rule, and two reruns that turn the label into evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from curriculum.cells import Cells
from curriculum.errors import DataError
from curriculum.evaluation.statistics import clopper_pearson
from curriculum.grounding.claims import statement
from curriculum.grounding.verifier import SupportVerifier
from curriculum.plots import draw
from curriculum.rag.answerers import Answerer
from curriculum.rag.faithfulness import faithfulness
from curriculum.rag.report import UNANSWERABLE, reference_ids
from curriculum.rag.settings import RagSettings
from curriculum.reading.metrics import f1, normalise
from curriculum.reranking.reranker import passage_texts
from curriculum.results import Metric, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OVER_CONFIDENCE, RETRIEVAL_MISS, IGNORED, ADDITION = SOURCES = (
    "over_confidence", "retrieval_miss", "context_ignored", "unsupported_addition",
)  # fmt: skip
RIGHT, ABSTAINED = "right", "abstained"
OVERLAP = 0.5  # word F1 from which an answer counts as the gold one, where it does not hold it word for word
_ADDED = " Its authors wrote 4711 letters to the mayor of Samarkand in 1389."
_SHOWN = ["question", "draft", "gold", "source", "with_gold", "without"]


def is_right(text: str, gold: Sequence[str]) -> bool:
    """Whether ``text`` holds a gold answer word for word, or overlaps one by half."""
    said = f" {normalise(text)} "
    return bool(text) and len(gold) > 0 and (f1(text, list(gold)) >= OVERLAP or any(f" {normalise(g)} " in said for g in gold if normalise(g)))


def attribute(kind: str, draft: str, gold: Sequence[str], *, shown: bool, grounded: bool) -> str:
    """The source of one draft, or that it is right or an abstention.

    The questions are asked in this order, so that the classes are disjoint: had the question no answer (over-confidence); was the
    passage with the answer not ``shown`` (retrieval miss); is the answer not the gold one (context ignored); is a part of it
    supported by no passage, ``grounded`` false (unsupported addition).
    """
    if not draft:
        return ABSTAINED
    if kind in UNANSWERABLE:
        return OVER_CONFIDENCE
    right = is_right(draft, gold)
    if right and grounded:
        return RIGHT
    if not shown:
        return RETRIEVAL_MISS
    return ADDITION if right else IGNORED


def attribution_study(
    answers: pd.DataFrame,
    passages: pd.DataFrame,
    verifier: SupportVerifier,
    answerer: Answerer,
    settings: RagSettings,
    *,
    cells: Cells,
    seed: int = 0,
) -> StudyResult:
    """Attribute every draft of ``answers``; rerun the wrong ones with the passage of the answer put first, and with none.

    - ``share__SOURCE``: of the wrong drafts, with the exact binomial interval;
    - ``gold_right__SOURCE``: of the drafts of that source, the share that the passage of the answer repairs;
    - ``memory__context_ignored``: the share that says the same without any passage;
    - ``recovered__SOURCE``: the share of errors planted in right answers that get their own label, which tests rule and verifier.

    Raises:
        DataError: there are no answers.
    """
    if answers.empty:
        raise DataError("rag_answers is empty; there is nothing to attribute")
    texts = passage_texts(passages)
    rows = answers.assign(reference=reference_ids(answers, passages)).reset_index(drop=True)
    rows["shown"] = [bool(set(map(str, c)) & set(r)) for c, r in zip(rows["contexts"], rows["reference"], strict=True)]
    rows["source"] = _labels(rows, texts, verifier)
    rows = rows.assign(**_reruns(rows, texts, answerer, settings, cells))
    planted = _planted(rows, texts, verifier)
    metrics = [*_shares(rows), *_repairs(rows), *_recovered(planted)]
    return StudyResult(
        study="attribution_study", metrics=metrics, settings=settings.model_dump(mode="json"), seeds=[seed], remarks=_remarks(rows, metrics),
        per_example=_per_example(rows),
        tables={
            "by_kind": pd.crosstab(rows["kind"], rows["source"]).reset_index(),
            "wrong": rows.assign(gold=rows["gold"].map("; ".join)).loc[rows["source"].isin(SOURCES), _SHOWN], "planted": planted,
        },
        plots={"sources": _plot(rows)},
    )  # fmt: skip


def _per_example(rows: pd.DataFrame) -> pd.DataFrame:
    wrong, given = rows["source"].isin(SOURCES), ~rows["abstained"].astype(bool)
    kept = rows[["kind", "source"]].assign(example_id=rows["question_id"], wrong=wrong.astype(float), given=given.astype(float))
    return kept.reset_index(drop=True)


def _labels(rows: pd.DataFrame, texts: dict[str, str], verifier: SupportVerifier) -> list[str]:
    contexts = [[texts[str(p)] for p in ids] for ids in rows["contexts"]]
    grounded = faithfulness(list(rows["question"]), list(rows["draft"]), contexts, verifier)
    return [
        attribute(row.kind, row.draft, row.gold, shown=row.shown, grounded=share == 1.0)
        for row, share in zip(rows.itertuples(), grounded, strict=True)
    ]


def _reruns(rows: pd.DataFrame, texts: dict[str, str], answerer: Answerer, settings: RagSettings, cells: Cells) -> dict[str, list[str]]:
    """What the answerer writes for each wrong draft with the passage of the answer first, and with no passage; "" elsewhere."""
    with_gold, without = [""] * len(rows), [""] * len(rows)
    for place, row in enumerate(rows.itertuples()):
        if row.source not in SOURCES or not row.reference:
            continue
        shown = [row.reference[0], *(str(p) for p in row.contexts if str(p) != row.reference[0])][: settings.contexts]

        def rerun(question: str = row.question, context: tuple[str, ...] = tuple(texts[p] for p in shown)) -> dict[str, Any]:
            drafts = answerer.answer([question, question], [list(context), []])
            return {"with_gold": drafts[0].text, "without": drafts[1].text}

        made = cells.get(f"rerun of {row.question_id}", [row.question, row.draft, shown, settings.model_dump(mode="json")], rerun)
        with_gold[place], without[place] = made["with_gold"], made["without"]
    return {"with_gold": with_gold, "without": without}


def _planted(rows: pd.DataFrame, texts: dict[str, str], verifier: SupportVerifier) -> pd.DataFrame:
    """Errors of known source made from questions whose answer has a passage: a row each, with the label that it got."""
    able = rows[[bool(r) and len(g) > 0 for r, g in zip(rows["reference"], rows["gold"], strict=True)]].reset_index(drop=True)
    if len(able) < 2:
        return pd.DataFrame(columns=["question_id", "planted", "source"])
    others = [next((g for g in [*able["gold"][i + 1 :], *able["gold"][:i]] if not is_right(g[0], gold)), None) for i, gold in enumerate(able["gold"])]
    parts = []
    for source in SOURCES:
        made = able.assign(planted=source, shown=source != RETRIEVAL_MISS, contexts=able["reference"], draft=[g[0] for g in able["gold"]])
        if source == OVER_CONFIDENCE:
            made["kind"] = UNANSWERABLE[0]
        if source == ADDITION:
            made["draft"] = [f"{statement(row.question, row.draft)}{_ADDED}" for row in made.itertuples()]
        if source in (RETRIEVAL_MISS, IGNORED):
            made = made.assign(draft=[o[0] if o is not None else "" for o in others])[[o is not None for o in others]]
        parts.append(made.assign(source=_labels(made, texts, verifier)))
    return pd.concat(parts, ignore_index=True)[["question_id", "planted", "source", "draft"]]


def _rate(name: str, right: Sequence[bool] | pd.Series, **more: Any) -> Metric:
    n, k = len(right), int(np.sum(np.asarray(right, dtype=bool)))
    if n == 0:
        return Metric(name=name, value=float("nan"), n=0, **more)
    low, high = clopper_pearson(k, n)
    return Metric(name=name, value=k / n, n=n, low=low, high=high, **more)


def _shares(rows: pd.DataFrame) -> list[Metric]:
    wrong = rows.loc[rows["source"].isin(SOURCES), "source"]
    made = rows.loc[rows["source"] != ABSTAINED, "source"]
    return [_rate("wrong_drafts", made != RIGHT, higher_is_better=False), *(_rate(f"share__{source}", wrong == source) for source in SOURCES)]


def _repairs(rows: pd.DataFrame) -> list[Metric]:
    found = []
    for source in (RETRIEVAL_MISS, IGNORED):
        mine = rows[(rows["source"] == source) & (rows["reference"].map(len) > 0)]
        found.append(_rate(f"gold_right__{source}", [is_right(r.with_gold, r.gold) for r in mine.itertuples()]))
        if source == IGNORED:
            found.append(_rate(f"memory__{source}", [bool(r.without) and normalise(r.without) == normalise(r.draft) for r in mine.itertuples()]))
    return found


def _recovered(planted: pd.DataFrame) -> list[Metric]:
    parts = {source: planted.loc[planted["planted"] == source, "source"] for source in SOURCES}
    return [_rate(f"recovered__{source}", found == source) for source, found in parts.items()]


def _plot(rows: pd.DataFrame) -> bytes:
    def paint(axes: Axes) -> None:
        counts = pd.crosstab(rows["source"], rows["kind"]).reindex([*SOURCES, RIGHT, ABSTAINED], fill_value=0)
        left = np.zeros(len(counts))
        for kind in counts.columns:
            axes.barh(counts.index, counts[kind], left=left, label=kind)
            left += counts[kind].to_numpy()
        axes.invert_yaxis()
        axes.legend()

    return draw(paint, title="What became of each question", x="questions", size=(6.4, 3.2))


def _remarks(rows: pd.DataFrame, metrics: Sequence[Metric]) -> list[str]:
    named = {m.name: m for m in metrics}
    wrong = int(rows["source"].isin(SOURCES).sum())
    remarks = [
        f"Of {len(rows)} questions {int((rows['source'] == ABSTAINED).sum())} got no draft, {int((rows['source'] == RIGHT).sum())} a right one and "
        f"{wrong} a wrong one: " + ", ".join(f"{int((rows['source'] == s).sum())} {s.replace('_', ' ')}" for s in SOURCES) + "."
    ]
    miss = named[f"gold_right__{RETRIEVAL_MISS}"]
    if miss.n:
        remarks.append(f"With the answer's passage put first, {miss.text()} of the retrieval misses are right: what perfect retrieval would buy.")
    if named[f"recovered__{ADDITION}"].value < 0.5:
        remarks.append("The verifier overlooks most additions that were planted: the share of unsupported additions is too low by an unknown amount.")
    return remarks
