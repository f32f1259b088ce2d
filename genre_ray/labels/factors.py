"""Label factors: vectors in which labels that stand on the same recordings are close (Oramas et al., ISMIR 2017)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def label_factors(matrix: Any, dimensions: int) -> NDArray[np.float32]:
    """The factors of labels: U √Σ of the truncated singular value decomposition of their PPMI matrix.

    The positive pointwise mutual information of two labels is max(0, ln(p(a, b) / (p(a) p(b)))), with the shares of
    recordings that have them. A label's own (the diagonal) is -ln p(a).

    Args:
        matrix: boolean CSR (recordings, labels), each label with a recording.
        dimensions: of the factors; no more than there are labels.

    Returns:
        (labels, dimensions). The sign of a dimension is such that its largest value is positive.
    """
    counts = matrix.astype(np.float64)
    together = (counts.T @ counts).toarray()
    shares = np.diag(together) / matrix.shape[0]
    with np.errstate(divide="ignore"):
        information = np.log(together / matrix.shape[0] / np.outer(shares, shares))
    left, values, _ = np.linalg.svd(np.maximum(information, 0))
    kept = min(dimensions, len(values))
    factors = left[:, :kept] * np.sqrt(values[:kept])
    largest = factors[np.abs(factors).argmax(axis=0), np.arange(kept)]
    signed: NDArray[np.float32] = (factors * np.where(largest < 0, -1, 1)).astype(np.float32)
    return signed
