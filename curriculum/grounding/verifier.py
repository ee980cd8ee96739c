"""The support verifier: the probability that a passage supports a claim, and the threshold from which it counts as support."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from curriculum.crossencoder.model import CrossEncoder, Pair, sigmoid
from curriculum.grounding.numbers import missing_numbers
from curriculum.grounding.scope import widened
from curriculum.grounding.sentences import windows

_FILE = "verifier.json"
CHECKS = {"numbers": missing_numbers, "scope": widened}  # by rule; each counts what is wrong with a claim


@dataclass(frozen=True)
class Calibration:
    """Support = sigmoid(slope * logit + numbers * [a number of the claim is missing] + scope * [it is wider] + intercept).

    A claim counts as supported from ``threshold``.
    """

    slope: float = 1.0
    numbers: float = -2.0
    scope: float = -1.0
    intercept: float = 0.0
    threshold: float = 0.5

    def support(self, logits: np.ndarray, failed: np.ndarray) -> np.ndarray:
        """Support [n] of logits [n] and of the checks that failed [n, 2], columns as in ``CHECKS``."""
        return sigmoid(self.slope * logits + failed @ np.array([self.numbers, self.scope]) + self.intercept)


class SupportVerifier:
    """A cross-encoder over (passage window, claim), the checks by rule, and a calibration fitted on labelled claims."""

    def __init__(self, encoder: CrossEncoder, *, window_words: int, calibration: Calibration | None = None) -> None:
        self.encoder = encoder
        self.window_words = window_words
        self.calibration = calibration or Calibration()

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> SupportVerifier:
        """Read what :meth:`save` wrote. Raises SourceError where there is no verifier."""
        encoder = CrossEncoder.load(directory, device)
        described = json.loads((directory / _FILE).read_text(encoding="utf-8"))
        return cls(encoder, window_words=described["window_words"], calibration=Calibration(**described["calibration"]))

    def save(self, directory: Path) -> None:
        """Write the model, the window and the calibration into ``directory``."""
        self.encoder.save(directory)
        described = {"window_words": self.window_words, "calibration": asdict(self.calibration)}
        (directory / _FILE).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")

    @property
    def threshold(self) -> float:
        """The support from which a claim counts as supported."""
        return self.calibration.threshold

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Cross-encoder logits [n] of (passage, claim): the best window of the passage counts (Laban et al., 2022, SummaC)."""
        spread: list[Pair] = []
        owner: list[int] = []
        for i, (passage, claim) in enumerate(pairs):
            for window in windows(passage, self.window_words):
                spread.append((window, claim))
                owner.append(i)
        best = np.full(len(pairs), -np.inf)
        np.maximum.at(best, owner, self.encoder.score(spread)) if spread else None
        return best

    def support(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Probability [n] that the passage supports the claim, for each (passage, claim)."""
        return self.calibration.support(self.logits(pairs), failed_checks(pairs))


def failed_checks(pairs: Sequence[Pair]) -> np.ndarray:
    """1.0 where the claim fails a check of ``CHECKS`` against the whole passage, else 0.0; [n, 2]."""
    return np.array([[float(check(passage, claim) > 0) for check in CHECKS.values()] for passage, claim in pairs]).reshape(-1, 2)


def fit_calibration(logits: np.ndarray, failed: np.ndarray, supported: np.ndarray) -> Calibration:
    """Logistic regression of the labels [n] on logits [n] and failed checks [n, 2], and the threshold of best balanced accuracy.

    The signs are held (a higher logit never lowers support, a failed check never raises it): with a wrong one fitted, that
    input is left out. Raises ValueError unless both labels occur.
    """
    from sklearn.linear_model import LogisticRegression

    supported = np.asarray(supported, dtype=bool)
    columns = {"slope": np.asarray(logits, dtype=float), **dict(zip(CHECKS, np.asarray(failed, dtype=float).T, strict=True))}
    weights: dict[str, float] = {}
    intercept = 0.0
    while columns:
        model = LogisticRegression().fit(np.stack(list(columns.values()), axis=1), supported)
        weights, intercept = dict(zip(columns, model.coef_[0].tolist(), strict=True)), float(model.intercept_[0])
        wrong = [name for name, weight in weights.items() if (weight < 0) == (name == "slope")]
        if not wrong:
            break
        del columns[wrong[0]], weights[wrong[0]]
    fitted = Calibration(**{name: weights.get(name, 0.0) for name in ("slope", *CHECKS)}, intercept=intercept)
    return replace(fitted, threshold=best_threshold(fitted.support(logits, failed), supported))


def best_threshold(probabilities: np.ndarray, supported: np.ndarray) -> float:
    """The midpoint between neighbouring probabilities that gives the best balanced accuracy; the middle one of equals."""
    values = np.unique(probabilities)
    cuts = np.concatenate([[values[0] / 2], (values[1:] + values[:-1]) / 2])
    accuracy = np.array([(np.mean(probabilities[supported] >= c) + np.mean(probabilities[~supported] < c)) / 2 for c in cuts])
    best = np.flatnonzero(accuracy >= accuracy.max() - 1e-12)
    return float(cuts[best[len(best) // 2]])
