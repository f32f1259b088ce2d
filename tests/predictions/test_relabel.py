"""Stored scores can be given the labels of another policy, as if that policy had been applied at once."""

import numpy as np
import pyarrow as pa

from genre_ray.decisions.calibration import Calibration
from genre_ray.decisions.policy import Policy
from genre_ray.predictions.relabel import RelabelStage
from genre_ray.predictions.rows import predictions
from genre_ray.storage.schemas import predictions_schema

LABELS = ("electronic", "electronic---ambient", "jazz")
CALIBRATION = Calibration("platt", ("platt",) * 3, np.float32([0.5, 2, 1]), np.float32([0.1, -0.2, 0]))
POLICY = Policy(LABELS, np.float32([0.5, 0.3, 0.6]), CALIBRATION, ((1, 0),), 2, 0.55)
OTHER = Policy(LABELS, np.float32([0.4] * 3), Calibration.none(3))


def rows_of(count):
    return pa.table({"recording_id": [f"r{n}" for n in range(count)], "submission": pa.array(range(count), pa.int32())})


def made(policy, scores):
    schema = predictions_schema(all_scores=True)
    return predictions(policy, "folders", "m", rows_of(len(scores)), scores, schema)


def test_another_policy_decides_stored_scores_as_it_would_have_at_once():
    scores = np.random.default_rng(0).uniform(0.01, 0.99, (40, 3)).astype(np.float32)
    step = RelabelStage(POLICY, "folders", "new")
    relabel = step.open()
    whole = made(OTHER, scores)
    for rows in (whole, pa.concat_tables([whole.slice(0, 1), whole.slice(1)]), whole.select(step.columns)):
        again, rejected = relabel(rows)
        assert rejected.num_rows == 0
        assert again.schema.equals(step.schema, check_metadata=True)
        assert again.drop_columns("model_id").equals(made(POLICY, scores).drop_columns("model_id"))
        assert set(again["model_id"].to_pylist()) == {"new"}
