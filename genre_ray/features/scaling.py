"""Standardisation of feature columns, fitted in one pass in which missing values do not count.

Batches of rows are summarised independently of each other (`moments`) and merged, so that workers share the pass.
"""

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


@dataclass(frozen=True)
class Moments:
    """What a batch of rows adds to a scaling, per column: float64 (columns,) each.

    Attributes:
        count: values that are there.
        mean: their mean; 0 without any.
        squares: the sum of their squared deviations from it.
    """

    count: Vector
    mean: Vector
    squares: Vector


def moments(batch: Matrix) -> Moments:
    """The moments of rows (rows, columns); a value that is not finite is missing."""
    values = batch.astype(np.float64)
    there = np.isfinite(values)
    count = there.sum(axis=0).astype(np.float64)
    mean = np.where(there, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    return Moments(count, mean, np.square(np.where(there, values - mean, 0.0)).sum(axis=0))


def merge_moments(batches: Iterable[Moments]) -> Scaling:
    """The scaling of all rows from the moments of batches of them.

    The order of the batches changes the last digits only.

    Raises:
        ValueError: there is no batch.
    """
    merged: Moments | None = None
    for batch in batches:
        if merged is None:
            merged = batch
            continue
        # Chan, Golub and LeVeque 1979: sums of squares about the mean, merged without cancellation.
        count, mean, squares = merged.count, merged.mean, merged.squares
        both = np.maximum(count + batch.count, 1)
        shift = batch.mean - mean
        mean = mean + shift * batch.count / both
        squares = squares + batch.squares + np.square(shift) * count * batch.count / both
        merged = Moments(count + batch.count, mean, squares)
    if merged is None:
        raise ValueError("no rows to fit the scaling on")
    count, mean, squares = merged.count, merged.mean, merged.squares
    sd = np.sqrt(squares / np.maximum(count, 1))
    varies = sd > np.maximum(ROUNDING * np.abs(mean), TINY)
    scale = np.where(varies, 1 / np.where(varies, sd, 1.0), 1.0)
    return Scaling(np.where(count > 0, mean, 0.0), np.where(count > 0, scale, 0.0))


def fit_scaling(batches: Iterable[Matrix]) -> Scaling:
    """Compute the scaling of the training rows.

    Args:
        batches: arrays (rows, columns). A value that is not finite is missing.

    Raises:
        ValueError: there are no batches.
    """
    return merge_moments(map(moments, batches))
