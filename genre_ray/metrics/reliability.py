"""Whether scores are probabilities: of the cases given 0.3, three in ten should be true.

Cases are sorted by probability and cut into bins of equally many, equal probabilities together. The expected
calibration error is the bins' mean distance between their mean probability and the share of them that is true (Naeini,
Cooper and Hauskrecht 2015, with equal masses). Sampling alone makes it positive; the squared error has an estimate
without that bias (Kumar, Liang and Ma 2019), which may fall below 0 by chance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genre_ray.errors import InputError
from genre_ray.metrics.matrices import LabelMatrix, as_csr
from genre_ray.metrics.ranking import ranked_labels

Floats = NDArray[np.float64]

BINS = 15

# Cells of all labels are held by the upper bits of their float32 probability: equal to a thousandth is equal.
_DROPPED_BITS = 13
_KEYS = (int(np.float32(1).view(np.uint32)) >> _DROPPED_BITS) + 1


@dataclass(frozen=True)
class Bins:
    """Cases by rising probability; all arrays are (bins,).

    Attributes:
        probability: their mean probability.
        share: the share of them that is true.
        count: how many they are.
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
        """Mean squared calibration error less what sampling adds; NaN without a bin of two cases."""
        found = self.count > 1
        noise = self.share[found] * (1 - self.share[found]) / (self.count[found] - 1)
        return _mean((self.probability[found] - self.share[found]) ** 2 - noise, self.count[found])


@dataclass(frozen=True)
class Reliability:
    """How far probabilities can be taken at their word.

    Attributes:
        diagram: all cells (recording, label) as one list, in bins of equal sums of probabilities: as many true ones
            are to be expected in each, however rare most labels are.
        pooled: expected calibration error of all cells.
        brier: mean squared distance between a cell's probability and its truth.
        per_label: (labels,) each label's expected calibration error; NaN without recordings.
        macro: its mean over the labels; None without any.
        unbiased: the root of the labels' mean squared error without bias, 0 where that is negative; None without any.
    """

    diagram: Bins
    pooled: float | None
    brier: float | None
    per_label: Floats
    macro: float | None
    unbiased: float | None


def reliability(truth: LabelMatrix, probabilities: NDArray[np.floating], *, bins: int = BINS) -> Reliability:
    """Compare probabilities with the truth.

    Args:
        truth: true labels, (recordings, labels).
        probabilities: in [0, 1], (recordings, labels), taken as float32.
        bins: how many, of one label and of all together.

    Raises:
        InputError: the shapes differ, or a probability is not in [0, 1].
    """
    values = np.asarray(probabilities, dtype=np.float32)
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise InputError("expected probabilities in [0, 1], found others: calibrate the scores first")
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
    """One label's cases in bins of equally many, equal probabilities together.

    Args:
        rising: the probabilities of all recordings, sorted.
        positives: those of the recordings that have the label, sorted.
        bins: at most how many.
    """
    if not len(rising):
        return Bins(*np.zeros((3, 0)))
    # A bin begins where the one before would be full; what equals its last case belongs to that.
    fulls = np.asarray(rising)[np.arange(bins) * len(rising) // bins]
    starts = np.unique(np.searchsorted(rising, fulls, "left"))
    counts = np.diff(starts, append=len(rising))
    hits = np.diff(np.searchsorted(positives, rising[starts], "left"), append=len(positives))
    sums = np.add.reduceat(rising, starts, dtype=np.float64)
    return Bins(sums / counts, hits / counts, counts.astype(np.float64))


class _Cells:
    """All cells by their probability, in memory that does not grow with them."""

    def __init__(self) -> None:
        self.count, self.hits, self.sums = np.zeros((3, _KEYS))

    def add(self, probabilities: NDArray[np.float32], positives: NDArray[np.float32]) -> None:
        keys = _keys(probabilities)
        self.count += np.bincount(keys, minlength=_KEYS)
        self.sums += np.bincount(keys, weights=probabilities, minlength=_KEYS)
        self.hits += np.bincount(_keys(positives), minlength=_KEYS)

    def bins(self, bins: int, *, by_sum: bool = False) -> Bins:
        """In bins of equally many cells, or of cells with equal sums of probabilities."""
        mass = self.sums if by_sum else self.count
        middle = (mass.cumsum() - mass / 2) / max(mass.sum(), np.finfo(np.float64).tiny)
        place = np.minimum((middle * bins).astype(np.intp), bins - 1)
        count, hits, sums = (np.bincount(place, weights=held) for held in (self.count, self.hits, self.sums))
        held = count > 0
        return Bins(sums[held] / count[held], hits[held] / count[held], count[held].astype(np.float64))


def _keys(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    return (np.ascontiguousarray(probabilities).view(np.uint32) >> _DROPPED_BITS).astype(np.int64)


def _brier(truth: LabelMatrix, values: NDArray[np.float32]) -> float | None:
    """Σ p² over all cells, and Σ 1 − 2p over the true ones: (p − 1)² is p² + 1 − 2p."""
    if not values.size:
        return None
    true = as_csr(truth, "truth")
    squares = sum(
        float(np.square(row).sum(dtype=np.float64)) for row in np.array_split(values, -(-len(values) // 4096))
    )
    return (squares + float((1 - 2 * values[true.nonzero()].astype(np.float64)).sum())) / values.size


def _mean(values: Floats, weights: Floats) -> float:
    return float(np.average(values, weights=weights)) if len(values) else float("nan")
