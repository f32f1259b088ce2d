"""Examples: which rows of a features table are learnt from, with their targets, weight and part.

Features stay where they are; an example refers to them by the row's position in a pinned version of the table. Labels
are small and travel with the examples.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from genre_ray.catalog.ground_truth import GroundTruth
from genre_ray.config import Settings
from genre_ray.errors import ConfigurationError, InputError
from genre_ray.labels.space import label_matrix
from genre_ray.labels.splits import PARTS, GroupBy, group_of, labels_with_enough, part_of
from genre_ray.storage import bundles, tables

logger = logging.getLogger(__name__)

Array = np.ndarray[Any, np.dtype[Any]]


class Split(Settings):
    """How recordings come to their part, and which labels are worth learning."""

    seed: int = Field(0, ge=0, description="of the hash that gives a group its part")
    group_by: GroupBy = Field("release_group", description="what must not be split: release_group or artist")
    fractions: tuple[float, float, float] = Field((0.8, 0.1, 0.1), description="shares of train, validation, test")
    least_train: int = Field(20, ge=1, description="recordings that a label needs in train")
    least_other: int = Field(10, ge=1, description="recordings that a label needs in validation, and in test")

    @field_validator("fractions")
    @classmethod
    def _sum_to_one(cls, fractions: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
            raise ValueError("expected three shares of at least 0 that sum to 1")
        return fractions


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


def make_examples(features_uri: str, version: int, truths: Mapping[str, GroundTruth], split: Split) -> Examples:
    """Join ground truths to the rows of a features table.

    Args:
        features_uri: the table.
        version: its version.
        truths: ground truths by part, or one under the key `all`, which is then split by hash of the group.
        split: settings of the split and of the labels.

    Raises:
        InputError: no recording of the truth is in the table, a recording is in two parts, or no label has enough
            recordings.
    """
    known = _index(truths)
    columns = ["recording_id", "artist_ids", "release_group_id"]
    found: list[tuple[int, str, str, tuple[str, ...]]] = []
    row = 0
    for batch in tables.read_batches(features_uri, columns, version=version, batch_rows=8192):
        for recording, artists, release_group in zip(
            *(batch.column(name).to_pylist() for name in columns), strict=True
        ):
            if recording in known:
                part, truth_group, labels = known[recording]
                group = group_of(recording, truth_group or release_group, artists or (), split.group_by)
                found.append((row, recording, part or part_of(group, split.seed, split.fractions), labels))
            row += 1
    matched = {recording: (part, labels) for _, recording, part, labels in found}
    if not matched:
        raise InputError(
            f"expected recordings of the ground truth in {features_uri}, found none of {len(known)} in its {row} rows; "
            "check that both name recordings by the same ids"
        )
    logger.info("%d of %d recordings of the ground truth are in the table", len(matched), len(known))
    space = labels_with_enough(matched.values(), split.least_train, split.least_other)
    if not space:
        raise InputError(
            f"no label has {split.least_train} recordings in train and {split.least_other} in each other part; "
            f"found {len(matched)} recordings, label them or lower split.least_train and split.least_other"
        )
    examples = _examples(found, space)
    for part in ("train", "validation"):
        if part not in examples.parts:
            raise InputError(
                f"expected recordings in the part {part}, found none; correct split.fractions or the files"
            )
    return examples


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


def _index(truths: Mapping[str, GroundTruth]) -> dict[str, tuple[str | None, str, tuple[str, ...]]]:
    """Recording → (part or None, release group, labels)."""
    known: dict[str, tuple[str | None, str, tuple[str, ...]]] = {}
    for part, truth in truths.items():
        if part not in (*PARTS, "all"):
            raise ConfigurationError(f"unknown part {part!r}; known are {', '.join(PARTS)}")
        for recording, group, labels in zip(truth.recording_ids, truth.release_group_ids, truth.labels, strict=True):
            if recording in known:
                raise InputError(f"{truth.uri}: recording {recording} is in another part too; keep it in one file")
            known[recording] = (None if part == "all" else part, group, labels)
    return known


def _examples(found: Sequence[tuple[int, str, str, tuple[str, ...]]], space: tuple[str, ...]) -> Examples:
    in_space = frozenset(space)
    kept = [
        (row, recording, part, inside)
        for row, recording, part, labels in found
        if (inside := tuple(label for label in labels if label in in_space))
    ]
    submissions = Counter(recording for _, recording, _, _ in kept)
    label_sets = np.empty(len(kept), dtype=object)
    label_sets[:] = [labels for *_, labels in kept]
    return Examples(
        space,
        np.array([row for row, *_ in kept], dtype=np.int64),
        np.array([recording for _, recording, _, _ in kept]),
        np.array([part for _, _, part, _ in kept]),
        label_sets,
        np.array([1 / submissions[recording] for _, recording, _, _ in kept], dtype=np.float32),
    )
