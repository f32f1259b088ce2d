"""Guards the door of all metrics: what is taken for a label matrix, and that the caller's stays untouched."""

import numpy as np
import pytest
from scipy import sparse

from genre_ray.errors import InputError
from genre_ray.metrics.matrices import as_csr, check_labels, paired_csr


def test_dense_and_sparse_say_the_same() -> None:
    dense = np.array([[True, False, True], [False, False, False]])
    for matrix in (dense, dense.astype(np.int8), sparse.csr_matrix(dense), sparse.coo_array(dense)):
        np.testing.assert_array_equal(as_csr(matrix, "truth").toarray(), dense.astype(int))


def test_repeated_and_zero_entries_count_once_and_not_at_all() -> None:
    """A CSR built by hand may hold a cell twice (two rows of a join) or a stored zero."""
    made = sparse.csr_array((np.array([1, 1, 0]), np.array([2, 2, 0]), np.array([0, 3])), shape=(1, 3))
    csr = as_csr(made, "truth")
    assert csr.nnz == 1
    assert csr.toarray().tolist() == [[0, 0, 1]]
    assert made.nnz == 3


def test_scores_in_place_of_labels_are_refused() -> None:
    with pytest.raises(InputError, match="boolean"):
        as_csr(np.array([[0.2, 0.9]]), "predicted")  # type: ignore[arg-type]


def test_one_axis_is_refused() -> None:
    with pytest.raises(InputError, match="1 axes"):
        as_csr(np.array([True, False]), "truth")


def test_shapes_and_labels_must_agree() -> None:
    two, three = np.zeros((1, 2), bool), np.zeros((1, 3), bool)
    with pytest.raises(InputError, match="one shape"):
        paired_csr(two, three, ["a", "b"])
    with pytest.raises(InputError, match="expected 2 labels, one per column, found 3"):
        paired_csr(two, two, ["a", "b", "c"])
    with pytest.raises(InputError, match="'a'"):
        check_labels(["a", "a"], 2)
