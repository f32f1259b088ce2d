"""Abstention: mark the recordings whose predicted labels are unlikely to be right.

The confidence of a recording is the expected F-score of its predicted labels, computed from the calibrated
probabilities. The risk-coverage curve (El-Yaniv and Wiener 2010) measures how well confidence works: it shows the
mean of 1 − F over the most confident recordings, for every share of the recordings.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CoverageRisk:
    """The risk-coverage curve, with one point for each distinct confidence. All arrays are (points,).

    Attributes:
        coverage: share of the recordings that are answered, in increasing order.
        risk: 1 − mean F of the answered recordings.
        confidence: minimum confidence of the answered recordings, in decreasing order.
    """

    coverage: Floats
    risk: Floats
    confidence: Floats

    @property
    def area(self) -> float | None:
        """Mean risk over all coverages; lower is better. Random confidences give the risk at full coverage."""
        steps = np.diff(self.coverage, prepend=0)
        return float((steps * self.risk).sum()) if len(steps) else None

    def points(self, most: int) -> list[tuple[float, float]]:
        """Return at most `most` points (coverage, risk), evenly spaced, including both ends of the curve."""
        last = len(self.coverage) - 1
        kept = np.unique(np.linspace(0, last, min(most, last + 1)).round().astype(np.intp))
        return list(zip(self.coverage[kept].tolist(), self.risk[kept].tolist(), strict=True))


def expected_f(probabilities: NDArray[np.floating], decided: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the expected F-score of the predicted labels of each recording.

    It is 2 Σ p(predicted labels) / (number of predicted labels + Σ p(all labels)), a ratio of expectations, as in
    Lipton, Elkan and Narayanaswamy (2014).

    Args:
        probabilities: calibrated probabilities, (recordings, labels).
        decided: predicted labels, (recordings, labels).

    Returns:
        float32 (recordings,), in [0, 1].
    """
    inside = np.where(decided, probabilities, 0).sum(axis=1, dtype=np.float64)
    below = decided.sum(axis=1) + probabilities.sum(axis=1, dtype=np.float64)
    expected: Floats = np.divide(2 * inside, below, out=np.zeros_like(inside), where=below > 0)
    return expected.astype(np.float32)


def coverage_risk(confidence: NDArray[np.floating], f_scores: NDArray[np.floating]) -> CoverageRisk:
    """Compute the risk-coverage curve.

    Args:
        confidence: (recordings,).
        f_scores: F-score of each recording's predicted labels, (recordings,).
    """
    order = np.argsort(-confidence, kind="stable")
    falling = np.asarray(confidence)[order].astype(np.float64)
    answered = np.arange(1, len(order) + 1)
    risk = 1 - np.asarray(f_scores, dtype=np.float64)[order].cumsum() / answered
    last = np.flatnonzero(np.diff(falling, append=-np.inf))  # recordings of equal confidence share one point
    return CoverageRisk(answered[last] / max(len(order), 1), risk[last], falling[last])


def least_confidence(curve: CoverageRisk, *, risk: float | None = None, coverage: float | None = None) -> float | None:
    """Return the minimum confidence to answer a recording, or None to answer all.

    Args:
        curve: curve of the validation recordings.
        risk: answer as many recordings as possible with at most this risk; if no point of the curve has so little risk,
            answer those at the point with the least.
        coverage: answer at least this share of the recordings. Give either `risk` or `coverage`.
    """
    if not len(curve.coverage):
        return None
    if risk is not None:
        allowed = np.flatnonzero(curve.risk <= risk)
        point = int(allowed[-1] if len(allowed) else curve.risk.argmin())
    elif coverage is not None:
        point = int(np.searchsorted(curve.coverage, coverage - 1e-9))
    else:
        return None
    return float(curve.confidence[point]) if point < len(curve.coverage) - 1 else None
