"""Thresholds per label that maximise F on validation, and the decisions they make.

Thresholds are finite positive float32 numbers, so that JSON and safetensors hold them as they are. A label
that cannot have one (no positive in validation) has `NO_THRESHOLD`, the greatest float32: no score reaches
it, also for a reader who does not know this rule.
"""

import numpy as np
from numpy.typing import NDArray

from genre_ray.errors import InputError
from genre_ray.metrics.matrices import LabelMatrix
from genre_ray.metrics.ranking import ranked_labels

NO_THRESHOLD = np.finfo(np.float32).max

# A threshold of 0 would predict its label always and have no score/threshold.
_FLOOR = np.finfo(np.float32).tiny


def plug_in_thresholds(truth: LabelMatrix, scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """Per label, the score at which predicting `score >= threshold` has the greatest F on these recordings.

    The plug-in rule of the MediaEval 2018 AcousticBrainz baseline (Oramas, Bogdanov, Porter): the first
    maximum of F along the precision-recall curve, scores rising. That is always at a positive's score, as
    lowering the threshold between two positives only adds false ones, so only those are looked at.

    Args:
        truth: true labels of the validation recordings, (recordings, labels).
        scores: finite scores, (recordings, labels), compared as float32.

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
        # 2PR / (P + R) in one division: Fs that are equal as fractions are equal numbers, and the first wins.
        f_score = 2 * hits / (predicted + len(positives))
        thresholds[label] = max(positives[f_score.argmax()], _FLOOR)
    return thresholds


def decide(scores: NDArray[np.floating], thresholds: NDArray[np.floating]) -> NDArray[np.bool_]:
    """The labels of each recording: those whose score reaches the threshold, and always at least one.

    A recording left with none gets the label of the greatest score/threshold (the first of equals). Labels
    with `NO_THRESHOLD` take no part in that; only if no label has a threshold, the greatest score wins.

    Args:
        scores: finite scores, (recordings, labels), compared as float32.
        thresholds: finite and positive, (labels,).

    Returns:
        (recordings, labels), with at least one label in every row.

    Raises:
        InputError: the shapes do not agree, there is no label, or a score or threshold cannot be used.
    """
    values, limits = _finite(scores), np.asarray(thresholds, dtype=np.float32)
    if not values.shape[1] or limits.shape != values.shape[1:]:
        found = f"{limits.shape} for scores {values.shape}"
        raise InputError(f"expected at least one label and a threshold for each, found {found}")
    if not (np.isfinite(limits) & (limits > 0)).all():
        raise InputError("expected finite thresholds above 0; mark a label without one by NO_THRESHOLD")
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
    """The scores as float32, (recordings, labels)."""
    values = np.asarray(scores, dtype=np.float32)
    if values.ndim != 2:
        raise InputError(f"expected scores with the axes (recordings, labels), found shape {values.shape}")
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise InputError("expected finite scores, found NaN or infinity: drop or repair those recordings")
    return values
