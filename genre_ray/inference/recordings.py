"""One answer a recording: where a catalog holds several submissions of it, their scores are averaged, then decided."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from genre_ray.decisions.thresholds import decide
from genre_ray.errors import InputError
from genre_ray.storage import tables

Matrix = np.ndarray[Any, np.dtype[np.float32]]


def average_submissions(recording_ids: Sequence[str], scores: Matrix) -> tuple[list[str], Matrix]:
    """The recordings, sorted, and their mean scores (recordings, labels), from scores (submissions, labels)."""
    recordings, inverse = np.unique(np.asarray(recording_ids, dtype=object), return_inverse=True)
    sums = np.zeros((len(recordings), scores.shape[1]))
    np.add.at(sums, inverse, scores)
    return recordings.tolist(), (sums / np.bincount(inverse)[:, None]).astype(np.float32)


def recording_labels(predictions_uri: str) -> Iterator[tuple[str, Sequence[str]]]:
    """Each recording of a predictions table once, with its labels.

    Raises:
        InputError: a recording has several submissions, and the table does not hold all scores.
    """
    counts: Counter[str] = Counter()
    for batch in tables.read_batches(predictions_uri, ["recording_id"], batch_rows=65536):
        counts.update(batch.column("recording_id").to_pylist())
    several = {recording for recording, count in counts.items() if count > 1}
    for batch in tables.read_batches(predictions_uri, ["recording_id", "labels"], batch_rows=8192):
        for recording, labels in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if recording not in several:
                yield recording, labels
    if several:
        yield from _decided_together(predictions_uri, several)


def _decided_together(predictions_uri: str, several: set[str]) -> Iterator[tuple[str, Sequence[str]]]:
    if "all_scores" not in tables.dataset(predictions_uri).schema.names:
        raise InputError(
            f"{predictions_uri}: {len(several)} recordings have several submissions, whose scores are averaged; "
            "expected all scores in the table, found none: predict again with --all-scores"
        )
    metadata = tables.part_metadata(predictions_uri)
    labels, thresholds = (
        json.loads(metadata["labels"]),
        np.array(json.loads(metadata["thresholds"]), dtype=np.float32),
    )
    recordings: list[str] = []
    scores: list[Matrix] = []
    for batch in tables.read_batches(predictions_uri, ["recording_id", "all_scores"], batch_rows=8192):
        chosen = np.array([recording in several for recording in batch.column("recording_id").to_pylist()], dtype=bool)
        scores.append(tables.vectors(batch.column("all_scores"))[chosen])
        recordings.extend(np.array(batch.column("recording_id").to_pylist(), dtype=object)[chosen])
    names, means = average_submissions(recordings, np.concatenate(scores))
    for name, decided in zip(names, decide(means, thresholds), strict=True):
        yield name, [labels[column] for column in np.flatnonzero(decided)]
