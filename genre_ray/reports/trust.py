"""What of an evaluation tells whether its answers can be relied on: calibration, consistency, abstention."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from genre_ray.decisions.abstention import coverage_risk, expected_f
from genre_ray.metrics.reliability import Reliability, reliability
from genre_ray.reports.inputs import AllScores, Predictions
from genre_ray.reports.result import Abstention, Calibrated, Consistency

CURVE_POINTS = 200


def reliability_of(true: sparse.csr_array, values: NDArray[np.float32] | None) -> Reliability | None:
    """The reliability of scores (recordings, labels); None where they cannot be probabilities."""
    if values is None or not values.size or values.min() < 0 or values.max() > 1:
        return None
    return reliability(true, values)


def calibrated(found: Reliability | None) -> Calibrated | None:
    """What a report says of a reliability."""
    if found is None:
        return None
    return Calibrated(
        macro=found.macro,
        unbiased=found.unbiased,
        pooled=found.pooled,
        brier=found.brier,
        probability=tuple(found.diagram.probability.tolist()),
        share=tuple(found.diagram.share.tolist()),
    )


def consistency(scores: AllScores | None) -> Consistency | None:
    """Violations of the policy's hierarchy before and after it was applied."""
    if scores is None or not scores.policy.pairs:
        return None
    hierarchy = scores.policy.hierarchy
    return Consistency(
        pairs=len(scores.values) * len(hierarchy.pairs),
        before=None if scores.raw is None else hierarchy.violations(scores.raw),
        after=hierarchy.violations(scores.values),
    )


def abstention(predictions: Predictions, true: sparse.csr_array, given: sparse.csr_array) -> Abstention | None:
    """What the marked recordings, and the order of the others' confidence, are worth.

    Args:
        predictions: with (recordings,) answers.
        true: (recordings, labels).
        given: the predicted labels, (recordings, labels).
    """
    if predictions.abstained is None:
        return None
    hits, total = true.multiply(given).sum(axis=1), true.sum(axis=1) + given.sum(axis=1)
    f_scores = np.divide(2 * hits, total, out=np.zeros(len(total)), where=total > 0)
    answered = ~np.array(predictions.abstained, dtype=bool)
    points: list[tuple[float, float]] = []
    area = None
    if predictions.scores is not None:
        values = predictions.scores.values
        curve = coverage_risk(expected_f(values, predictions.scores.policy.decide(values).labels), f_scores)
        points, area = curve.points(CURVE_POINTS), curve.area
    return Abstention(
        abstained=int((~answered).sum()),
        answered_f=float(f_scores[answered].mean()) if answered.any() else None,
        coverage=tuple(coverage for coverage, _ in points),
        risk=tuple(risk for _, risk in points),
        area=area,
    )
