"""The label matrices that all metrics read, checked and brought to one form.

A label matrix has axes (recordings, labels) and says which recording has which label. It is a boolean numpy
array or a scipy sparse matrix; the metrics compute on CSR, whose size is the number of labels set, so that a
million recordings with a few labels each stay small.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from genre_ray.errors import InputError

LabelMatrix: TypeAlias = NDArray[np.bool_] | sparse.csr_array | sparse.csr_matrix


def as_csr(matrix: LabelMatrix, name: str) -> sparse.csr_array:
    """The matrix as a canonical CSR array of int64 ones, (recordings, labels); the caller's is left as it is.

    Args:
        matrix: booleans, or integers of which any but 0 is set, (recordings, labels).
        name: what the matrix is, for the error's message.

    Raises:
        InputError: the matrix is not two-dimensional, or holds floating-point numbers (scores, not labels).
    """
    found = matrix if sparse.issparse(matrix) else np.asarray(matrix)
    if found.ndim != 2:
        raise InputError(f"{name} must have the axes (recordings, labels), found {found.ndim} axes")
    if found.dtype.kind not in "bui":
        raise InputError(f"{name} must be boolean, found {found.dtype}: decide on labels before scoring them")
    csr = sparse.csr_array(found, dtype=bool, copy=True)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr.astype(np.int64)


def paired_csr(
    truth: LabelMatrix, predicted: LabelMatrix, labels: Sequence[str]
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Truth and prediction as canonical CSR arrays over the same recordings and the same distinct labels.

    Raises:
        InputError: the shapes differ from each other or from the labels, or a label is named twice.
    """
    true, given = as_csr(truth, "truth"), as_csr(predicted, "predicted")
    if true.shape != given.shape:
        raise InputError(f"truth and predicted must have one shape, found {true.shape} and {given.shape}")
    check_labels(labels, true.shape[1])
    return true, given


def check_labels(labels: Sequence[str], columns: int) -> None:
    """Refuse labels that do not name each of the columns once.

    Raises:
        InputError: their number is another, or a label is named twice.
    """
    if len(labels) != columns:
        raise InputError(f"expected a label for each of {columns} columns, found {len(labels)} labels")
    if len(set(labels)) != len(labels):
        twice = sorted(label for label in set(labels) if list(labels).count(label) > 1)
        raise InputError(f"labels must be distinct, found {twice[:5]} more than once")
