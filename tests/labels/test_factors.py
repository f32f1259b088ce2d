"""Label factors reproduce the PPMI matrix, and labels of the same recordings are close."""

import numpy as np
from scipy.sparse import csr_array

from genre_ray.labels.factors import label_factors


def ppmi(matrix):
    """The definition, cell by cell."""
    recordings, labels = matrix.shape
    found = np.zeros((labels, labels))
    for one in range(labels):
        for other in range(labels):
            both = (matrix[:, one] & matrix[:, other]).sum() / recordings
            apart = matrix[:, one].mean() * matrix[:, other].mean()
            found[one, other] = max(0.0, np.log(both / apart)) if both else 0.0
    return found


def test_their_products_are_the_ppmi_matrix_in_size():
    generator = np.random.default_rng(0)
    matrix = generator.random((200, 5)) < 0.4
    factors = label_factors(csr_array(matrix), 5)
    values = np.linalg.svd(ppmi(matrix), compute_uv=False)
    # U √Σ: its columns are orthogonal, with the singular values as squared lengths, and U diagonalises X Xᵀ.
    np.testing.assert_allclose(factors.T @ factors, np.diag(values), atol=1e-5)
    np.testing.assert_allclose(factors @ np.diag(values) @ factors.T, ppmi(matrix) @ ppmi(matrix).T, atol=1e-5)
    kept = label_factors(csr_array(matrix), 2)
    np.testing.assert_allclose(kept, factors[:, :2], atol=1e-6)
    assert (kept.max(axis=0) >= -kept.min(axis=0)).all()


def test_labels_of_the_same_recordings_are_close():
    genres = np.repeat(np.eye(2, dtype=bool), 50, axis=0)
    matrix = np.concatenate([genres, genres], axis=1)[:, [0, 2, 1, 3]]
    factors = label_factors(csr_array(matrix), 2)
    lengths = np.linalg.norm(factors, axis=1)
    cosines = factors @ factors.T / np.outer(lengths, lengths)
    np.testing.assert_allclose(cosines, np.kron(np.eye(2), np.ones((2, 2))), atol=1e-6)
