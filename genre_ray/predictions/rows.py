"""Make rows of the predictions table from scores and a policy, and read the policy of a table.

The columns `labels` and `scores` are the result of applying the policy to the model's scores. The column `all_scores`
contains the model's own scores, so another policy can be applied to them later. The table's properties contain the
policy.
"""

import json

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from genre_ray.config import first_error
from genre_ray.decisions.policy import Policy, PolicyDescription
from genre_ray.errors import InputError
from genre_ray.storage import tables


def predictions_properties(policy: Policy, taxonomy: str) -> dict[str, str]:
    """The Delta properties of a predictions table: its labels, its policy and its taxonomy."""
    described = policy.describe()
    return {
        "labels": json.dumps(policy.labels, ensure_ascii=False),
        "thresholds": json.dumps(described.thresholds),
        "calibration": policy.calibration.method,
        "policy": described.model_dump_json(exclude={"thresholds"}),
        "taxonomy": taxonomy,
    }


def predictions(
    policy: Policy, taxonomy: str, model_id: str, rows: pa.Table, scores: NDArray[np.float32], schema: pa.Schema
) -> pa.Table:
    """Make rows of the predictions table.

    Args:
        policy: the policy to apply.
        taxonomy: taxonomy of the policy's labels.
        model_id: id of the bundle that computed the scores.
        rows: `recording_id` and `submission` of each row.
        scores: the model's scores, finite, (rows, labels).
        schema: schema of the table, from `predictions_schema`.
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


def policy_of_table(predictions_uri: str, width: int) -> Policy:
    """Read the policy of a predictions table whose rows have `width` scores.

    Raises:
        InputError: the table's properties have no policy, or one for another number of labels.
    """
    stated = tables.properties(predictions_uri)
    try:
        labels, thresholds = (json.loads(stated[key]) for key in ("labels", "thresholds"))
        if not len(labels) == len(thresholds) == width:
            raise ValueError(f"{len(labels)} labels and {len(thresholds)} thresholds")
        described = {**json.loads(stated["policy"]), "thresholds": thresholds}
        return Policy.of(labels, PolicyDescription.model_validate(described))
    except (KeyError, TypeError, ValueError) as error:
        found = first_error(error) if isinstance(error, ValidationError) else error
        raise InputError(
            f"{predictions_uri}: expected a policy for {width} labels in the table's properties, found {found}; "
            "predict again"
        ) from None
