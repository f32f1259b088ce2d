"""Label matrices, the input of all metrics: check them and convert them to CSR.

A label matrix has the axes (recordings, labels) and says which recording has which label. It is a boolean NumPy array
or a SciPy sparse matrix. The metrics use CSR, because a million recordings with a few labels each need little memory in
that format.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from genre_ray.errors import InputError

LabelMatrix: TypeAlias = NDArray[np.bool_] | sparse.csr_array | sparse.csr_matrix


def as_csr(matrix: LabelMatrix, name: str) -> sparse.csr_array:
    """Convert a label matrix to a canonical CSR array of int64 ones, (recordings, labels). The input is not changed.

    Args:
        matrix: booleans, or integers where a non-zero value means true, (recordings, labels).
        name: name of the matrix in error messages.

    Raises:
        InputError: the matrix is not two-dimensional, or contains floating-point numbers, such as scores.
    """
    found = matrix if sparse.issparse(matrix) else np.asarray(matrix)
    if found.ndim != 2:
        raise InputError(f"{name} must have the axes (recordings, labels), found {found.ndim} axes")
    if found.dtype.kind not in "bui":
        raise InputError(f"{name} must be boolean, found {found.dtype}; convert scores to labels first")
    csr = sparse.csr_array(found, dtype=bool, copy=True)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr.astype(np.int64)


def paired_csr(
    truth: LabelMatrix, predicted: LabelMatrix, labels: Sequence[str]
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Convert the true and the predicted labels to canonical CSR arrays, and check that they have the same axes.

    Raises:
        InputError: the shapes differ from each other or from `labels`, or `labels` contains a label twice.
    """
    true, given = as_csr(truth, "truth"), as_csr(predicted, "predicted")
    if true.shape != given.shape:
        raise InputError(f"truth and predicted must have one shape, found {true.shape} and {given.shape}")
    check_labels(labels, true.shape[1])
    return true, given


def check_labels(labels: Sequence[str], columns: int) -> None:
    """Check that there is one label per column and that no label occurs twice.

    Raises:
        InputError: there are more or fewer labels than columns, or a label occurs twice.
    """
    if len(labels) != columns:
        raise InputError(f"expected {columns} labels, one per column, found {len(labels)}")
    if len(set(labels)) != len(labels):
        twice = sorted(label for label in set(labels) if list(labels).count(label) > 1)
        raise InputError(f"labels must be distinct, found {twice[:5]} more than once")
