"""ragas' metrics without a language model: faithfulness judged by our support verifier, context precision and recall by id."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("RAGAS_DO_NOT_TRACK", "true")  # before ragas is imported: it reads this once

from ragas.dataset_schema import SingleTurnSample
from ragas.metrics import Faithfulness, IDBasedContextPrecision, IDBasedContextRecall
from ragas.metrics._faithfulness import (
    NLIStatementOutput,
    StatementFaithfulnessAnswer,
    StatementGeneratorOutput,
)
from ragas.metrics.base import SingleTurnMetric
from ragas.run_config import RunConfig

from curriculum.grounding.claims import claims_of
from curriculum.grounding.verifier import SupportVerifier


@dataclass
class VerifierFaithfulness(Faithfulness):
    """ragas' faithfulness (Es et al., 2023, https://arxiv.org/abs/2309.15217) with the verifier in the place of the model.

    A statement is a claim of the answer; its verdict is 1 when one of the contexts supports it at the verifier's threshold.
    The score is the share of statements with verdict 1; NaN for an answer without statements.
    """

    name: str = "verifier_faithfulness"
    verifier: SupportVerifier | None = None

    def init(self, run_config: RunConfig) -> None:
        """Nothing to set up: no language model is asked."""

    async def _create_statements(self, row: dict[str, Any], callbacks: Any) -> StatementGeneratorOutput:
        return StatementGeneratorOutput(statements=claims_of(row["user_input"], row["response"]))

    async def _create_verdicts(self, row: dict[str, Any], statements: list[str], callbacks: Any) -> NLIStatementOutput:
        if self.verifier is None:
            raise ValueError("VerifierFaithfulness needs a verifier")
        contexts = row["retrieved_contexts"]
        support = self.verifier.support([(context, s) for s in statements for context in contexts])
        best = support.reshape(len(statements), len(contexts)).max(axis=1, initial=0.0)
        verdicts = [
            StatementFaithfulnessAnswer(statement=s, reason=f"support {p:.3f}", verdict=int(p >= self.verifier.threshold))
            for s, p in zip(statements, best, strict=True)
        ]
        return NLIStatementOutput(statements=verdicts)

    async def _ascore(self, row: dict[str, Any], callbacks: Any) -> float:
        statements = (await self._create_statements(row, callbacks)).statements
        if not statements:
            return float("nan")
        return float(self._compute_score(await self._create_verdicts(row, statements, callbacks)))


def faithfulness(
    questions: Sequence[str], answers: Sequence[str], contexts: Sequence[Sequence[str]], verifier: SupportVerifier
) -> list[float]:
    """Faithfulness in [0, 1] of each answer to its contexts (texts); NaN for an empty answer, 0 for one without contexts."""
    samples = [
        SingleTurnSample(user_input=q, response=a, retrieved_contexts=list(c))
        for q, a, c in zip(questions, answers, contexts, strict=True)
    ]
    return _score(VerifierFaithfulness(verifier=verifier), samples)


def context_precision_recall(retrieved: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]) -> tuple[list[float], list[float]]:
    """Precision and recall of retrieved passage ids against reference ids; both NaN without reference ids, precision without retrieved ones."""
    samples = [
        SingleTurnSample(retrieved_context_ids=list(r), reference_context_ids=list(g)) for r, g in zip(retrieved, reference, strict=True) if g
    ]
    precision, recall = iter(_score(IDBasedContextPrecision(), samples)), iter(_score(IDBasedContextRecall(), samples))
    return [next(precision) if g else math.nan for g in reference], [next(recall) if g else math.nan for g in reference]


def _score(metric: SingleTurnMetric, samples: list[SingleTurnSample]) -> list[float]:
    async def run() -> list[float]:
        return [float(await metric.single_turn_ascore(sample)) for sample in samples]

    return asyncio.run(run())
