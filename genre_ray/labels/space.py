"""A label space: the labels of one taxonomy or of several joined ones, in sorted order, with one column per label."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from genre_ray.errors import InputError
from genre_ray.labels.names import normalise


@dataclass(frozen=True)
class LabelSpace:
    """The columns of a model that was trained on one or several taxonomies.

    Attributes:
        labels: sorted names of the columns: a single taxonomy's own names, or normalised names of several.
        columns: for each taxonomy, the column of each of its labels, in their order.
    """

    labels: tuple[str, ...]
    columns: Mapping[str, NDArray[np.int64]]

    @classmethod
    def join(cls, vocabularies: Mapping[str, Sequence[str]]) -> Self:
        """Make the space of all labels of one or several taxonomies. A single taxonomy keeps its names.

        Args:
            vocabularies: the sorted labels of each taxonomy.

        Raises:
            InputError: two labels of one taxonomy have the same normalised name.
        """
        alone = len(vocabularies) == 1
        named = {
            taxonomy: list(labels) if alone else _normalised(taxonomy, labels)
            for taxonomy, labels in vocabularies.items()
        }
        space = sorted({label for labels in named.values() for label in labels})
        place = {label: column for column, label in enumerate(space)}
        return cls(
            tuple(space),
            {
                taxonomy: np.array([place[label] for label in labels], dtype=np.int64)
                for taxonomy, labels in named.items()
            },
        )


def _normalised(taxonomy: str, labels: Sequence[str]) -> list[str]:
    origin: dict[str, str] = {}
    for label in labels:
        name = normalise(label)
        if name in origin:
            raise InputError(
                f"{taxonomy}: cannot join this taxonomy with others, because its labels {origin[name]!r} and {label!r} "
                f"differ only in characters other than letters (both become {name!r}); rename one of them"
            )
        origin[name] = label
    return list(origin)


def label_matrix(label_sets: Iterable[Sequence[str]], labels: Sequence[str]) -> Any:
    """Convert label sets to a boolean CSR matrix (recordings, labels); labels without a column are ignored."""
    column = {label: index for index, label in enumerate(labels)}
    indices: list[int] = []
    indptr = [0]
    for label_set in label_sets:
        indices.extend(sorted({column[label] for label in label_set if label in column}))
        indptr.append(len(indices))
    data = np.ones(len(indices), dtype=bool)
    return csr_array((data, np.array(indices, dtype=np.int64), np.array(indptr)), shape=(len(indptr) - 1, len(labels)))
