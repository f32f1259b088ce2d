"""How well scores rank recordings, per label and over all labels: ROC AUC, average precision, curves.

The areas are computed from two sorted lists, all scores and the positives' scores, which needs no curve: at
1,424 labels and 100,000 recordings this is several times faster than scikit-learn, one label after the other,
and gives the same numbers. Tied scores are one threshold (average precision) or half a win (ROC AUC).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genre_ray.errors import InputError
from genre_ray.metrics.matrices import LabelMatrix, as_csr

Scores = NDArray[np.floating]

# Columns that are copied and sorted together: wide enough to read whole cache lines of row-ordered scores.
_BLOCK = 32


@dataclass(frozen=True)
class Ranking:
    """One ranking measure, in [0, 1].

    Attributes:
        macro: mean over the labels that have both positives and negatives; None without any.
        micro: over all (recording, label) cells as one list; None without both classes.
        per_label: (labels,), NaN for a label without both classes.
        count: number of labels in the macro mean.
    """

    macro: float | None
    micro: float | None
    per_label: NDArray[np.float64]
    count: int


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall of one label when it is predicted at `score >= threshold`.

    Attributes:
        precision: (thresholds + 1,), the last is 1.
        recall: (thresholds + 1,), falling, the last is 0.
        thresholds: (thresholds,), the distinct scores, rising.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    thresholds: Scores


def roc_auc(truth: LabelMatrix, scores: Scores) -> Ranking:
    """Area under the receiver operating characteristic.

    Args:
        truth: true labels, (recordings, labels).
        scores: higher for labels that are more likely, (recordings, labels).

    Raises:
        InputError: the shapes differ, or a score is NaN.
    """
    return _ranking(truth, scores, _area_under_roc)


def average_precision(truth: LabelMatrix, scores: Scores) -> Ranking:
    """Average precision: the precisions at the distinct scores, each weighted by the recall gained there.

    This is what MTG-Jamendo and others publish as "PR AUC"; the trapezoidal area, which interpolates between
    the points of the curve, is another number.

    Args:
        truth: true labels, (recordings, labels).
        scores: higher for labels that are more likely, (recordings, labels).

    Raises:
        InputError: the shapes differ, or a score is NaN.
    """
    return _ranking(truth, scores, _average_precision)


def precision_recall_curve(truth: ArrayLike, scores: ArrayLike) -> PrecisionRecallCurve:
    """The precision-recall curve of one label.

    Args:
        truth: whether the recording has the label, (recordings,).
        scores: the label's scores, (recordings,).

    Raises:
        InputError: the shapes differ, a score is not finite, or no recording has the label.
    """
    positive, values = np.asarray(truth, dtype=bool), np.asarray(scores)
    if positive.ndim != 1 or positive.shape != values.shape:
        found = f"{positive.shape} and {values.shape}"
        raise InputError(f"expected truth and scores of one shape (recordings,), found {found}")
    if not np.isfinite(values).all():
        raise InputError("expected finite scores, found NaN or infinity: drop or repair those recordings")
    if not positive.any():
        raise InputError("a precision-recall curve needs a recording with the label, found none")
    from sklearn.metrics import precision_recall_curve  # takes most of a second, and predicting needs none of it

    return PrecisionRecallCurve(*precision_recall_curve(positive, values))


def ranked_labels(truth: LabelMatrix, scores: Scores) -> Iterator[tuple[Scores, Scores]]:
    """For each label in order, rising: all its scores, (recordings,), and its positives', (positives,).

    Raises:
        InputError: the shapes differ, or a score is NaN.
    """
    true, values = as_csr(truth, "truth").tocsc(), _checked(truth, scores)
    for start in range(0, values.shape[1], _BLOCK):
        # A copy always: the sort must not reach the caller's scores, which a transposed view would share.
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
    """The share of (positive, negative) pairs in the right order, a tie as half (Mann-Whitney)."""
    n, p = len(rising), len(positives)
    if p in (0, n):
        return float("nan")
    # Twice the midrank of each positive, less one, so that the sum stays an exact integer.
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
    """The scores as a floating-point array of the truth's shape without NaN."""
    values = np.asarray(scores)
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    if values.ndim != 2 or values.shape != truth.shape:
        raise InputError(f"expected scores of the truth's shape {truth.shape}, found {values.shape}")
    # The minimum of an array with a NaN is NaN; unlike isnan, it needs no second array.
    if values.size and np.isnan(values.min()):
        raise InputError("expected scores to be numbers, found NaN: drop or repair those recordings")
    return values
