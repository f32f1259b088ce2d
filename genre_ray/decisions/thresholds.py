"""Thresholds that maximise F on validation recordings, and the labels that they give.

Thresholds are finite positive float32 numbers, so JSON and safetensors store them exactly. A label without positives in
validation gets `NO_THRESHOLD`, the largest float32, which no score reaches.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from genre_ray.decisions.consistency import Hierarchy
from genre_ray.errors import InputError
from genre_ray.metrics.matrices import LabelMatrix, as_csr
from genre_ray.metrics.ranking import ranked_labels

NO_THRESHOLD = np.finfo(np.float32).max

MOST_LABELS = 64
"""Maximum number of labels per recording that `recording_threshold` considers."""

_ROWS = 4096

# With a threshold of 0 a label would always be predicted, and score / threshold would be undefined.
_FLOOR = np.finfo(np.float32).tiny


def plug_in_thresholds(truth: LabelMatrix, scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """Choose for each label the threshold that maximises its F on these recordings.

    This is the plug-in rule of the MediaEval 2018 AcousticBrainz baseline (Oramas, Bogdanov, Porter): the lowest score
    with the maximum F, where a label is predicted if `score >= threshold`. The maximum is always at the score of a
    positive, because a lower threshold that does not reach the next positive only adds false positives.

    Args:
        truth: true labels of the validation recordings, (recordings, labels).
        scores: finite scores, (recordings, labels), converted to float32.

    Returns:
        (labels,), at least the smallest normal float32; `NO_THRESHOLD` for a label without positives.

    Raises:
        InputError: the shapes differ, or a score is not finite.
    """
    values = _finite(scores)
    thresholds = np.full(values.shape[1], NO_THRESHOLD, dtype=np.float32)
    for label, (rising, positives) in enumerate(ranked_labels(truth, values)):
        if not len(positives):
            continue
        predicted = len(rising) - np.searchsorted(rising, positives, "left")
        hits = len(positives) - np.searchsorted(positives, positives, "left")
        # One division instead of 2PR / (P + R), so that equal fractions give equal floats and the first is chosen.
        f_score = 2 * hits / (predicted + len(positives))
        thresholds[label] = max(positives[f_score.argmax()], _FLOOR)
    return thresholds


def borrowed_thresholds(
    truth: LabelMatrix, scores: NDArray[np.floating], hierarchy: Hierarchy, least_positives: int
) -> NDArray[np.float32]:
    """Choose plug-in thresholds; labels with few positives use the threshold of an ancestor.

    A label with fewer than `least_positives` positives uses the lowest threshold among its nearest ancestors with
    enough positives. If it has no such ancestor, it uses `recording_threshold`. The scores should be calibrated, so
    that one threshold means the same for different labels.

    Args:
        truth: true labels of the validation recordings, (recordings, labels).
        scores: finite scores, (recordings, labels), converted to float32.
        hierarchy: the parents of each label.
        least_positives: minimum number of positives for a threshold of its own, at least 1.

    Returns:
        (labels,), at least the smallest normal float32.

    Raises:
        InputError: the shapes differ, or a score is not finite.
    """
    thresholds = plug_in_thresholds(truth, scores)
    positives = np.bincount(as_csr(truth, "truth").indices, minlength=len(thresholds))
    own = positives >= least_positives
    if own.all():
        return thresholds
    thresholds[~own] = recording_threshold(truth, scores)
    lenders: list[set[int]] = [{label} if own[label] else set() for label in range(len(thresholds))]
    for child, parent in hierarchy.downwards():
        if not own[child]:
            lenders[child] |= lenders[parent]
    for label in np.flatnonzero(~own):
        if lenders[label]:
            thresholds[label] = min(thresholds[lender] for lender in lenders[label])
    return thresholds


def recording_threshold(truth: LabelMatrix, scores: NDArray[np.floating]) -> np.float32:
    """Choose one threshold for all labels that maximises the mean F of recordings; the lowest, if several do.

    The label set with the best expected F consists of the labels above a threshold (Lipton, Elkan and Narayanaswamy
    2014). One threshold for all labels (SCut in Pillai, Fumera and Roli 2013) hardly overfits calibrated probabilities.
    A recording always gets its most probable label. At most `MOST_LABELS` labels per recording are considered.

    Args:
        truth: true labels of the validation recordings, (recordings, labels).
        scores: finite scores, (recordings, labels), converted to float32.

    Returns:
        At least the smallest normal float32; `NO_THRESHOLD` without recordings or labels.

    Raises:
        InputError: the shapes differ, or a score is not finite.
    """
    values, true = _finite(scores), as_csr(truth, "truth")
    if values.shape != true.shape:
        raise InputError(f"expected scores of the truth's shape {true.shape}, found {values.shape}")
    if not values.size:
        return NO_THRESHOLD
    parts = [
        _gains(true[start : start + _ROWS], values[start : start + _ROWS]) for start in range(0, len(values), _ROWS)
    ]
    falling, gains = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not len(falling):
        return _FLOOR  # the only label is predicted for every recording
    order = np.argsort(-falling, kind="stable")
    falling, total = falling[order], gains[order].cumsum()
    last = np.flatnonzero(np.diff(falling, append=-np.inf))
    # The lowest of equally good thresholds. Equal sums can differ in their last digits, hence the tolerance.
    best = np.flatnonzero(total[last] >= total[last].max() - 1e-9)[-1]
    if total[last[best]] < 0:
        return np.float32(np.nextafter(falling[0], np.float32(np.inf)))
    return np.float32(max(falling[last[best]], _FLOOR))


def _gains(true: sparse.csr_array, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """For each recording's labels after its most probable one: the score, and the change in F if it is predicted."""
    width = min(MOST_LABELS, values.shape[1])
    top = np.argpartition(-values, width - 1, axis=1)[:, :width]
    rows = np.arange(len(values))[:, None]
    top = top[rows, np.argsort(-values[rows, top], axis=1, kind="stable")]
    relevant = true.toarray().astype(bool)
    taken = np.arange(1, width + 1)
    f_scores = 2 * relevant[rows, top].cumsum(axis=1) / (taken + relevant.sum(axis=1)[:, None])
    return values[rows, top][:, 1:].ravel(), np.diff(f_scores, axis=1).ravel()


