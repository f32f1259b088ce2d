"""Rows of the predictions table, made of scores by a policy, and the policy of a table read back.

`labels` and `scores` are the policy's: calibrated, consistent, decided. `all_scores` are as the model gave them, so
that another policy can decide them again; the table's properties state the policy that decided these.
"""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from genre_ray.decisions.policy import Policy
from genre_ray.errors import InputError
from genre_ray.outcomes import Outcome, rejections
from genre_ray.runs.stages import Compute, Resources
from genre_ray.storage import tables
from genre_ray.storage.schemas import predictions_schema


def predictions_properties(policy: Policy, taxonomy: str) -> dict[str, str]:
    """What the properties of a predictions table state: all that a reader needs to understand and repeat its labels."""
    described = policy.describe()
    return {
        "labels": json.dumps(policy.labels, ensure_ascii=False),
        "thresholds": json.dumps(described.pop("thresholds")),
        "calibration": policy.calibration.method,
        "policy": json.dumps(described),
        "taxonomy": taxonomy,
    }


def answers(
    policy: Policy, taxonomy: str, model_id: str, rows: pa.Table, scores: NDArray[np.float32], schema: pa.Schema
) -> pa.Table:
    """What the policy answers.

    Args:
        policy: how it decides.
        taxonomy: whose labels it has.
        model_id: the bundle whose model gave the scores.
        rows: `recording_id` and `submission` of each answer.
        scores: finite, (rows, labels), as the model gives them.
        schema: of the table, by `predictions_schema`.
    """
    probabilities = policy.probabilities(scores)
    decided, abstained = policy.decide(probabilities)
    order, count = policy.hierarchy.order, len(scores)
    places, ranks = decided[:, order].nonzero()
    chosen = order[ranks]
    offsets = pa.array(np.concatenate([[0], np.bincount(places, minlength=count).cumsum()]), pa.int32())
    columns = [
        rows.column("recording_id"),
        rows.column("submission"),
        pa.repeat(pa.scalar("recording"), count),
        pa.repeat(pa.scalar(taxonomy), count),
        pa.ListArray.from_arrays(offsets, pa.array(policy.labels, pa.string()).take(pa.array(chosen))),
        pa.ListArray.from_arrays(offsets, pa.array(probabilities[places, chosen], pa.float32())),
        pa.array(abstained, pa.bool_()),
        pa.repeat(pa.scalar(model_id), count),
    ]
    if "all_scores" in schema.names:
        every = pa.array(np.arange(count + 1) * scores.shape[1], pa.int32())
        columns.append(pa.ListArray.from_arrays(every, pa.array(scores.ravel(), pa.float32())))
    return pa.table(columns, names=schema.names).cast(schema)


@dataclass
class Relabel:
    """A stage: rows of a predictions table with all scores → the same rows, decided by another policy.

    Attributes:
        policy: how it decides.
        taxonomy: whose labels the policy has.
        model_id: the bundle that the rows name as their model.
        resources: what a worker of it reserves.
    """

    name = "relabel"
    columns = ("recording_id", "submission", "all_scores")
    """What is read of the table."""

    policy: Policy
    taxonomy: str
    model_id: str
    rows_per_call: int | None = None
    resources: Resources | None = None

    def __post_init__(self) -> None:
        self.schema = predictions_schema(all_scores=True)

    def open(self) -> Compute:
        """There is nothing to load."""
        return self._relabel

    def _relabel(self, rows: pa.Table) -> Outcome:
        scores = tables.vectors(rows.column("all_scores"))
        return Outcome(
            answers(self.policy, self.taxonomy, self.model_id, rows, scores, self.schema),
            rejections([]),
        )


def policy_of_table(predictions_uri: str, width: int) -> Policy:
    """The policy that decided a predictions table, whose rows have `width` scores.

    Raises:
        InputError: the table's properties do not state it, or state it for another number of labels.
    """
    stated = tables.properties(predictions_uri)
    try:
        labels, thresholds = (json.loads(stated[key]) for key in ("labels", "thresholds"))
        if not len(labels) == len(thresholds) == width:
            raise ValueError(f"{len(labels)} labels and {len(thresholds)} thresholds")
        return Policy.of(labels, {**json.loads(stated["policy"]), "thresholds": thresholds})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{predictions_uri}: expected in the properties how each of {width} scores becomes a label, found {error}; "
            "predict again"
        ) from None
