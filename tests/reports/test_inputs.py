"""Predictions become one answer a recording: submissions are averaged before thresholds, never after."""

import json

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from genre_ray.bundles.files import write_bundle
from genre_ray.decisions.thresholds import NO_THRESHOLD
from genre_ray.errors import InputError
from genre_ray.reports.inputs import (
    Truth,
    predictions_of_run,
    predictions_of_table,
    truth_of_examples,
    truth_of_file,
)
from genre_ray.storage import tables
from genre_ray.storage.schemas import EXAMPLES as EXAMPLES_SCHEMA
from genre_ray.storage.schemas import predictions_schema
from genre_ray.truth.identifiers import Identifiers
from tests.manifests import make_manifest

LABELS = ["jazz", "rock", "rock---indie"]


@pytest.fixture
def write_predictions(tmp_path):
    def write(rows, *, thresholds=(0.5, 0.5, float(NO_THRESHOLD)), labels=LABELS, all_scores=True):
        """`rows` are (recording, submission, labels, all scores)."""
        properties = {
            "labels": json.dumps(labels),
            "thresholds": json.dumps(thresholds),
            "policy": json.dumps({"calibration": None}),
            "taxonomy": "folders",
            "calibration": "none",
        }
        schema = predictions_schema(all_scores=all_scores)
        columns = [
            {
                "recording_id": recording,
                "submission": submission,
                "item_kind": "recording",
                "taxonomy": "folders",
                "labels": given,
                "scores": [1.0] * len(given),
                "abstained": False,
                "model_id": "model",
                **({"all_scores": scores} if all_scores else {}),
            }
            for recording, submission, given, scores in rows
        ]
        uri = str(tmp_path / "predictions")
        tables.create_table(uri, schema, properties)
        part = tables.write_part(uri, "part", pa.Table.from_pylist(columns, schema))
        tables.append(tables.open_table(uri), [tables.Append("run/0", [part])], schema)
        return uri

    return write


def test_one_submission_keeps_its_stored_labels(write_predictions):
    uri = write_predictions([("b", 0, ["rock---indie"], [0.9, 0.8, 0.1]), ("a", 0, [], [0.1, 0.2, 0.3])])
    found = predictions_of_table(uri, {"a", "b"})
    assert found.recording_ids == ("a", "b")
    assert found.labels == ((), ("rock---indie",))
    np.testing.assert_array_equal(found.scores.values, np.float32([[0.1, 0.2, 0.3], [0.9, 0.8, 0.1]]))
    assert (found.taxonomy, found.calibration, found.model_ids, found.averaged) == ("folders", "none", ("model",), 0)


def test_several_submissions_are_averaged_before_thresholds(write_predictions):
    # Each submission alone would be decided as jazz or as rock; their mean passes only jazz's threshold.
    uri = write_predictions(
        [("a", 1, ["rock"], [0.45, 0.6, 1.0]), ("b", 0, ["rock"], [0, 1, 0]), ("a", 0, ["jazz"], [0.9, 0.1, 1.0])]
    )
    found = predictions_of_table(uri, {"a", "b"})
    assert found.labels == (("jazz",), ("rock",))
    np.testing.assert_allclose(found.scores.values[0], [0.675, 0.35, 1.0], rtol=1e-6)
    assert found.averaged == 1


def test_several_submissions_without_their_scores_are_refused(write_predictions):
    uri = write_predictions([("a", 0, ["rock"], None), ("a", 1, ["jazz"], None)], all_scores=False)
    with pytest.raises(InputError, match=r"recording a has 2 submissions.*predict again with --all-scores"):
        predictions_of_table(uri, {"a"})


def test_several_submissions_of_other_recordings_do_not_matter(write_predictions):
    uri = write_predictions(
        [("a", 0, ["rock"], None), ("b", 0, ["jazz"], None), ("b", 1, ["jazz"], None)], all_scores=False
    )
    found = predictions_of_table(uri, {"a", "missing"})
    assert (found.recording_ids, found.labels, found.unknown) == (("a",), (("rock",),), 1)
    assert found.scores is None


def test_no_recording_of_the_truth_leaves_no_rows(write_predictions):
    found = predictions_of_table(write_predictions([("a", 0, ["rock"], [0, 1, 0])]), {"z"})
    assert (found.recording_ids, found.scores, found.unknown) == ((), None, 1)


def test_properties_that_do_not_fit_the_scores_are_refused(write_predictions):
    uri = write_predictions([("a", 0, ["rock"], [0.1, 0.2])])
    with pytest.raises(InputError, match=r"expected a policy for 2 labels .*found 3 labels and 3 thresholds"):
        predictions_of_table(uri, {"a"})


