"""Guards that a run knows its inputs again wherever it goes on, as a job does that is submitted a second time."""

import bz2
import os
import shutil

import numpy as np

from genre_ray.commands import ingest, train
from genre_ray.features.spec import read_spec
from genre_ray.storage import tables


def test_a_resume_in_another_directory_takes_nothing_twice(job, ray_cluster, sample, tmp_path, monkeypatch):
    for place in ("first", "second"):
        documents = tmp_path / place / "documents"
        shutil.copytree(sample / "acousticbrainz", documents)
        for document in documents.iterdir():
            os.utime(document, ns=(10**18, 10**18))
    output = str(tmp_path / "output")
    argv = ("--inputs", "documents", "--output", output, "--resume")

    monkeypatch.chdir(tmp_path / "first")
    code, log = job(ingest, ingest.IngestConfiguration, *argv)
    assert code == 0, log
    monkeypatch.chdir(tmp_path / "second")
    code, log = job(ingest, ingest.IngestConfiguration, *argv)

    assert code == 0, log
    assert "is already complete" in log
    assert tables.dataset(f"{output}/features").count_rows() == 6


def test_the_published_features_of_fma_are_a_features_table_to_train_on(job, ray_cluster, sample, tmp_path):
    """All 2,000 tracks are rows or rejected rows; the reference is NumPy's own reader of text."""
    output, features = str(tmp_path / "output"), sample / "fma" / "features.csv.bz2"
    argv = ("--inputs", str(features), "--format", "fma", "--output", output, "--set", "execution.rows_per_shard=300")
    code, log = job(ingest, ingest.IngestConfiguration, *argv)
    assert code == 0, log

    with bz2.open(features, "rt") as file:
        expected = np.genfromtxt(file, delimiter=",", skip_header=4, dtype=np.float32)
    complete = np.isfinite(expected).all(axis=1)
    table = tables.dataset(f"{output}/features").to_table().sort_by([("recording_id", "ascending")])
    order = np.argsort([str(int(track)) for track in expected[complete, 0]])
    np.testing.assert_array_equal(tables.vectors(table["features"]), expected[complete, 1:][order])
    rejected = tables.dataset(f"{output}/rejected").to_table()
    assert set(rejected["reason"].to_pylist()) == {"missing_value"}
    assert rejected.num_rows == (~complete).sum() == 10
    assert read_spec(f"{output}/features").kind == "fma-140"

    settings = {"features": f"{output}/features", "taxonomy": "fma", "output": str(tmp_path / "bundle")}
    found = {"ground_truth": str(sample / "fma" / "tracks.csv.bz2"), "dry_run": True}
    assert train.run(train.TrainConfiguration.from_mapping(settings | found)) == 0
