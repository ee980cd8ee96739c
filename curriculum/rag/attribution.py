"""Where a wrong answer came from: one of four sources by rule, and two reruns that turn the label into evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from curriculum.cells import Cells
from curriculum.errors import DataError
from curriculum.evaluation.statistics import clopper_pearson
from curriculum.grounding.verifier import SupportVerifier
from curriculum.plots import draw
from curriculum.rag.answerers import Answerer
from curriculum.rag.faithfulness import faithfulness
from curriculum.rag.planting import plant
from curriculum.rag.report import reference_ids
from curriculum.rag.settings import RagSettings
from curriculum.rag.sources import ABSTAINED, ADDITION, IGNORED, RETRIEVAL_MISS, RIGHT, SOURCES, attribute, is_right
from curriculum.reading.metrics import normalise
from curriculum.reranking.reranker import passage_texts
from curriculum.results import Metric, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = ["question", "draft", "gold", "source", "with_gold", "without"]


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
    - ``recovered__SOURCE``: the share of errors planted by :func:`curriculum.rag.planting.plant` that get their own label, and
      ``recovered__right`` of right answers left as they are: what they say of the rule and of the verifier in it.

    Raises:
        DataError: there are no answers.
    """
    if answers.empty:
        raise DataError("rag_answers is empty; there is nothing to attribute")
    passages = passages[passages["collection"] == settings.collection]  # another may name its documents alike
    rows = _attributed(answers.reset_index(drop=True), passages, verifier)
    rows = rows.assign(**_reruns(rows, passage_texts(passages), answerer, settings, cells))
    planted = _attributed(plant(rows, passages), passages, verifier)
    metrics = [*_shares(rows), *_repairs(rows), *_recovered(planted)]
    return StudyResult(
        study="attribution_study", metrics=metrics, settings=settings.model_dump(mode="json"), seeds=[seed], remarks=_remarks(rows, metrics),
        per_example=_per_example(rows),
        tables={
            "by_kind": pd.crosstab(rows["kind"], rows["source"]).reset_index(),
            "wrong": rows.assign(gold=rows["gold"].map("; ".join)).loc[rows["source"].isin(SOURCES), _SHOWN],
            "planted": planted[["question_id", "planted", "source", "draft"]],
        },
        plots={"sources": _plot(rows)},
    )  # fmt: skip


def _per_example(rows: pd.DataFrame) -> pd.DataFrame:
    wrong, given = rows["source"].isin(SOURCES), ~rows["abstained"].astype(bool)
    kept = rows[["kind", "source"]].assign(example_id=rows["question_id"], wrong=wrong.astype(float), given=given.astype(float))
    return kept.reset_index(drop=True)


def _attributed(rows: pd.DataFrame, passages: pd.DataFrame, verifier: SupportVerifier) -> pd.DataFrame:
    """``rows`` with the ``reference`` passages of their gold answers, whether one was ``shown``, and the ``source`` of the draft."""
    texts, reference = passage_texts(passages), reference_ids(rows, passages)
    contexts = [[str(p) for p in ids] for ids in rows["contexts"]]
    shown = [bool(set(c) & set(r)) for c, r in zip(contexts, reference, strict=True)]
    grounded = faithfulness(list(rows["question"]), list(rows["draft"]), [[texts[p] for p in ids] for ids in contexts], verifier)
    sources = [
        attribute(row.kind, row.draft, row.gold, shown=seen, grounded=share == 1.0)
        for row, seen, share in zip(rows.itertuples(), shown, grounded, strict=True)
    ]
    return rows.assign(reference=reference, shown=shown, source=sources)


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
    parts = {source: planted.loc[planted["planted"] == source, "source"] for source in (*SOURCES, RIGHT)}
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
    if named[f"recovered__{RIGHT}"].value < 0.5:
        remarks.append("The verifier supports few right answers with their own passage shown: right drafts are counted as errors.")
    return remarks
