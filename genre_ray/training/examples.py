"""Examples: which rows of a features table are learnt from, with their targets, weight and part.

Features stay where they are; an example refers to them by the row's position in a pinned version of the table. Labels
are small and travel with the examples.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from genre_ray.labels.space import label_matrix
from genre_ray.models.outputs import UNKNOWN
from genre_ray.storage import tables
from genre_ray.storage.schemas import EXAMPLES

Array = np.ndarray[Any, np.dtype[Any]]


class Coverage(NamedTuple):
    """How much of a ground truth was found: recordings that it names, and those of them in the features table."""

    stated: int
    found: int

    @property
    def lost(self) -> float:
        """The share that was not found."""
        return 1 - self.found / max(self.stated, 1)


NOT_COUNTED = Coverage(0, 0)


@dataclass(frozen=True)
class Annotations:
    """What one taxonomy says of the examples.

    Attributes:
        labels: (labels,) its own names, sorted.
        columns: (labels,) the column of each of them in the examples' label space.
        label_sets: (examples,) in its own names; empty for a recording that it did not annotate.
        coverage: of its ground truth.
    """

    labels: tuple[str, ...]
    columns: Array
    label_sets: Array
    coverage: Coverage = NOT_COUNTED

    @property
    def annotated(self) -> Array:
        """(examples,) whether it annotated the recording."""
        return np.fromiter(map(bool, self.label_sets), dtype=bool, count=len(self.label_sets))

    def take(self, indices: Array) -> "Annotations":
        """Of the examples at `indices`, in that order."""
        return replace(self, label_sets=self.label_sets[indices])


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
        taxonomies: what each taxonomy says of them, by its name.
        masked: whether a label is unknown where no taxonomy that has it annotated the recording; it is negative there
            otherwise.
        coverage: of a single ground truth's recordings.
    """

    labels: tuple[str, ...]
    rows: Array
    recording_ids: Array
    parts: Array
    label_sets: Array
    weights: Array
    taxonomies: Mapping[str, Annotations] = field(default_factory=dict)
    masked: bool = False
    coverage: Coverage = NOT_COUNTED

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, part: str) -> "Examples":
        """Those of one part."""
        return self.take(np.flatnonzero(self.parts == part))

    def take(self, indices: Array) -> "Examples":
        """Those at `indices`, in that order."""
        return replace(
            self,
            rows=self.rows[indices],
            recording_ids=self.recording_ids[indices],
            parts=self.parts[indices],
            label_sets=self.label_sets[indices],
            weights=self.weights[indices],
            taxonomies={name: annotations.take(indices) for name, annotations in self.taxonomies.items()},
        )

    def targets(self) -> np.ndarray[Any, np.dtype[np.int8]]:
        """(examples, labels): 1 for a label that the recording has, 0 for another, `UNKNOWN` for a masked one."""
        targets: Array = label_matrix(self.label_sets, self.labels).astype(np.int8).toarray()
        if self.masked:
            known = np.zeros(targets.shape, dtype=bool)
            for annotations in self.taxonomies.values():
                known[np.ix_(annotations.annotated, annotations.columns)] = True
            targets[~known] = UNKNOWN
        return targets

    def per_recording(self) -> pa.Table:
        """What a bundle keeps: each recording once for every taxonomy that annotated it, sorted."""
        _, first = np.unique(self.recording_ids, return_index=True)
        each = self.take(first)
        rows = [
            {"recording_id": recording, "taxonomy": taxonomy, "part": part, "labels": labels}
            for taxonomy, annotations in each.taxonomies.items()
            for recording, part, labels in zip(
                each.recording_ids.tolist(), each.parts.tolist(), annotations.label_sets, strict=True
            )
            if labels
        ]
        return pa.Table.from_pylist(rows, EXAMPLES).sort_by([("recording_id", "ascending"), ("taxonomy", "ascending")])


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