def decide(scores: NDArray[np.floating], thresholds: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Predict for each recording the labels whose score reaches the threshold, and always at least one label.

    If no score reaches its threshold, the label with the greatest score / threshold is predicted, the first of equals.
    Labels with `NO_THRESHOLD` are not considered for this unless no label has a threshold. Then the label with the
    greatest score is predicted.

    Args:
        scores: finite scores, (recordings, labels), converted to float32.
        thresholds: finite and positive, (labels,).

    Returns:
        (recordings, labels), with at least one label in every row.

    Raises:
        InputError: the shapes do not agree, there is no label, a score is not finite, or a threshold is not finite and
            positive.
    """
    values, limits = _finite(scores), np.asarray(thresholds, dtype=np.float32)
    if not values.shape[1] or limits.shape != values.shape[1:]:
        found = f"{limits.shape} for scores {values.shape}"
        raise InputError(f"expected at least one label and one threshold per label, found thresholds {found}")
    if not (np.isfinite(limits) & (limits > 0)).all():
        raise InputError("expected finite thresholds above 0; use NO_THRESHOLD for a label without a threshold")
    decided = values >= limits
    empty = np.flatnonzero(~decided.any(axis=1))
    usable = limits < NO_THRESHOLD
    if not usable.any():
        usable, limits = ~usable, np.ones_like(limits)
    candidates = np.flatnonzero(usable)
    ratios = values[np.ix_(empty, candidates)] / limits[candidates].astype(np.float64)
    decided[empty, candidates[ratios.argmax(axis=1)]] = True
    return decided


def _finite(scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """Convert scores (recordings, labels) to float32 and check that they are finite."""
    values = np.asarray(scores, dtype=np.float32)
    if values.ndim != 2:
        raise InputError(f"expected scores with the axes (recordings, labels), found shape {values.shape}")
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise InputError(
            "expected finite scores, found NaN or infinity; remove those recordings or correct their scores"
        )
    return values
