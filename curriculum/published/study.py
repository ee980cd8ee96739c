"""The model families side by side: what their makers state, and, where weights are open, what their shapes amount to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from curriculum.plots import draw
from curriculum.published.facts import NAMES, Model
from curriculum.results import Identity, Metric, StudyResult
from curriculum.transformer.shapes import PUBLISHED, active_parameters, forward_flops, kv_cache_bytes, total_parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONTEXT = 2048  # tokens a new token is compared with
COUNTS = ("parameters", "active_parameters", "layers", "context_tokens", "training_tokens")
COMPUTED = ("computed_parameters", "computed_active", "cache_bytes_a_token", f"flops_a_token_at_{CONTEXT}")
REMARKS = [
    "Published columns are what makers state, each with its source in the table of facts; an empty cell is not stated there. Computed "
    "columns are arithmetic over published shapes, for models whose weights are open: nobody can hold the others to it here.",
    "Benchmarks are the makers' own, with their prompts, shots and budgets of thought: not one scale, and no ranking.",
    "The cache is in 16 bits, before a window fills; FLOPs are forward, of a token compared with the whole context, and beyond a "
    "model's learned positions (BERT's 512, GPT-2's 1,024) hypothetical. GPT-3's published shape is counted in shape_arithmetic.",
]


def family_study(models: list[Model], identity: Identity) -> StudyResult:
    """The table of families, the table of facts with sources, and the share of facts that have one."""
    table = pd.DataFrame([_row(model) for model in models]).astype(dict.fromkeys([*COUNTS, *COMPUTED], "Int64"))
    facts = pd.DataFrame([
        {"model": model.model, "fact": name, "value": str(fact.value), "source": fact.source, "note": fact.note, "sourced": fact.sourced}
        for model in models for name, fact in model.stated()
    ])  # fmt: skip
    closed, opened, both = table[~table["open_weights"]], table[table["open_weights"]], table.dropna(subset=["parameters", "computed_parameters"])
    apart = (both["computed_parameters"] / both["parameters"] - 1).abs()
    unstated = sum(model.value(name) is None for model in models if not model.open_weights for name in NAMES)
    values = {
        "share_sourced": (facts["sourced"].mean(), len(facts), True),
        "closed_with_computed": (closed[list(COMPUTED)].notna().any(axis=1).sum(), len(closed), False),
        "open_with_computed": (opened[list(COMPUTED)].notna().all(axis=1).mean(), len(opened), True),
        "published_max_difference": (apart.max(), len(both), False),
        "not_stated_by_closed": (unstated, len(closed) * len(NAMES), False),
    }
    return StudyResult(
        study="model_families", remarks=REMARKS, settings={"context": CONTEXT},
        metrics=[Metric(name=name, value=float(value), n=n, higher_is_better=up) for name, (value, n, up) in values.items()],
        identities=[identity], tables={"families": table, "facts": facts}, plots={"context": _plot(table)},
    )


def _row(model: Model) -> dict[str, Any]:
    """One family: facts, benchmarks as text, and the computed columns where a shape is named."""
    shape = next((published.shape for published in PUBLISHED if published.name == model.shape), None)
    if model.shape is not None and shape is None:
        raise ValueError(f"{model.model} names the shape '{model.shape}', which curriculum/transformer/shapes.py does not hold")
    computed: list[int | None] = [None] * len(COMPUTED)
    if shape is not None:
        flops = sum(forward_flops(shape, CONTEXT).values())
        computed = [total_parameters(shape), active_parameters(shape), kv_cache_bytes(shape, 1), flops]
    stated = {name: model.value(name) for name in NAMES}
    texts = {name: "not stated" for name in ("licence", "date") if stated[name] is None}
    scores = "; ".join(f"{b.name} {b.value}" for b in model.benchmarks) or "none quoted"
    return {"model": model.model, "topic": model.topic} | stated | texts | dict(zip(COMPUTED, computed, strict=True)) | {"benchmarks": scores}


def _plot(table: pd.DataFrame) -> bytes:
    """Context against date of all, closed weights hollow: what can be drawn of a closed model."""
    rows = table[table["context_tokens"].notna() & (table["date"] != "not stated")].sort_values("date")
    years = [int(date[:4]) + (int(date[5:7]) - 1) / 12 for date in rows["date"]]

    def paint(axes: Axes) -> None:
        for year, row in zip(years, rows.itertuples(), strict=True):
            axes.plot(year, row.context_tokens, "o", color="C0", fillstyle="full" if row.open_weights else "none")
            axes.annotate(row.model, (year, row.context_tokens), xytext=(0, 6), textcoords="offset points", fontsize=7, ha="center")
        axes.set_yscale("log", base=2)
        axes.margins(0.15)

    return draw(paint, title="Context by date (hollow: closed weights)", x="release, or report", y="tokens", size=(6.0, 3.6))
