"""Combine the predictions and the truth of recordings to those of release groups or artists.

The probabilities of a group are the means over its recordings: the expected share of them that has the label. The
policy labels groups as it labels recordings. The true labels of a group are all labels that any of its recordings has.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from genre_ray.errors import InputError
from genre_ray.labels.splits import GroupBy, group_of
from genre_ray.predictions.aggregate import average_submissions
from genre_ray.reports.inputs import AllScores, Predictions, Truth
from genre_ray.storage import tables
from genre_ray.truth.identifiers import NO_IDENTIFIERS, Identifiers

Groups = Mapping[str, str]


def read_groups(
    features_uri: str, recording_ids: Collection[str], group_by: GroupBy, identifiers: Identifiers = NO_IDENTIFIERS
) -> Groups:
    """Read the release group or the first artist of each recording from a features table.

    The first submission of a recording is used. A recording without a group, or one that is not in the table, is its
    own group.

    Args:
        features_uri: the features table.
        recording_ids: the recordings to look up.
        group_by: `release_group` or `artist`.
        identifiers: maps the table's ids to recording ids.

    Returns:
        Recording id → group.
    """
    wanted = set(recording_ids)
    found: dict[str, tuple[int, str]] = {}
    columns = ["recording_id", "submission", "artist_ids", "release_group_id"]
    for batch in tables.read_batches(features_uri, columns, batch_rows=8192):
        recordings, *others = batch.columns
        values = zip(*(column.to_pylist() for column in (identifiers.column(recordings), *others)), strict=True)
        for recording, submission, artists, release_group in values:
            if recording in wanted:
                group = group_of(recording, release_group, artists or (), group_by)
                found[recording] = min(found.get(recording, (submission, group)), (submission, group))
    return {recording: found[recording][1] if recording in found else recording for recording in sorted(wanted)}


def roll_up(predictions: Predictions, truth: Truth, groups: Groups, level: GroupBy) -> tuple[Predictions, Truth]:
    """Combine predictions and truth of recordings to those of their groups.

    Args:
        predictions: predictions of recordings, with all scores.
        truth: true labels of recordings. Its training part is not changed.
        groups: the group of every recording of the truth.
        level: the kind of the groups.

    Raises:
        InputError: the predictions do not have the scores of all labels.
    """
    scores = predictions.scores
    if scores is None:
        raise InputError(
            f"{predictions.uri}: the level {level} needs the scores of all labels, which the predictions do not have; "
            "predict again with --all-scores"
        )
    names, means = average_submissions([groups[recording] for recording in predictions.recording_ids], scores.values)
    labels: dict[str, set[str]] = {}
    for recording, label_set in zip(truth.recording_ids, truth.labels, strict=True):
        labels.setdefault(groups[recording], set()).update(label_set)
    answered = replace(
        predictions,
        recording_ids=tuple(names),
        labels=tuple(scores.policy.label_sets(means)),
        abstained=tuple(scores.policy.decide(means).abstained.tolist()),
        scores=AllScores(scores.policy, None, means),
        averaged=0,
        level=level,
    )
    known = replace(
        truth, recording_ids=tuple(sorted(labels)), labels=tuple(tuple(sorted(labels[x])) for x in sorted(labels))
    )
    return answered, known
