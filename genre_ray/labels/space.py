"""A label space: the sorted labels of a taxonomy, one column each, genres and subgenres alike."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array


def label_matrix(label_sets: Iterable[Sequence[str]], labels: Sequence[str]) -> Any:
    """Label sets as a boolean CSR matrix (recordings, labels); a label outside the space is left out."""
    column = {label: index for index, label in enumerate(labels)}
    indices: list[int] = []
    indptr = [0]
    for label_set in label_sets:
        indices.extend(sorted({column[label] for label in label_set if label in column}))
        indptr.append(len(indices))
    data = np.ones(len(indices), dtype=bool)
    return csr_array((data, np.array(indices, dtype=np.int64), np.array(indptr)), shape=(len(indptr) - 1, len(labels)))
