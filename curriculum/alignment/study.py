"""The alignment study: what is read, what is kept, and who judges the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from curriculum.adaptation.model import load_base, load_tokenizer
from curriculum.adaptation.settings import AdapterSettings
from curriculum.alignment.experiment import MODELS, Experiment, Questions
from curriculum.alignment.model import prompt_text
from curriculum.alignment.pairs import leaks
from curriculum.alignment.parity import dpo_parity, grpo_parity
from curriculum.alignment.report import report
from curriculum.alignment.settings import AlignmentSettings
from curriculum.alignment.stages import Stages
from curriculum.cells import Cells
from curriculum.grounding.claims import statement
from curriculum.grounding.verifier import SupportVerifier
from curriculum.results import Identity, StudyResult
from curriculum.storage import digest_of

Support = Callable[[Sequence[tuple[str, str]]], np.ndarray]  # of (passage, claim)
_PARITY_PAIRS = 6


def alignment_study(
    pairs: pd.DataFrame, folder: Path, verifier: SupportVerifier, settings: AlignmentSettings,
    *, seed: int, checkpoints: Path, progress: Callable[[str], None], device: str = "cpu", precision: str = "float32",
    identities: Sequence[Identity] = (),
) -> StudyResult:  # fmt: skip
    """SFT, a reward model, GRPO with and without its KL penalty, and DPO on the preference ``pairs``; every model on held-out questions.

    A killed study goes on with the next step: trained adapters and measurements are kept in ``checkpoints``.
    """
    tokenizer = load_tokenizer(folder)
    questions = Questions.of(pairs, tokenizer, settings)
    facts = [settings.model_dump(mode="json"), seed, device, precision, digest_of(pairs.to_json()), [i.digest for i in identities]]
    cells = Cells(checkpoints, progress)
    experiment = Experiment(
        tokenizer, questions, settings, Stages(checkpoints, progress), cells, facts, seed=seed, device=device, progress=progress
    )
    plain = AdapterSettings(base=settings.base, quantisation="none")
    found = experiment.run(load_base(folder, plain, device=device, precision=precision))
    found["support"] = cells.get("support", facts, lambda: supported(questions, found["models"], verifier.support, settings))
    found["parity"] = cells.get("parity", facts, lambda: _parity(tokenizer, questions))
    return report(found, questions, leaks(pairs), pairs, settings, seed=seed, identities=list(identities))


def supported(questions: Questions, models: dict[str, dict], support: Support, settings: AlignmentSettings) -> dict[str, Any]:
    """The verifier's support of every model's answers, as statements of fact, and of the answers of the held-out pairs.

    An empty answer has no support.
    """
    firsts = [rows.iloc[0] for rows in questions.tables["test"]]

    def of(row: pd.Series, answers: Sequence[str]) -> list[float]:
        claims = [(row["passage"], statement(row["question"], answer)) for answer in answers if answer]
        values = iter(support(claims).tolist() if claims else [])
        return [next(values) if answer else 0.0 for answer in answers]

    said = [of(row, [models[name]["answers"][i] for name in MODELS]) for i, row in enumerate(firsts)]
    tables = questions.tables["test"][: settings.verifier_questions]
    ranked = [of(row, [row["chosen"], *rows["rejected"]]) for row, rows in zip(firsts, tables, strict=False)]
    return {"models": {name: [values[i] for values in said] for i, name in enumerate(MODELS)}, "ranked": ranked}


def _parity(tokenizer: Any, questions: Questions) -> dict[str, float]:
    tables = questions.tables["test"][:_PARITY_PAIRS]
    pairs = [
        {"prompt": prompt_text(r["passage"], r["question"]), "chosen": f" {r['chosen']}", "rejected": f" {r['rejected']}"}
        for r in (rows.iloc[0] for rows in tables)
    ]
    same_size = [(prompt, answers[:2]) for prompt, answers in questions.groups["test"][:_PARITY_PAIRS]]
    return dpo_parity(tokenizer, pairs) | grpo_parity(tokenizer, same_size)
