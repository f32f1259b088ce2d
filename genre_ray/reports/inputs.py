"""What an evaluation compares: predictions, one answer a recording, and the truth of one part.

Predictions are read batch by batch and only recordings of the truth are kept, so that a small test part can
be evaluated in the predictions of a large catalog.
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
        policy: what decided them.
        raw: float32 (recordings, labels), as the model gave them; None for groups of recordings.
        values: float32 (recordings, labels), calibrated and consistent.
    """

    policy: Policy
    raw: NDArray[np.float32] | None
    values: NDArray[np.float32]

    @property
    def labels(self) -> tuple[str, ...]:
        """(labels,) in the target's order."""
        return self.policy.labels


@dataclass(frozen=True)
class Predictions:
    """One answer a recording.

    Attributes:
        uri: where they were read.
        recording_ids: (recordings,) sorted, each once, all of them asked for.
        labels: (recordings,) label sets.
        abstained: (recordings,) whether the answer is not to be relied on; None where that is not said.
        scores: of all labels, where they are stored.
        unknown: number of further recordings that were not asked for.
        averaged: number of recordings whose answer is of several submissions.
        level: what an answer is about: `recording`, `release_group` or `artist`.
        taxonomy, calibration: as the predictions say, None when they do not.
        model_ids: the bundles that predicted, sorted.
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
    """The true labels of the recordings to evaluate, and the label sets that baselines may learn from.

    Attributes:
        uri: where it was read.
        part: of the examples; None for a whole ground truth.
        recording_ids: (recordings,).
        labels: (recordings,) label sets.
        training: label sets of the training part, in any order; None when the truth has no training part of its own.
    """

    uri: str
    part: str | None
    recording_ids: tuple[str, ...]
    labels: tuple[LabelSet, ...]
    training: tuple[LabelSet, ...] | None = None

    def first(self, recordings: int | None) -> Self:
        """The first so many recordings in order of their ids; all when None."""
        if recordings is None:
            return self
        chosen = sorted(zip(self.recording_ids, self.labels, strict=True))[:recordings]
        ids, labels = tuple(item[0] for item in chosen), tuple(item[1] for item in chosen)
        return replace(self, recording_ids=ids, labels=labels)


def truth_of_file(uri: str, identifiers: Identifiers = NO_IDENTIFIERS) -> Truth:
    """A whole ground truth file as the truth, by the recordings that its ids stand for."""
    found = identifiers.truth(read_ground_truth(uri))
    return Truth(uri, None, tuple(found.recording_ids), tuple(tuple(labels) for labels in found.labels))


def truth_of_examples(uri: str, part: str, taxonomy: str | None = None) -> Truth:
    """The examples of one part of a bundle as the truth.

    Args:
        uri: the bundle.
        part: `train`, `validation` or `test`.
        taxonomy: whose labels; may be left out where the bundle has learnt from one taxonomy only.

    Raises:
        InputError: no recording of the taxonomy is in that part, or it is not said which taxonomy of several.
    """
    examples = own_examples(read_examples(uri))
    taxonomies = sorted(set(examples["taxonomy"].to_pylist()))
    if taxonomy is None and len(taxonomies) == 1:
        taxonomy = taxonomies[0]
    if taxonomy not in taxonomies:
        raise InputError(
            f"{uri}: expected examples of {'one taxonomy' if taxonomy is None else repr(taxonomy)}, found those of "
            f"{', '.join(taxonomies) or 'none'}; name one of them as the taxonomy of the evaluation"
        )
    examples = examples.filter(pc.equal(examples["taxonomy"], taxonomy))
    parts = np.array(examples["part"].to_pylist(), dtype=str)
    ids, labels = examples["recording_id"].to_pylist(), examples["labels"].to_pylist()
    rows = np.flatnonzero(parts == part)
    if not len(rows):
        raise InputError(
            f"{uri}: expected examples of the {part} part, found {', '.join(sorted(set(parts))) or 'none'}; "
            "choose another part or train with more recordings"
        )
    training = tuple(tuple(labels[row]) for row in np.flatnonzero(parts == "train"))
    chosen = tuple(tuple(labels[row]) for row in rows)
    return Truth(uri, part, tuple(ids[row] for row in rows), chosen, training or None)


def predictions_of_run(
    uri: str, recording_ids: Collection[str], identifiers: Identifiers = NO_IDENTIFIERS
) -> Predictions:
    """A run TSV, which has labels only, restricted to `recording_ids`.

    Raises:
        InputError: two of its ids stand for one recording.
    """
    stated = read_run(uri)
    run = {identifiers.resolve(name): labels for name, labels in stated.items()}
    if len(run) < len(stated):
        raise InputError(f"{uri}: expected one row a recording, found more by its other names; keep one of them")
    found = sorted(set(recording_ids).intersection(run))
    labels = tuple(tuple(run[recording_id]) for recording_id in found)
    return Predictions(uri, tuple(found), labels, unknown=len(run) - len(found))


def predictions_of_table(
    uri: str, recording_ids: Collection[str], identifiers: Identifiers = NO_IDENTIFIERS
) -> Predictions:
    """A predictions table, restricted to `recording_ids`, which its ids stand for.

    A recording with one submission has the labels as stored. With several, their scores are averaged and then
    decided by the policy of the table's properties.

    Raises:
        InputError: a recording has several submissions and their scores are not all stored, or the table's
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
            f"{uri}: expected one submission a recording or the scores of all labels, "
            f"found {counts[several[0]]} submissions of {ids[several[0]]} and no such scores; "
            "predict again with all_scores"
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
    """The rows of `recording_ids`, sorted by recording and submission, and the number of other recordings."""
    columns = ["recording_id", "submission", "labels", "abstained", "model_id", *(["all_scores"] if scored else [])]
    wanted = pa.array(sorted(recording_ids), pa.string())
    kept, others = [], []
    for batch in tables.read_batches(uri, columns):
        recordings = identifiers.column(batch["recording_id"])
        known = pc.is_in(recordings, value_set=wanted)
        kept.append(batch.set_column(0, "recording_id", recordings).filter(known))
        others.append(recordings.filter(pc.invert(known)))
    if not kept:
        raise InputError(f"{uri}: expected predictions, found an empty table; run predict to its end first")
    unknown = pc.count_distinct(pa.chunked_array(others)).as_py()
    rows = pa.Table.from_batches(kept).sort_by([("recording_id", "ascending"), ("submission", "ascending")])
    return rows, unknown


def _all_scores(uri: str, rows: pa.Table) -> AllScores:
    """Scores averaged over the submissions of a recording, in order of the recordings' ids."""
    values = tables.vectors(rows["all_scores"])
    policy = policy_of_table(uri, values.shape[1])
    _, means = average_submissions(rows["recording_id"].to_pylist(), values)
    return AllScores(policy, means, policy.probabilities(means))
