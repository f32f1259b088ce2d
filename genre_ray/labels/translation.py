"""Scores in one taxonomy's labels → scores in another's, by a mapping table.

A label's score is that of its best witness: the greatest of score × weight over the labels that are mapped to it. Read
as probabilities, P(a) P(b | a) is at most P(b) for every a, so that this is the most that single labels vouch for.
Scores stay within [0, 1], and rise with every score they are made of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from genre_ray.errors import InputError
from genre_ray.truth.mapping_table import MappingTable

Scores = NDArray[np.float32]

_PRODUCTS = 2**22
"""Score × weight products that are held at once."""


@dataclass(frozen=True)
class Translation:
    """From the labels of some sources, side by side, to those of a target.

    Attributes:
        labels: (labels,) of the target that a source label is mapped to, sorted.
        weights: float32 CSC (source labels, labels), with an entry in every column.
        unknown: labels that the table maps from, and the sources do not have.
    """

    labels: tuple[str, ...]
    weights: Any
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, table: MappingTable, target: str, sources: Mapping[str, Sequence[str]]) -> Self:
        """What a table says for `target`.

        Args:
            table: the mapping.
            target: the taxonomy to answer in.
            sources: taxonomy → its labels; the sources' labels are the rows of `weights`, one source after the other.

        Raises:
            InputError: the table maps none of these labels to the target.
        """
        row = {
            (source, label): place
            for place, (source, label) in enumerate(
                (source, label) for source, labels in sources.items() for label in labels
            )
        }
        entries: dict[tuple[int, str], float] = {}
        unknown: list[str] = []
        for source in sources:
            for (label, to_label), weight in table.weights.get((source, target), {}).items():
                if (source, label) in row:
                    entries[row[source, label], to_label] = weight
                else:
                    unknown.append(label)
        if not entries:
            pairs = ", ".join(f"{ours} → {theirs}" for ours, theirs in sorted(table.weights))
            raise InputError(
                f"{table.uri}: expected labels of {', '.join(sources)} mapped to {target}, found {pairs}; "
                "reconcile these taxonomies, or correct the target"
            )
        labels = tuple(sorted({label for _, label in entries}))
        column = {label: place for place, label in enumerate(labels)}
        rows, columns = [i for i, _ in entries], [column[label] for _, label in entries]
        values = np.array(list(entries.values()), dtype=np.float32)
        weights = sparse.csc_array((values, (rows, columns)), shape=(len(row), len(labels)))
        return cls(labels, weights, tuple(sorted(set(unknown))))

    def __call__(self, scores: NDArray[np.floating]) -> Scores:
        """(rows, source labels) scores → (rows, labels)."""
        translated = np.empty((len(scores), len(self.labels)), dtype=np.float32)
        rows = max(_PRODUCTS // self.weights.nnz, 1)
        for start in range(0, len(scores), rows):
            block = np.asarray(scores[start : start + rows], dtype=np.float32)
            products = block[:, self.weights.indices] * self.weights.data
            np.maximum.reduceat(products, self.weights.indptr[:-1], axis=1, out=translated[start : start + rows])
        return translated
