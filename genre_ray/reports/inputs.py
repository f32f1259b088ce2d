"""Read the inputs of an evaluation: predictions, one per recording, and the true labels.

Predictions are read batch by batch, and only recordings of the truth are kept in memory. So a small test part can be
evaluated in the predictions of a large catalog.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genre_ray.bundles.examples import own_examples, read_examples
from genre_ray.decisions.policy import Policy
from genre_ray.errors import InputError
from genre_ray.predictions.aggregate import average_submissions
from genre_ray.predictions.rows import policy_of_table
from genre_ray.storage import tables
from genre_ray.truth.ground_truth import read_ground_truth
from genre_ray.truth.identifiers import NO_IDENTIFIERS, Identifiers
from genre_ray.truth.run_file import read_run

LabelSet = tuple[str, ...]


@dataclass(frozen=True)
class AllScores:
    """The scores of all labels, in the order of the predictions' recordings.

    Attributes:
        policy: the policy that turned the scores into labels.
        raw: the model's scores, float32 (recordings, labels); None for groups of recordings.
        values: calibrated and consistent probabilities, float32 (recordings, labels).
    """

    policy: Policy
    raw: NDArray[np.float32] | None
    values: NDArray[np.float32]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the columns, (labels,)."""
        return self.policy.labels


@dataclass(frozen=True)
class Predictions:
    """Predictions of the recordings to evaluate, one per recording.

    Attributes:
        uri: the table or file that they were read from.
        recording_ids: sorted ids without duplicates, (recordings,).
        labels: predicted label sets, (recordings,).
        abstained: whether the policy abstained, (recordings,); None if the predictions do not say.
        scores: the scores of all labels; None if they are not stored.
        unknown: number of other recordings in the table or file.
        averaged: number of recordings with several submissions, whose scores were averaged.
        taxonomy, calibration: as stated by the table; None if it does not say.
        model_ids: sorted ids of the bundles that predicted.
        level: the unit of a prediction: `recording`, `release_group` or `artist`.
    """

    uri: str
    recording_ids: tuple[str, ...]
    labels: tuple[LabelSet, ...]
    abstained: tuple[bool, ...] | None = None
    scores: AllScores | None = None
    unknown: int = 0
    averaged: int = 0
    taxonomy: str | None = None
    calibration: str | None = None
    model_ids: tuple[str, ...] = ()
    level: str = "recording"


@dataclass(frozen=True)
class Truth:
    """The true labels of the recordings to evaluate, and the label sets to fit the baselines to.

    Attributes:
        uri: the file or bundle that they were read from.
        part: part of a bundle's examples; None for a ground truth file.
        recording_ids: (recordings,).
        labels: true label sets, (recordings,).
        training: label sets of the training part, in any order; None if there is no training part.
    """

    uri: str
    part: str | None
    recording_ids: tuple[str, ...]
    labels: tuple[LabelSet, ...]
    training: tuple[LabelSet, ...] | None = None

    def first(self, recordings: int | None) -> Self:
        """Keep the first `recordings` recordings by id, or all if None."""
        if recordings is None:
            return self
        chosen = sorted(zip(self.recording_ids, self.labels, strict=True))[:recordings]
        ids, labels = tuple(item[0] for item in chosen), tuple(item[1] for item in chosen)
        return replace(self, recording_ids=ids, labels=labels)


def truth_of_file(uri: str, identifiers: Identifiers = NO_IDENTIFIERS) -> Truth:
    """Read all recordings of a ground truth file; `identifiers` maps its ids to recording ids."""
    found = identifiers.truth(read_ground_truth(uri))
    return Truth(uri, None, tuple(found.recording_ids), tuple(tuple(labels) for labels in found.labels))


def truth_of_examples(uri: str, part: str, taxonomy: str | None = None) -> Truth:
    """Read the true labels of one part of a bundle's examples.

    Args:
        uri: the bundle.
        part: `train`, `validation` or `test`.
        taxonomy: taxonomy of the labels; may be None if the bundle was trained on one taxonomy.

    Raises:
        InputError: the part has no recordings, the bundle has no such taxonomy, or it has several and none is given.
    """
    examples = own_examples(read_examples(uri))
    taxonomies = sorted(set(examples["taxonomy"].to_pylist()))
    if taxonomy is None and len(taxonomies) == 1:
        taxonomy = taxonomies[0]
    if taxonomy not in taxonomies:
        raise InputError(
            f"{uri}: expected examples of {'one taxonomy' if taxonomy is None else repr(taxonomy)}, found examples of "
            f"{', '.join(taxonomies) or 'no taxonomy'}; set `taxonomy` to one of them"
        )
    examples = examples.filter(pc.equal(examples["taxonomy"], taxonomy))
    parts = np.array(examples["part"].to_pylist(), dtype=str)
    ids, labels = examples["recording_id"].to_pylist(), examples["labels"].to_pylist()
    rows = np.flatnonzero(parts == part)
    if not len(rows):
        raise InputError(
            f"{uri}: expected examples in the part {part}, found {', '.join(sorted(set(parts))) or 'no examples'}; "
            "choose another part, or train with more recordings"
        )
    training = tuple(tuple(labels[row]) for row in np.flatnonzero(parts == "train"))
    chosen = tuple(tuple(labels[row]) for row in rows)
    return Truth(uri, part, tuple(ids[row] for row in rows), chosen, training or None)


