"""Abstention: recordings on which the model's own probabilities promise too little are marked.

Confidence is the F that the probabilities lead to expect of an answer. How far it can be trusted shows the
coverage-risk curve (El-Yaniv and Wiener 2010): of the most confident recordings, how many there are and how much F
their answers miss.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CoverageRisk:
    """What answering only the most confident recordings gives; one point for each distinct confidence.

    Attributes:
        coverage: share of the recordings that are answered, rising.
        risk: 1 − mean F of those.
        confidence: the least confidence among them, falling.
    """

    coverage: Floats
    risk: Floats
    confidence: Floats

    @property
    def area(self) -> float | None:
        """Mean risk over all coverages; lower is better, and the risk of all recordings is what chance gives."""
        steps = np.diff(self.coverage, prepend=0)
        return float((steps * self.risk).sum()) if len(steps) else None

    def points(self, most: int) -> list[tuple[float, float]]:
        """At most so many (coverage, risk) of the curve, evenly spaced, with its ends."""
        last = len(self.coverage) - 1
        kept = np.unique(np.linspace(0, last, min(most, last + 1)).round().astype(np.intp))
        return list(zip(self.coverage[kept].tolist(), self.risk[kept].tolist(), strict=True))


def expected_f(probabilities: NDArray[np.floating], decided: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The F to expect of the decided labels: twice their probabilities' sum over their number plus the sum of all.

    This is the ratio of expectations, which Lipton, Elkan and Narayanaswamy (2014) use for the expected F.

    Args:
        probabilities: (recordings, labels).
        decided: (recordings, labels).

    Returns:
        float32 (recordings,), in [0, 1].
    """
    inside = np.where(decided, probabilities, 0).sum(axis=1, dtype=np.float64)
    below = decided.sum(axis=1) + probabilities.sum(axis=1, dtype=np.float64)
    expected: Floats = np.divide(2 * inside, below, out=np.zeros_like(inside), where=below > 0)
    return expected.astype(np.float32)


def coverage_risk(confidence: NDArray[np.floating], f_scores: NDArray[np.floating]) -> CoverageRisk:
    """The curve of recordings with these confidences and true Fs, both (recordings,)."""
    order = np.argsort(-confidence, kind="stable")
    falling = np.asarray(confidence)[order].astype(np.float64)
    answered = np.arange(1, len(order) + 1)
    risk = 1 - np.asarray(f_scores, dtype=np.float64)[order].cumsum() / answered
    last = np.flatnonzero(np.diff(falling, append=-np.inf))  # equally confident recordings are answered together
    return CoverageRisk(answered[last] / max(len(order), 1), risk[last], falling[last])


def least_confidence(curve: CoverageRisk, *, risk: float | None = None, coverage: float | None = None) -> float | None:
    """From which confidence on to answer; None: always.

    Args:
        curve: of validation.
        risk: answer as many recordings as this mean 1 − F allows; where none does, those of the least risk.
        coverage: or: answer at least this share of recordings.
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
