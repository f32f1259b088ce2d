"""Thresholds that maximise F on validation, per label or per recording, and the decisions they make.

Thresholds are finite positive float32 numbers, so that JSON and safetensors hold them as they are. A label
that cannot have one (no positive in validation) has `NO_THRESHOLD`, the greatest float32: no score reaches
it, also for a reader who does not know this rule.
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
"""No recording is thought to have more labels when one threshold is sought for all."""

_ROWS = 4096

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


def borrowed_thresholds(
    truth: LabelMatrix, scores: NDArray[np.floating], hierarchy: Hierarchy, least_positives: int
) -> NDArray[np.float32]:
    """The plug-in thresholds, but for labels with few positives those of labels above them.

    A label with fewer than `least_positives` takes the least threshold among the nearest labels above it that have as
    many; without one, `recording_threshold`. That asks for scores that mean the same for all labels: calibrated ones.

    Args:
        truth: true labels of the validation recordings, (recordings, labels).
        scores: finite scores, (recordings, labels), compared as float32.
        hierarchy: of the labels.
        least_positives: at least 1.

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
    """The one threshold for all labels at which the recordings' mean F is greatest, the lowest of equals.

    The best set of labels for a recording's F are those above a threshold (Lipton, Elkan and Narayanaswamy 2014); one
    value for all, the strategy SCut with a shared threshold (Pillai, Fumera and Roli 2013), has nothing to over-fit
    where probabilities are calibrated. A recording's most probable label counts whatever its score; at most
    `MOST_LABELS` of it are looked at.

    Args:
        truth: true labels of the validation recordings, (recordings, labels).
        scores: finite scores, (recordings, labels), compared as float32.

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
        return _FLOOR  # one label, which every recording gets
    order = np.argsort(-falling, kind="stable")
    falling, total = falling[order], gains[order].cumsum()
    last = np.flatnonzero(np.diff(falling, append=-np.inf))
    # Of equals the lowest: sums of gains that are equal on paper differ in their last digits.
    best = np.flatnonzero(total[last] >= total[last].max() - 1e-9)[-1]
    if total[last[best]] < 0:
        return np.float32(np.nextafter(falling[0], np.float32(np.inf)))
    return np.float32(max(falling[last[best]], _FLOOR))


def _gains(true: sparse.csr_array, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """For each label but a recording's first, its score and by how much taking it too changes the recording's F."""
    width = min(MOST_LABELS, values.shape[1])
    top = np.argpartition(-values, width - 1, axis=1)[:, :width]
    rows = np.arange(len(values))[:, None]
    top = top[rows, np.argsort(-values[rows, top], axis=1, kind="stable")]
    relevant = true.toarray().astype(bool)
    taken = np.arange(1, width + 1)
    f_scores = 2 * relevant[rows, top].cumsum(axis=1) / (taken + relevant.sum(axis=1)[:, None])
    return values[rows, top][:, 1:].ravel(), np.diff(f_scores, axis=1).ravel()


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
