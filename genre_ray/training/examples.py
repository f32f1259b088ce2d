"""Examples: which rows of a features table are learnt from, with their targets, weight and part.

Features stay where they are; an example refers to them by the row's position in a pinned version of the table. Labels
are small and travel with the examples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from genre_ray.labels.space import label_matrix
from genre_ray.storage import bundles, tables

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Examples:
    """Labelled rows of a features table, in the table's order.

    Attributes:
        labels: the label space, sorted.
        rows: (examples,) positions in the table.
        recording_ids: (examples,) one recording may come several times, once a submission.
        parts: (examples,) `train`, `validation` or `test`.
        label_sets: (examples,) labels within the space.
        weights: (examples,) 1 / submissions of the recording.
    """

    labels: tuple[str, ...]
    rows: Array
    recording_ids: Array
    parts: Array
    label_sets: Array
    weights: Array

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, part: str) -> "Examples":
        """Those of one part."""
        return self.take(np.flatnonzero(self.parts == part))

    def take(self, indices: Array) -> "Examples":
        """Those at `indices`, in that order."""
        return Examples(
            self.labels,
            *(column[indices] for column in (self.rows, self.recording_ids, self.parts, self.label_sets, self.weights)),
        )

    def targets(self) -> Any:
        """(examples, labels), boolean CSR."""
        return label_matrix(self.label_sets, self.labels)

    def per_recording(self) -> pa.Table:
        """What a bundle keeps: each recording once, with its part and labels."""
        _, first = np.unique(self.recording_ids, return_index=True)
        columns = [
            self.recording_ids[first].tolist(),
            self.parts[first].tolist(),
            self.label_sets[first].tolist(),
        ]
        return pa.Table.from_arrays(
            [pa.array(values, kind) for values, kind in zip(columns, bundles.EXAMPLES_SCHEMA.types, strict=True)],
            schema=bundles.EXAMPLES_SCHEMA,
        )


def load_rows(
    features_uri: str, version: int, rows: Array, batch_rows: int = 1024
) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Feature vectors at sorted positions of a table, in that order, as arrays (rows, columns)."""
    start = 0
    for batch in tables.read_batches(features_uri, ["features"], version=version, batch_rows=batch_rows):
        low, high = np.searchsorted(rows, [start, start + batch.num_rows])
        if high > low:
            yield tables.vectors(batch.column("features"))[rows[low:high] - start]
        start += batch.num_rows
