"""Guards `predict` as its user meets it: the same labels from documents and from a table, and what it refuses."""

import numpy as np
import pytest

from genre_ray.commands import predict
from genre_ray.commands.predict import PredictConfiguration
from genre_ray.errors import ConfigurationError
from genre_ray.storage import tables
from genre_ray.truth.run_file import read_run

COLUMNS = ["recording_id", "submission", "taxonomy", "labels", "all_scores", "model_id"]


def rows(output):
    found = tables.dataset(f"{output}/predictions").to_table(columns=COLUMNS)
    return found.sort_by("recording_id").to_pylist()


@pytest.fixture
def run(job, joined, tmp_path):
    """`run(*argv)`: predict with the joined bundle into the test's own folder; (exit code, log)."""

    def run(*argv):
        return job(
            predict, PredictConfiguration, "--bundle", str(joined.output / "bundle"), "--output", str(tmp_path), *argv
        )

    return run


def test_documents_get_the_labels_of_their_features(run, joined, sample, tmp_path):
    documents = str(sample / "emotify" / "documents.tar.zst")
    code, log = run("--inputs", documents, "--target", "folder", "--all-scores", "--run-tsv")
    assert code == 0, log
    found, expected = rows(tmp_path), rows(joined.output / "predictions")
    # Scores may differ in the last digit, since batches have other sizes.
    scores, expected_scores = ([row.pop("all_scores") for row in table] for table in (found, expected))
    assert found == expected
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)
    assert len(found) == 144
    labels = {row["recording_id"]: set(row["labels"]) for row in found}
    stated = read_run(str(tmp_path / "run.tsv"), vocabulary=set().union(*labels.values()), recording_ids=labels)
    assert {recording: set(given) for recording, given in stated.items()} == labels


def test_a_finished_run_is_joined_and_another_is_refused(run, joined, tmp_path):
    argv = ("--features", joined.features, "--limit", "10")
    assert run(*argv)[0] == 0
    assert len(tables.dataset(f"{tmp_path}/predictions").to_table()) == 10
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    code, log = run(*argv, "--resume")
    assert code == 0
    assert "is already complete" in log
    code, log = run(*argv, "--target", "folder", "--resume")
    assert code == 4, log
    assert "settings.target" in log
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before


def test_a_dry_run_writes_nothing(run, joined, tmp_path):
    code, log = run("--features", joined.features, "--dry-run", "--run-tsv")
    assert code == 0, log
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_the_bundle_lacks_is_refused(run, joined, tmp_path):
    code, log = run("--features", joined.features, "--target", "moods")
    assert code == 2
    assert "moods" in log
    assert "folder" in log
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give exactly one of --inputs .* and --features"),
        ({"inputs": ["a"], "features": "f"}, "give exactly one of --inputs .* and --features"),
        ({"features": "f", "mapping": "m"}, "--mapping needs --target"),
    ],
)
def test_catalogs_that_cannot_be_meant(given, message):
    with pytest.raises(ConfigurationError, match=message):
        PredictConfiguration.from_mapping({"bundle": "b", "output": "o", **given})
