"""Guards that a run knows its inputs again wherever it goes on, as a job does that is submitted a second time."""

import os
import shutil

from genre_ray.commands import ingest
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
