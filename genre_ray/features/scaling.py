"""Standardisation of feature columns, fitted in one streaming pass in which missing values do not count."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, np.dtype[np.float32]]
Vector = np.ndarray[Any, np.dtype[np.float64]]

# Below this multiple of the mean a float32 column's spread is rounding, not variance.
ROUNDING = 4 * float(np.finfo(np.float32).eps)

# The scale of a smaller deviation would not be a float32.
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Scaling:
    """Standardised value = (value - mean) * scale, per column.

    Attributes:
        mean: (columns,), 0 where no row has the column.
        scale: (columns,), 1 / standard deviation (of the population); 1 for a column without variance and 0 for one
            that no row has, so that it stays silent when later rows bring it.
    """

    mean: Vector
    scale: Vector


def fit_scaling(batches: Iterable[Matrix]) -> Scaling:
    """Fit on training rows.

    Args:
        batches: arrays (rows, columns); a value that is not finite is missing.

    Raises:
        ValueError: there is no batch.
    """
    count: Vector | None = None
    for batch in batches:
        values = batch.astype(np.float64)
        there = np.isfinite(values)
        n = there.sum(axis=0).astype(np.float64)
        centre = np.where(there, values, 0.0).sum(axis=0) / np.maximum(n, 1)
        squares = np.square(np.where(there, values - centre, 0.0)).sum(axis=0)
        if count is None:
            count, mean, total = n, centre, squares
            continue
        # Chan, Golub and LeVeque 1979: sums of squares about the mean, merged without cancellation.
        both = np.maximum(count + n, 1)
        shift = centre - mean
        mean = mean + shift * n / both
        total = total + squares + np.square(shift) * count * n / both
        count = count + n
    if count is None:
        raise ValueError("no rows to fit the scaling on")
    sd = np.sqrt(total / np.maximum(count, 1))
    varies = sd > np.maximum(ROUNDING * np.abs(mean), TINY)
    scale = np.where(varies, 1 / np.where(varies, sd, 1.0), 1.0)
    return Scaling(np.where(count > 0, mean, 0.0), np.where(count > 0, scale, 0.0))
