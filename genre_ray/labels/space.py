"""A label space: the sorted labels of one taxonomy, or of several joined, a column each, genres and subgenres alike."""

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
    """One label space for the labels of one or several taxonomies.

    Attributes:
        labels: sorted; the taxonomy's own names, or the normalised ones of several taxonomies.
        columns: by taxonomy, the column of each of its own labels, in their order.
    """

    labels: tuple[str, ...]
    columns: Mapping[str, NDArray[np.int64]]

    @classmethod
    def join(cls, vocabularies: Mapping[str, Sequence[str]]) -> Self:
        """The union of several taxonomies' labels; one taxonomy alone keeps its names.

        Args:
            vocabularies: each taxonomy's labels, sorted.

        Raises:
            InputError: two labels of one taxonomy would become the same.
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
                f"{taxonomy}: expected labels that differ in their letters, found {origin[name]!r} and {label!r}, "
                f"which both become {name!r} where taxonomies are joined; rename one of them"
            )
        origin[name] = label
    return list(origin)


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
