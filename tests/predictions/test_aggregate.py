"""Submissions of a recording are averaged before they are decided on, the same way wherever that is done."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_ray.decisions.thresholds import NO_THRESHOLD, decide
from genre_ray.errors import InputError
from genre_ray.predictions.aggregate import average_submissions, recording_labels
from genre_ray.predictions.rows import policy_of_table
from genre_ray.reports.inputs import predictions_of_table
from genre_ray.storage import tables
from genre_ray.storage.schemas import predictions_schema

LABELS = ["jazz", "rock", "rock---indie"]
THRESHOLDS = [0.5, 0.4, 0.7]


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30), st.integers(0, 99))
def test_average_equals_a_mean_for_each_recording(ids, seed):
    scores = np.random.default_rng(seed).random((len(ids), 3), dtype=np.float32)
    recordings, means = average_submissions(ids, scores)
    assert recordings == sorted(set(ids))
    assert means.dtype == np.float32
    for recording, mean in zip(recordings, means, strict=True):
        own = scores[[n for n, other in enumerate(ids) if other == recording]]
        np.testing.assert_allclose(mean, own.astype(np.float64).mean(axis=0), rtol=1e-6)
        if len(own) == 1:
            np.testing.assert_array_equal(mean, own[0])


def test_average_of_nothing():
    recordings, means = average_submissions([], np.zeros((0, 3), dtype=np.float32))
    assert (recordings, means.shape) == ([], (0, 3))


@pytest.fixture
def write_predictions(tmp_path):
    def write(ids, scores, *, all_scores=True, thresholds=THRESHOLDS):
        schema = predictions_schema(all_scores=all_scores)
        policy = {"labels": LABELS, "thresholds": thresholds, "policy": {"calibration": None}}
        decided = decide(scores, np.array(THRESHOLDS))
        rows = [
            {
                "recording_id": recording,
                "submission": n,
                "labels": [LABELS[column] for column in np.flatnonzero(decided[n])],
                "scores": scores[n][decided[n]].tolist(),
                "model_id": "m",
                **({"all_scores": scores[n].tolist()} if all_scores else {}),
            }
            for n, recording in enumerate(ids)
        ]
        uri = str(tmp_path / "predictions")
        tables.create_table(uri, schema, {name: json.dumps(value) for name, value in policy.items()})
        parts = [
            tables.write_part(uri, f"p{start}", pa.Table.from_pylist(rows[start : start + 7], schema))
            for start in range(0, len(rows), 7)
        ]
        tables.append(tables.open_table(uri), [tables.Append("run/0", parts)], schema)
        return uri

    return write


@pytest.mark.parametrize("seed", [0, 1])
def test_each_recording_has_one_answer_and_the_report_the_same(write_predictions, seed):
    generator = np.random.default_rng(seed)
    ids = [f"r{n}" for n in generator.integers(0, 12, 30)]
    scores = generator.random((30, 3), dtype=np.float32)
    uri = write_predictions(ids, scores)
    found = list(recording_labels(uri))
    expected = {}
    for recording in set(ids):
        mean = scores[[n for n, other in enumerate(ids) if other == recording]].mean(axis=0, keepdims=True)
        (row,) = decide(mean, np.array(THRESHOLDS))
        expected[recording] = [label for label, chosen in zip(LABELS, row, strict=True) if chosen]
    assert len(found) == len(expected)
    assert {recording: list(labels) for recording, labels in found} == expected
    report = predictions_of_table(uri, set(ids))
    assert {r: list(labels) for r, labels in zip(report.recording_ids, report.labels, strict=True)} == expected


def test_stored_labels_are_enough_where_no_recording_comes_twice(write_predictions):
    scores = np.float32([[0.9, 0.1, 0.1], [0.1, 0.9, 0.9]])
    uri = write_predictions(["b", "a"], scores, all_scores=False)
    assert list(recording_labels(uri)) == [("b", ["jazz"]), ("a", ["rock", "rock---indie"])]


def test_several_submissions_without_all_scores_are_refused(write_predictions):
    uri = write_predictions(["a", "a"], np.ones((2, 3), dtype=np.float32), all_scores=False)
    with pytest.raises(InputError, match=r"1 recordings have several submissions.* predict again with --all-scores"):
        list(recording_labels(uri))


def test_thresholds_of_other_labels_are_refused(write_predictions):
    uri = write_predictions(["a", "a"], np.ones((2, 3), dtype=np.float32), thresholds=[0.5, 0.5])
    with pytest.raises(InputError, match=r"expected a policy for 3 labels .*found 3 labels and 2 thresholds"):
        list(recording_labels(uri))


def test_a_label_without_threshold_is_known_by_null(write_predictions):
    uri = write_predictions(["a"], np.ones((1, 3), dtype=np.float32), thresholds=[0.5, float(NO_THRESHOLD), 0.5])
    assert policy_of_table(uri, 3).thresholds.tolist() == [0.5, NO_THRESHOLD, 0.5]
