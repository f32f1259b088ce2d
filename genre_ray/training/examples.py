"""Examples: which rows of features tables are learnt from, with their targets, weight and part.

Features stay where they are: an example refers to them by the row's position in a pinned version of a table. Labels are
small and travel with the examples. Everything is an array, so that processes on a node share it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from genre_ray.labels.splits import PARTS
from genre_ray.models.outputs import UNKNOWN
from genre_ray.runs.tasks import Result
from genre_ray.storage import schemas

Array = np.ndarray[Any, np.dtype[Any]]


RECORDINGS_PER_BATCH = 50_000


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
    """What one taxonomy says of the recordings.

    Attributes:
        labels: (labels,) its own names, sorted.
        columns: (labels,) the column of each of them in the examples' label space.
        matrix: boolean CSR (recordings, labels); no label for a recording that it did not annotate.
        coverage: of its ground truth.
    """

    labels: tuple[str, ...]
    columns: Array
    matrix: Any
    coverage: Coverage = NOT_COUNTED

    @property
    def annotated(self) -> NDArray[np.bool_]:
        """(recordings,) whether it annotated the recording."""
        annotated: NDArray[np.bool_] = np.diff(self.matrix.indptr) > 0
        return annotated


@dataclass(frozen=True)
class Examples:
    """Labelled rows, in the order of the first table that has them.

    Attributes:
        labels: (labels,) the label space, sorted.
        recording_ids: (recordings,) strings, sorted.
        parts: int8 (recordings,) places in `PARTS`.
        matrix: boolean CSR (recordings, labels), the labels of all taxonomies in the label space.
        rows: int64 (tables, examples), positions in each features table; `reading.ABSENT` where it lacks the recording.
        recordings: int32 (examples,) the place of each example's recording, which may have several submissions.
        weights: float32 (examples,) 1 / submissions of the recording.
        taxonomies: what each taxonomy says of the recordings, by its name.
        masked: whether a label is unknown if no taxonomy that has it annotated the recording. It is negative if not.
        soft: by task, float32 (recordings, values), targets that are no labels; NaN for a recording without.
        extractors: how many training examples each extractor made.
        moved: how many recordings taxonomies put in different parts.
        held: where the cluster holds these very examples, so that workers receive them without another copy.
    """

    labels: tuple[str, ...]
    recording_ids: pa.Array
    parts: NDArray[np.int8]
    matrix: Any
    rows: NDArray[np.int64]
    recordings: NDArray[np.int32]
    weights: NDArray[np.float32]
    taxonomies: Mapping[str, Annotations] = field(default_factory=dict)
    masked: bool = False
    soft: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    extractors: Mapping[str, int] = field(default_factory=dict)
    moved: int = 0
    held: "Result[Examples] | None" = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.recordings)

    def of(self, part: str) -> "Examples":
        """Those of one part."""
        return self.take(np.flatnonzero(self.parts[self.recordings] == PARTS.index(part)))

    def take(self, indices: Array | slice) -> "Examples":
        """Those at `indices`, in that order."""
        return replace(
            self,
            rows=self.rows[:, indices],
            recordings=self.recordings[indices],
            weights=self.weights[indices],
            held=None,
        )

    def targets(self) -> NDArray[np.int8]:
        """(examples, labels): 1 for a label that the recording has, 0 for another, `UNKNOWN` for a masked one."""
        targets: NDArray[np.int8] = self.matrix[self.recordings].astype(np.int8).toarray()
        if self.masked:
            known = np.zeros(targets.shape, dtype=bool)
            for annotations in self.taxonomies.values():
                known[np.ix_(annotations.annotated[self.recordings], annotations.columns)] = True
            targets[~known] = UNKNOWN
        return targets

    def count_parts(self) -> dict[str, int]:
        """How many recordings each part has, without empty parts."""
        counts = np.bincount(self.parts, minlength=len(PARTS)).tolist()
        return {part: count for part, count in sorted(zip(PARTS, counts, strict=True)) if count}

    def compact(self) -> "Examples":
        """The same examples without the recordings that none of them is of."""
        kept, places = np.unique(self.recordings, return_inverse=True)
        return replace(
            self,
            held=None,
            recording_ids=self.recording_ids.take(pa.array(kept)),
            parts=self.parts[kept],
            matrix=self.matrix[kept],
            recordings=places.astype(np.int32),
            taxonomies={name: replace(found, matrix=found.matrix[kept]) for name, found in self.taxonomies.items()},
            soft={task: values[kept] for task, values in self.soft.items()},
        )

    def per_recording(self) -> pa.RecordBatchReader:
        """What a bundle keeps, as `schemas.EXAMPLES`: each recording once for every taxonomy that annotated it, sorted.

        A million recordings of four taxonomies take a GiB, so that they are made batch by batch.
        """
        starts = range(0, max(len(self.recording_ids), 1), RECORDINGS_PER_BATCH)
        batches = (self._batch(slice(start, start + RECORDINGS_PER_BATCH)) for start in starts)
        return pa.RecordBatchReader.from_batches(schemas.EXAMPLES, batches)

    def _batch(self, recordings: slice) -> pa.RecordBatch:
        names = sorted(self.taxonomies)
        matrices = [self.taxonomies[name].matrix[recordings] for name in names]
        places = [np.flatnonzero(np.diff(matrix.indptr)) for matrix in matrices]
        rows, taxonomies = np.concatenate(places), np.repeat(np.arange(len(names)), list(map(len, places)))
        order = np.lexsort((taxonomies, rows))
        rows, taxonomies = rows[order], taxonomies[order]
        chosen = [matrix[place] for matrix, place in zip(matrices, places, strict=True)]
        stacked = sparse.block_diag(chosen, format="csr")[order]
        stacked.sort_indices()
        vocabulary = pa.array([label for name in names for label in self.taxonomies[name].labels], pa.string())
        columns = {
            "recording_id": self.recording_ids[recordings].take(pa.array(rows)),
            "taxonomy": pa.array(names, pa.string()).take(pa.array(taxonomies)),
            "part": pa.array(PARTS).take(pa.array(self.parts[recordings][rows])),
            "labels": pa.ListArray.from_arrays(
                pa.array(stacked.indptr, pa.int32()), vocabulary.take(pa.array(stacked.indices))
            ),
            "bundle": pa.nulls(len(rows), pa.string()),
        }
        return pa.RecordBatch.from_pydict(columns, schemas.EXAMPLES)