def test_empty_table_is_refused(tmp_path):
    uri = str(tmp_path / "predictions")
    write_deltalake(uri, predictions_schema(all_scores=False).empty_table())
    with pytest.raises(InputError, match="table of predictions is empty"):
        predictions_of_table(uri, {"a"})


def test_examples_give_the_part_and_the_training_label_sets(tmp_path):
    examples = pa.table(
        {
            "recording_id": ["a", "b", "c"],
            "taxonomy": ["folders"] * 3,
            "part": ["test", "train", "test"],
            "labels": [["rock"], ["jazz"], ["jazz", "rock"]],
            "bundle": [None] * 3,
        },
        EXAMPLES_SCHEMA,
    )
    uri = str(tmp_path / "bundle")
    write_bundle(uri, make_manifest(), {"w": np.zeros(1, np.float32)}, examples, "card")
    expected = Truth(uri, "test", ("a", "c"), (("rock",), ("jazz", "rock")), (("jazz",),))
    assert truth_of_examples(uri, "test") == expected
    assert expected.first(1).recording_ids == ("a",)
    assert expected.first(None) is expected
    with pytest.raises(InputError, match=r"expected examples in the part validation, found test, train"):
        truth_of_examples(uri, "validation")


def test_examples_of_several_taxonomies_are_those_of_the_one_that_is_asked_for(tmp_path):
    examples = pa.table(
        {
            "recording_id": ["a", "a", "b", "c"],
            "taxonomy": ["spelt", "squashed", "spelt", "squashed"],
            "part": ["test", "test", "train", "train"],
            "labels": [["Hip Hop"], ["hiphop"], ["jazz"], ["soul"]],
            "bundle": [None] * 4,
        },
        EXAMPLES_SCHEMA,
    )
    uri = str(tmp_path / "bundle")
    write_bundle(uri, make_manifest(), {"w": np.zeros(1, np.float32)}, examples, "card")
    assert truth_of_examples(uri, "test", "spelt") == Truth(uri, "test", ("a",), (("Hip Hop",),), (("jazz",),))
    assert truth_of_examples(uri, "test", "squashed") == Truth(uri, "test", ("a",), (("hiphop",),), (("soul",),))
    with pytest.raises(InputError, match="expected examples of one taxonomy, found examples of spelt, squashed; set"):
        truth_of_examples(uri, "test")
    with pytest.raises(InputError, match="expected examples of 'folders', found examples of spelt, squashed; set"):
        truth_of_examples(uri, "test", "folders")


def test_files_of_the_task(tmp_path):
    truth, run = tmp_path / "truth.tsv", tmp_path / "run.tsv"
    truth.write_text("recordingmbid\treleasegroupmbid\tgenre1\tgenre2\na\tg\tjazz\t\nb\tg\trock\trock---indie\n")
    run.write_text("c\trock\nb\trock\n")
    assert truth_of_file(str(truth)) == Truth(str(truth), None, ("a", "b"), (("jazz",), ("rock", "rock---indie")))
    found = predictions_of_run(str(run), {"a", "b"})
    assert (found.recording_ids, found.labels, found.unknown) == (("b",), (("rock",),), 1)


def test_recordings_are_found_under_all_their_names(write_predictions, tmp_path):
    identifiers = Identifiers({"old": "new", "song": "new"})
    uri = write_predictions(
        [
            ("old", 0, ["jazz"], [0.8, 0.2, 0.0]),
            ("new", 0, ["rock"], [0.4, 0.8, 0.0]),
            ("other", 0, [], [1, 0, 0]),
        ]
    )
    found = predictions_of_table(uri, ["new"], identifiers)
    # Both rows are submissions of one recording: their scores are averaged.
    assert (found.recording_ids, found.labels) == (("new",), (("jazz", "rock"),))
    assert (found.averaged, found.unknown) == (1, 1)
    truth = tmp_path / "truth.tsv"
    truth.write_text("recordingmbid\treleasegroupmbid\tgenre1\nsong\t\tjazz\n")
    assert truth_of_file(str(truth), identifiers).recording_ids == ("new",)
    run = tmp_path / "run.tsv"
    run.write_text("old\tjazz\n")
    assert predictions_of_run(str(run), ["new"], identifiers).recording_ids == ("new",)
    run.write_text("old\tjazz\nnew\trock\n")
    with pytest.raises(InputError, match="expected one row per recording"):
        predictions_of_run(str(run), ["new"], identifiers)
