"""Evaluate how far predictions can be trusted: calibration, consistency and abstention."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from genre_ray.decisions.abstention import coverage_risk, expected_f
from genre_ray.metrics.reliability import Reliability, reliability
from genre_ray.reports.inputs import AllScores, Predictions
from genre_ray.reports.result import Abstention, Calibrated, Consistency

CURVE_POINTS = 200


def reliability_of(true: sparse.csr_array, values: NDArray[np.float32] | None) -> Reliability | None:
    """Measure the calibration of scores (recordings, labels); None if they are missing or outside [0, 1]."""
    if values is None or not values.size or values.min() < 0 or values.max() > 1:
        return None
    return reliability(true, values)


def calibrated(found: Reliability | None) -> Calibrated | None:
    """Convert a reliability to plain values for the report."""
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
    """Count how often a label has a higher score than its parent, before and after the policy is applied."""
    if scores is None or not scores.policy.pairs:
        return None
    hierarchy = scores.policy.hierarchy
    return Consistency(
        pairs=len(scores.values) * len(hierarchy.pairs),
        before=None if scores.raw is None else hierarchy.violations(scores.raw),
        after=hierarchy.violations(scores.values),
    )


def abstention(predictions: Predictions, true: sparse.csr_array, given: sparse.csr_array) -> Abstention | None:
    """Evaluate abstention: the mean F of the answered recordings, and the risk-coverage curve.

    Args:
        predictions: the predictions, (recordings,).
        true: true labels, (recordings, labels).
        given: predicted labels, (recordings, labels).

    Returns:
        None if the predictions do not state which recordings were abstained from.
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
