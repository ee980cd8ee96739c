"""The support verifier: the probability that a passage supports a claim, and the threshold from which it counts as support."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from curriculum.crossencoder.model import CrossEncoder, Pair, sigmoid
from curriculum.grounding.numbers import missing_numbers
from curriculum.grounding.sentences import windows

_FILE = "verifier.json"


@dataclass(frozen=True)
class Calibration:
    """Support = sigmoid(slope * logit + numbers * [a number of the claim is missing] + intercept); supported from ``threshold``."""

    slope: float = 1.0
    numbers: float = -2.0
    intercept: float = 0.0
    threshold: float = 0.5


class SupportVerifier:
    """A cross-encoder over (passage window, claim), the numbers check, and a calibration fitted on human-labelled claims."""

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
        return self.probabilities(self.logits(pairs), numbers_missing(pairs))

    def probabilities(self, logits: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Support [n] of logits [n] and of whether a number is missing [n]."""
        fit = self.calibration
        return sigmoid(fit.slope * logits + fit.numbers * missing + fit.intercept)


def numbers_missing(pairs: Sequence[Pair]) -> np.ndarray:
    """1.0 where the claim states a number that the whole passage does not, else 0.0; [n]."""
    return np.array([float(missing_numbers(passage, claim) > 0) for passage, claim in pairs])


def fit_calibration(logits: np.ndarray, missing: np.ndarray, supported: np.ndarray) -> Calibration:
    """Logistic regression of the labels [n] on logits and the numbers check, and the threshold of best balanced accuracy.

    The signs are held (a higher logit never lowers support, a missing number never raises it): with a wrong one fitted, that
    input is left out. Raises ValueError unless both labels occur.
    """
    from sklearn.linear_model import LogisticRegression

    supported = np.asarray(supported, dtype=bool)
    columns = {"slope": np.asarray(logits, dtype=float), "numbers": np.asarray(missing, dtype=float)}
    weights: dict[str, float] = {}
    intercept = 0.0
    while columns:
        model = LogisticRegression().fit(np.stack(list(columns.values()), axis=1), supported)
        weights, intercept = dict(zip(columns, model.coef_[0].tolist(), strict=True)), float(model.intercept_[0])
        wrong = [name for name, weight in weights.items() if (weight < 0) == (name == "slope")]
        if not wrong:
            break
        del columns[wrong[0]], weights[wrong[0]]
    fitted = Calibration(weights.get("slope", 0.0), weights.get("numbers", 0.0), intercept)
    probabilities = sigmoid(fitted.slope * logits + fitted.numbers * missing + fitted.intercept)
    return Calibration(fitted.slope, fitted.numbers, fitted.intercept, best_threshold(probabilities, supported))


def best_threshold(probabilities: np.ndarray, supported: np.ndarray) -> float:
    """The midpoint between neighbouring probabilities that gives the best balanced accuracy; the middle one of equals."""
    values = np.unique(probabilities)
    cuts = np.concatenate([[values[0] / 2], (values[1:] + values[:-1]) / 2])
    accuracy = np.array([(np.mean(probabilities[supported] >= c) + np.mean(probabilities[~supported] < c)) / 2 for c in cuts])
    best = np.flatnonzero(accuracy >= accuracy.max() - 1e-12)
    return float(cuts[best[len(best) // 2]])
