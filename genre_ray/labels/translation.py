"""Translate scores from the labels of one taxonomy to those of another, by a mapping table.

The score of a target label is the maximum of score × weight over the labels that are mapped to it. For probabilities,
P(a) · P(b | a) is a lower bound of P(b) for every a, so the maximum is the best bound that a single label gives. The
results stay in [0, 1] and increase with the scores that they are computed from.
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
"""Maximum number of products score × weight in memory at a time."""


@dataclass(frozen=True)
class Translation:
    """A translation from the labels of one or several source taxonomies to those of a target taxonomy.

    Attributes:
        labels: sorted target labels that at least one source label is mapped to, (labels,).
        weights: float32 CSC (source labels, labels), with at least one entry per column.
        unknown: labels in the table that the sources do not have.
    """

    labels: tuple[str, ...]
    weights: Any
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, table: MappingTable, target: str, sources: Mapping[str, Sequence[str]]) -> Self:
        """Make the translation to `target` that a mapping table defines.

        Args:
            table: the mapping table.
            target: the target taxonomy.
            sources: source taxonomy → its labels. The rows of `weights` are all their labels, one taxonomy after
                another.

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
                f"{table.uri}: expected rows that map labels of {', '.join(sources)} to {target}, found {pairs}; "
                "correct --target, or run reconcile for these taxonomies"
            )
        labels = tuple(sorted({label for _, label in entries}))
        column = {label: place for place, label in enumerate(labels)}
        rows, columns = [i for i, _ in entries], [column[label] for _, label in entries]
        values = np.array(list(entries.values()), dtype=np.float32)
        weights = sparse.csc_array((values, (rows, columns)), shape=(len(row), len(labels)))
        return cls(labels, weights, tuple(sorted(set(unknown))))

    def __call__(self, scores: NDArray[np.floating]) -> Scores:
        """Translate scores (rows, source labels) to scores (rows, labels)."""
        translated = np.empty((len(scores), len(self.labels)), dtype=np.float32)
        rows = max(_PRODUCTS // self.weights.nnz, 1)
        for start in range(0, len(scores), rows):
            block = np.asarray(scores[start : start + rows], dtype=np.float32)
            products = block[:, self.weights.indices] * self.weights.data
            np.maximum.reduceat(products, self.weights.indptr[:-1], axis=1, out=translated[start : start + rows])
        return translated
