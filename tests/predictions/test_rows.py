"""Rows say what the policy decided, and tables say which policy that was."""

import json

import numpy as np
import pyarrow as pa
import pytest

from genre_ray.decisions.calibration import Calibration
from genre_ray.decisions.policy import Policy
from genre_ray.errors import InputError
from genre_ray.predictions.rows import policy_of_table, predictions, predictions_properties
from genre_ray.storage import tables
from genre_ray.storage.schemas import predictions_schema

LABELS = ("electronic", "electronic---ambient", "jazz")
CALIBRATION = Calibration("platt", ("platt",) * 3, np.float32([0.5, 2, 1]), np.float32([0.1, -0.2, 0]))
POLICY = Policy(LABELS, np.float32([0.5, 0.3, 0.6]), CALIBRATION, ((1, 0),), 2, 0.55)
OTHER = Policy(LABELS, np.float32([0.4] * 3), Calibration.none(3))


@pytest.fixture
def scores():
    return np.random.default_rng(0).uniform(0.01, 0.99, (40, 3)).astype(np.float32)


def rows_of(count):
    return pa.table({"recording_id": [f"r{n}" for n in range(count)], "submission": pa.array(range(count), pa.int32())})


def made(policy, scores, *, all_scores=True):
    schema = predictions_schema(all_scores=all_scores)
    return predictions(policy, "folders", "m", rows_of(len(scores)), scores, schema)


@pytest.mark.parametrize("all_scores", [False, True])
def test_rows_hold_calibrated_scores_and_the_models_own(scores, all_scores):
    probabilities = POLICY.probabilities(scores)
    labels, abstained = POLICY.decide(probabilities)
    assert 0 < abstained.sum() < 40
    for n, row in enumerate(made(POLICY, scores, all_scores=all_scores).to_pylist()):
        assert row["labels"] == [LABELS[column] for column in np.flatnonzero(labels[n])] != []
        np.testing.assert_array_equal(np.float32(row["scores"]), probabilities[n][labels[n]])
        assert row["abstained"] == abstained[n]
        assert ("all_scores" in row) == all_scores
        if all_scores:
            np.testing.assert_array_equal(np.float32(row["all_scores"]), scores[n])
        if "electronic---ambient" in row["labels"]:
            assert row["labels"][0] == "electronic"
            assert row["scores"][0] >= row["scores"][1]


def write(uri, rows, properties):
    tables.create_table(uri, rows.schema, properties)
    tables.append(tables.open_table(uri), [tables.Append("run/0", [tables.write_part(uri, "p", rows)])], rows.schema)
    return uri


def test_a_table_says_which_policy_decided_it(tmp_path, scores):
    uri = write(str(tmp_path / "predictions"), made(POLICY, scores), predictions_properties(POLICY, "folders"))
    assert policy_of_table(uri, 3).describe() == POLICY.describe()
    told = tables.properties(uri)
    assert told["calibration"] == "platt"
    assert json.loads(told["thresholds"]) == POLICY.thresholds.tolist()


@pytest.mark.parametrize(
    "changed",
    [
        None,
        {"labels": "[", "thresholds": "[]"},
        {"policy": "{"},
        {"policy": '{"calibration": "beta"}'},
        {"policy": "3"},
    ],
)
def test_properties_that_state_no_policy_are_refused(tmp_path, scores, changed):
    properties = {} if changed is None else {**predictions_properties(OTHER, "folders"), **changed}
    uri = write(str(tmp_path / "predictions"), made(OTHER, scores), properties)
    with pytest.raises(InputError, match=r"expected a policy for 3 labels .*found .*predict again"):
        policy_of_table(uri, 3)
