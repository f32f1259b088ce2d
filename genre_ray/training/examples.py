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

    def __len__(self) -> int:
        return len(self.recordings)

    def of(self, part: str) -> "Examples":
        """Those of one part."""
        return self.take(np.flatnonzero(self.parts[self.recordings] == PARTS.index(part)))

    def take(self, indices: Array | slice) -> "Examples":
        """Those at `indices`, in that order."""
        return replace(
            self, rows=self.rows[:, indices], recordings=self.recordings[indices], weights=self.weights[indices]
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

    def per_recording(self) -> pa.Table:
        """What a bundle keeps: each recording once for every taxonomy that annotated it, sorted.

        The columns are those of `schemas.EXAMPLES`; strings are dictionaries, since a million recordings of four
        taxonomies would take a GiB without.
        """
        names = sorted(self.taxonomies)
        each = [self.taxonomies[name] for name in names]
        places = [np.flatnonzero(annotations.annotated) for annotations in each]
        recordings, taxonomies = np.concatenate(places), np.repeat(np.arange(len(names)), list(map(len, places)))
        order = np.lexsort((taxonomies, recordings))
        recordings, taxonomies = recordings[order], taxonomies[order]
        stacked = sparse.block_diag(
            [annotations.matrix[place] for annotations, place in zip(each, places, strict=True)], format="csr"
        )[order]
        stacked.sort_indices()
        vocabulary = pa.array([label for annotations in each for label in annotations.labels], pa.string())
        labels = pa.DictionaryArray.from_arrays(pa.array(stacked.indices, pa.int32()), vocabulary)
        return pa.table(
            {
                "recording_id": pa.DictionaryArray.from_arrays(pa.array(recordings, pa.int32()), self.recording_ids),
                "taxonomy": pa.DictionaryArray.from_arrays(pa.array(taxonomies, pa.int32()), pa.array(names)),
                "part": pa.DictionaryArray.from_arrays(pa.array(self.parts[recordings]), pa.array(PARTS)),
                "labels": pa.ListArray.from_arrays(pa.array(stacked.indptr, pa.int32()), labels),
                "bundle": pa.nulls(len(order), pa.string()),
            }
        )
