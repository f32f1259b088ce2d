"""Combine the submissions of a recording to one prediction: average their scores, then apply the policy."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from genre_ray.errors import InputError
from genre_ray.predictions.rows import policy_of_table
from genre_ray.storage import tables

Matrix = np.ndarray[Any, np.dtype[np.float32]]


def average_submissions(recording_ids: Sequence[str], scores: Matrix) -> tuple[list[str], Matrix]:
    """Average the scores of each recording's submissions.

    Args:
        recording_ids: the recording of each submission, (submissions,).
        scores: (submissions, labels).

    Returns:
        The sorted recording ids, and their mean scores (recordings, labels).
    """
    recordings, inverse = np.unique(np.asarray(recording_ids, dtype=object), return_inverse=True)
    shares = 1 / np.bincount(inverse)[inverse]
    averaging = csr_array((shares, (inverse, np.arange(len(inverse)))), shape=(len(recordings), len(inverse)))
    return recordings.tolist(), (averaging @ scores).astype(np.float32)


def recording_labels(predictions_uri: str) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield each recording of a predictions table once, with its labels.

    Raises:
        InputError: a recording has several submissions, and the table lacks the scores of all labels.
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
    if "all_scores" not in tables.schema_of(tables.open_table(predictions_uri)).names:
        raise InputError(
            f"{predictions_uri}: {len(several)} recordings have several submissions, which can be combined only if the "
            "scores of all labels are stored; predict again with --all-scores"
        )
    recordings: list[str] = []
    scores: list[Matrix] = []
    for batch in tables.read_batches(predictions_uri, ["recording_id", "all_scores"], batch_rows=8192):
        ids = batch.column("recording_id").to_pylist()
        chosen = np.array([recording in several for recording in ids], dtype=bool)
        scores.append(tables.vectors(batch.column("all_scores"))[chosen])
        recordings.extend(recording for recording in ids if recording in several)
    names, means = average_submissions(recordings, np.concatenate(scores))
    policy = policy_of_table(predictions_uri, means.shape[1])
    yield from zip(names, policy.label_sets(policy.probabilities(means)), strict=True)
