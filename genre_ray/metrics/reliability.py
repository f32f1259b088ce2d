"""Measure calibration: of the cases with probability 0.3, three in ten should be true.

A case is a pair of a recording and a label. Cases are sorted by probability and split into bins with equal numbers of
cases; cases with equal probabilities stay together. The expected calibration error is the mean over bins of the
distance between the mean probability and the share of true cases (Naeini, Cooper and Hauskrecht 2015). Its expectation
is positive even for perfectly calibrated probabilities, because samples are finite. The squared error has an unbiased
estimate (Kumar, Liang and Ma 2019), which can be negative by chance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genre_ray.errors import InputError
from genre_ray.metrics.matrices import LabelMatrix, as_csr
from genre_ray.metrics.ranking import ranked_labels

Floats = NDArray[np.float64]

BINS = 15

# All cases are counted by the upper bits of their float32 probability, to a relative precision of a thousandth.
_DROPPED_BITS = 13
_KEYS = (int(np.float32(1).view(np.uint32)) >> _DROPPED_BITS) + 1


@dataclass(frozen=True)
class Bins:
    """Bins of cases in order of increasing probability; all arrays are (bins,).

    Attributes:
        probability: mean probability of the bin's cases.
        share: share of the bin's cases that are true.
        count: number of cases in the bin.
    """

    probability: Floats
    share: Floats
    count: Floats

    @property
    def error(self) -> float:
        """Expected calibration error, in [0, 1]; NaN without cases."""
        return _mean(np.abs(self.probability - self.share), self.count)

    @property
    def unbiased_squared_error(self) -> float:
        """Unbiased estimate of the mean squared calibration error; NaN if no bin has two cases."""
        found = self.count > 1
        noise = self.share[found] * (1 - self.share[found]) / (self.count[found] - 1)
        return _mean((self.probability[found] - self.share[found]) ** 2 - noise, self.count[found])


@dataclass(frozen=True)
class Reliability:
    """How well probabilities are calibrated.

    Attributes:
        diagram: all cases in bins with equal sums of probabilities. So every bin expects equally many true cases, even
            if most labels are rare.
        pooled: expected calibration error of all cases together; None without cases.
        brier: Brier score, the mean squared difference between probability and truth; None without cases.
        per_label: expected calibration error of each label, (labels,); NaN without recordings.
        macro: mean of `per_label`; None without labels or recordings.
        unbiased: root of the mean over labels of the unbiased squared error, 0 if that mean is negative; None if it is
            undefined for all labels.
    """

    diagram: Bins
    pooled: float | None
    brier: float | None
    per_label: Floats
    macro: float | None
    unbiased: float | None


def reliability(truth: LabelMatrix, probabilities: NDArray[np.floating], *, bins: int = BINS) -> Reliability:
    """Measure how well probabilities are calibrated.

    Args:
        truth: true labels, (recordings, labels).
        probabilities: (recordings, labels) in [0, 1], converted to float32.
        bins: maximum number of bins, per label and for all cases together.

    Raises:
        InputError: the shapes differ, or a probability is not in [0, 1].
    """
    values = np.asarray(probabilities, dtype=np.float32)
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise InputError("expected probabilities in [0, 1], found other values; calibrate the scores first")
    cells = _Cells()
    labels = []
    for rising, positives in ranked_labels(truth, values):
        cells.add(rising, positives)
        labels.append(label_bins(rising, positives, bins))
    per_label = np.array([found.error for found in labels], dtype=np.float64)
    squares = np.array([found.unbiased_squared_error for found in labels], dtype=np.float64)
    known = ~np.isnan(per_label)
    return Reliability(
        diagram=cells.bins(bins, by_sum=True),
        pooled=cells.bins(bins).error if cells.count.any() else None,
        brier=_brier(truth, values),
        per_label=per_label,
        macro=float(per_label[known].mean()) if known.any() else None,
        unbiased=None if np.isnan(squares).all() else float(np.nanmean(squares).clip(0) ** 0.5),
    )


def label_bins(rising: NDArray[np.floating], positives: NDArray[np.floating], bins: int = BINS) -> Bins:
    """Split the recordings into bins of equal size by one label's probability; equal probabilities stay together.

    Args:
        rising: the label's probabilities of all recordings in increasing order, (recordings,).
        positives: those of the recordings that have the label, in increasing order, (positives,).
        bins: maximum number of bins.
    """
    if not len(rising):
        return Bins(*np.zeros((3, 0)))
    # A bin starts where the previous one is full, after all cases that equal the previous bin's last case.
    fulls = np.asarray(rising)[np.arange(bins) * len(rising) // bins]
    starts = np.unique(np.searchsorted(rising, fulls, "left"))
    counts = np.diff(starts, append=len(rising))
    hits = np.diff(np.searchsorted(positives, rising[starts], "left"), append=len(positives))
    sums = np.add.reduceat(rising, starts, dtype=np.float64)
    return Bins(sums / counts, hits / counts, counts.astype(np.float64))


class _Cells:
    """Counts of all cases by probability, in memory that does not depend on the number of cases."""

    def __init__(self) -> None:
        self.count, self.hits, self.sums = np.zeros((3, _KEYS))

    def add(self, probabilities: NDArray[np.float32], positives: NDArray[np.float32]) -> None:
        keys = _keys(probabilities)
        self.count += np.bincount(keys, minlength=_KEYS)
        self.sums += np.bincount(keys, weights=probabilities, minlength=_KEYS)
        self.hits += np.bincount(_keys(positives), minlength=_KEYS)

    def bins(self, bins: int, *, by_sum: bool = False) -> Bins:
        """Split the cases into bins with equal numbers of cases, or with equal sums of probabilities if `by_sum`."""
        mass = self.sums if by_sum else self.count
        middle = (mass.cumsum() - mass / 2) / max(mass.sum(), np.finfo(np.float64).tiny)
        place = np.minimum((middle * bins).astype(np.intp), bins - 1)
        count, hits, sums = (np.bincount(place, weights=held) for held in (self.count, self.hits, self.sums))
        held = count > 0
        return Bins(sums[held] / count[held], hits[held] / count[held], count[held].astype(np.float64))


def _keys(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    return (np.ascontiguousarray(probabilities).view(np.uint32) >> _DROPPED_BITS).astype(np.int64)


def _brier(truth: LabelMatrix, values: NDArray[np.float32]) -> float | None:
    """Sum p² over all cases and 1 − 2p over the true ones, since (p − 1)² = p² + 1 − 2p; divide by their number."""
    if not values.size:
        return None
    true = as_csr(truth, "truth")
    squares = sum(
        float(np.square(row).sum(dtype=np.float64)) for row in np.array_split(values, -(-len(values) // 4096))
    )
    return (squares + float((1 - 2 * values[true.nonzero()].astype(np.float64)).sum())) / values.size


def _mean(values: Floats, weights: Floats) -> float:
    return float(np.average(values, weights=weights)) if len(values) else float("nan")
