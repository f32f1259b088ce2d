"""Ranking metrics, per label and over all labels: ROC AUC, average precision and precision-recall curves.

Both areas are computed from two sorted arrays per label, all scores and the scores of the positives. For 1,424 labels
and 100,000 recordings this is several times faster than scikit-learn and gives the same values. Tied scores share one
threshold in average precision and count as half a correct pair in ROC AUC.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genre_ray.errors import InputError
from genre_ray.metrics.matrices import LabelMatrix, as_csr

Scores = NDArray[np.floating]

# Columns that are copied and sorted together. The scores are stored by rows, so a block reads whole cache lines.
_BLOCK = 32


@dataclass(frozen=True)
class Ranking:
    """The values of one ranking metric, in [0, 1].

    Attributes:
        macro: mean over the labels that have both positives and negatives; None if there is no such label.
        micro: the metric over all (recording, label) pairs together; None without both positives and negatives.
        per_label: (labels,), NaN for a label without both positives and negatives.
        count: number of labels in the macro mean.
    """

    macro: float | None
    micro: float | None
    per_label: NDArray[np.float64]
    count: int


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall of one label for every threshold, where `score >= threshold` predicts the label.

    Attributes:
        precision: (thresholds + 1,); the last value is 1.
        recall: (thresholds + 1,), decreasing; the last value is 0.
        thresholds: the distinct scores in increasing order, (thresholds,).
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    thresholds: Scores


def roc_auc(truth: LabelMatrix, scores: Scores) -> Ranking:
    """Compute the area under the receiver operating characteristic.

    Args:
        truth: true labels, (recordings, labels).
        scores: higher for labels that are more likely, (recordings, labels).

    Raises:
        InputError: the shapes differ, or a score is NaN.
    """
    return _ranking(truth, scores, _area_under_roc)


def average_precision(truth: LabelMatrix, scores: Scores) -> Ranking:
    """Compute average precision: the precision at each distinct score, weighted by the increase in recall there.

    MTG-Jamendo and others publish it as "PR AUC". It differs from the trapezoidal area under the curve, which
    interpolates between points.

    Args:
        truth: true labels, (recordings, labels).
        scores: higher for labels that are more likely, (recordings, labels).

    Raises:
        InputError: the shapes differ, or a score is NaN.
    """
    return _ranking(truth, scores, _average_precision)


def precision_recall_curve(truth: ArrayLike, scores: ArrayLike) -> PrecisionRecallCurve:
    """Compute the precision-recall curve of one label.

    Args:
        truth: whether each recording has the label, (recordings,).
        scores: the label's scores, (recordings,).

    Raises:
        InputError: the shapes differ, a score is not finite, or no recording has the label.
    """
    positive, values = np.asarray(truth, dtype=bool), np.asarray(scores)
    if positive.ndim != 1 or positive.shape != values.shape:
        found = f"{positive.shape} and {values.shape}"
        raise InputError(f"expected truth and scores of one shape (recordings,), found {found}")
    if not np.isfinite(values).all():
        raise InputError(
            "expected finite scores, found NaN or infinity; remove those recordings or correct their scores"
        )
    if not positive.any():
        raise InputError("no recording has the label, so it has no precision-recall curve")
    from sklearn.metrics import precision_recall_curve  # takes most of a second to import; predict does not need it

    return PrecisionRecallCurve(*precision_recall_curve(positive, values))


def ranked_labels(truth: LabelMatrix, scores: Scores) -> Iterator[tuple[Scores, Scores]]:
    """Yield for each label its scores (recordings,) and the scores of its positives (positives,), both increasing.

    Args:
        truth: true labels, (recordings, labels).
        scores: (recordings, labels).

    Raises:
        InputError: the shapes differ, or a score is NaN.
    """
    true, values = as_csr(truth, "truth").tocsc(), _checked(truth, scores)
    for start in range(0, values.shape[1], _BLOCK):
        # Always a copy: sorting a transposed view would change the caller's scores.
        rising = np.array(values[:, start : start + _BLOCK].T, order="C", copy=True)
        rising.sort(axis=1)
        for label, all_scores in enumerate(rising, start):
            rows = true.indices[true.indptr[label] : true.indptr[label + 1]]
            yield all_scores, np.sort(values[rows, label])


def _ranking(truth: LabelMatrix, scores: Scores, area: Callable[[Scores, Scores], float]) -> Ranking:
    values = _checked(truth, scores)
    per_label = np.array([area(*ranked) for ranked in ranked_labels(truth, values)], dtype=np.float64)
    defined = per_label[~np.isnan(per_label)]
    micro = area(np.sort(values, axis=None), np.sort(values[as_csr(truth, "truth").nonzero()]))
    return Ranking(
        macro=float(defined.mean()) if len(defined) else None,
        micro=None if np.isnan(micro) else micro,
        per_label=per_label,
        count=len(defined),
    )


def _area_under_roc(rising: Scores, positives: Scores) -> float:
    """The share of (positive, negative) pairs in the right order, where a tie counts as half (Mann-Whitney)."""
    n, p = len(rising), len(positives)
    if p in (0, n):
        return float("nan")
    # Twice the midrank of each positive minus one, so that the sum is an exact integer.
    ranks = np.searchsorted(rising, positives, "left") + np.searchsorted(rising, positives, "right")
    return float((int(ranks.sum()) - p * p) / (2 * p * (n - p)))


def _average_precision(rising: Scores, positives: Scores) -> float:
    """The mean over the positives of the precision at their scores."""
    n, p = len(rising), len(positives)
    if p in (0, n):
        return float("nan")
    predicted = n - np.searchsorted(rising, positives, "left")
    hits = p - np.searchsorted(positives, positives, "left")
    return float((hits / predicted).mean())


def _checked(truth: LabelMatrix, scores: Scores) -> Scores:
    """Convert the scores to floating point; check that they have the shape of `truth` and no NaN."""
    values = np.asarray(scores)
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    if values.ndim != 2 or values.shape != truth.shape:
        raise InputError(f"expected scores of the truth's shape {truth.shape}, found {values.shape}")
    # The minimum of an array with a NaN is NaN. Unlike isnan it needs no second array.
    if values.size and np.isnan(values.min()):
        raise InputError("expected scores without NaN, found NaN; remove those recordings or correct their scores")
    return values