def predictions_of_run(
    uri: str, recording_ids: Collection[str], identifiers: Identifiers = NO_IDENTIFIERS
) -> Predictions:
    """Read the predictions of `recording_ids` from a run TSV, which has labels but no scores.

    Raises:
        InputError: two ids of the file stand for one recording.
    """
    stated = read_run(uri)
    run = {identifiers.resolve(name): labels for name, labels in stated.items()}
    if len(run) < len(stated):
        raise InputError(
            f"{uri}: expected one row per recording, found two ids that stand for the same recording; keep one of them"
        )
    found = sorted(set(recording_ids).intersection(run))
    labels = tuple(tuple(run[recording_id]) for recording_id in found)
    return Predictions(uri, tuple(found), labels, unknown=len(run) - len(found))


def predictions_of_table(
    uri: str, recording_ids: Collection[str], identifiers: Identifiers = NO_IDENTIFIERS
) -> Predictions:
    """Read the predictions of `recording_ids` from a predictions table.

    A recording with one submission gets the labels as stored. For a recording with several, the scores are averaged and
    labelled again by the policy in the table's properties.

    Args:
        uri: the predictions table.
        recording_ids: the recordings to read.
        identifiers: maps the table's ids to recording ids.

    Raises:
        InputError: a recording has several submissions but the table lacks the scores of all labels, or the table's
            properties do not fit its scores.
    """
    table = tables.open_table(uri)
    scored, stated = "all_scores" in tables.schema_of(table).names, tables.properties_of(table)
    rows, unknown = _rows(uri, recording_ids, identifiers, scored=scored)
    keys = np.array(rows["recording_id"].to_pylist(), dtype=str)
    ids, starts, counts = np.unique(keys, return_index=True, return_counts=True)
    several = np.flatnonzero(counts > 1)
    if len(several) and not scored:
        raise InputError(
            f"{uri}: recording {ids[several[0]]} has {counts[several[0]]} submissions, which can be combined only if "
            "the scores of all labels are stored; predict again with --all-scores"
        )
    labels = [tuple(labels or ()) for labels in rows["labels"].take(starts).to_pylist()]
    abstained = rows["abstained"].take(starts).to_pylist()
    scores = _all_scores(uri, rows) if scored and len(ids) else None
    if scores is not None:
        together = scores.values[several]
        decided = zip(
            several, scores.policy.label_sets(together), scores.policy.decide(together).abstained, strict=True
        )
        for recording, label_set, unsure in decided:
            labels[recording], abstained[recording] = label_set, bool(unsure)
    return Predictions(
        uri=uri,
        recording_ids=tuple(ids.tolist()),
        labels=tuple(labels),
        abstained=tuple(map(bool, abstained)),
        scores=scores,
        unknown=unknown,
        averaged=len(several),
        taxonomy=stated.get("taxonomy"),
        calibration=stated.get("calibration"),
        model_ids=tuple(sorted(pc.unique(rows["model_id"]).drop_null().to_pylist())),
    )


def _rows(uri: str, recording_ids: Collection[str], identifiers: Identifiers, *, scored: bool) -> tuple[pa.Table, int]:
    """Read the rows of `recording_ids`, sorted by recording and submission, and count the other recordings."""
    columns = ["recording_id", "submission", "labels", "abstained", "model_id", *(["all_scores"] if scored else [])]
    wanted = pa.array(sorted(recording_ids), pa.string())
    kept, others = [], []
    for batch in tables.read_batches(uri, columns):
        recordings = identifiers.column(batch["recording_id"])
        known = pc.is_in(recordings, value_set=wanted)
        kept.append(batch.set_column(0, "recording_id", recordings).filter(known))
        others.append(recordings.filter(pc.invert(known)))
    if not kept:
        raise InputError(f"{uri}: the table of predictions is empty; complete predict first, with --resume")
    unknown = pc.count_distinct(pa.chunked_array(others)).as_py()
    rows = pa.Table.from_batches(kept).sort_by([("recording_id", "ascending"), ("submission", "ascending")])
    return rows, unknown


def _all_scores(uri: str, rows: pa.Table) -> AllScores:
    """The scores averaged over the submissions of each recording, in the order of recording ids."""
    values = tables.vectors(rows["all_scores"])
    policy = policy_of_table(uri, values.shape[1])
    _, means = average_submissions(rows["recording_id"].to_pylist(), values)
    return AllScores(policy, means, policy.probabilities(means))
