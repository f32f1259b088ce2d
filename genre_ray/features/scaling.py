"""Standardise feature columns. The means and deviations are computed in one pass and ignore missing values."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, np.dtype[np.float32]]
Vector = np.ndarray[Any, np.dtype[np.float64]]

# A standard deviation below this multiple of the mean is only the rounding error of float32.
ROUNDING = 4 * float(np.finfo(np.float32).eps)

# The reciprocal of a smaller standard deviation does not fit in a float32.
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Scaling:
    """The mean and scale of each column. A standardised value is (value − mean) · scale.

    Attributes:
        mean: (columns,); 0 for a column that is missing in all rows.
        scale: (columns,); 1 / population standard deviation. It is 1 for a column without variance. It is 0 for a
            column that is missing in all rows, so that the column has no effect if later rows contain it.
    """

    mean: Vector
    scale: Vector


def fit_scaling(batches: Iterable[Matrix]) -> Scaling:
    """Compute the scaling of the training rows.

    Args:
        batches: arrays (rows, columns). A value that is not finite is missing.

    Raises:
        ValueError: there are no batches.
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
        # Chan, Golub and LeVeque 1979 merge sums of squares about the mean without cancellation.
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
