"""Guards what starting a job costs: libraries that take long to import are imported where they are needed."""

import json
import subprocess
import sys

import pytest

HEAVY = {"boto3", "matplotlib", "pandas", "ray.data", "ray.train", "sklearn", "torch"}


def imported(module):
    """The heavy ones of what a fresh process has imported with `module`."""
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return HEAVY & {*json.loads(found.stdout)}


@pytest.mark.parametrize("job", ["ingest", "predict", "verify", "erase"])
def test_what_drives_a_job_waits_for_no_library_that_only_workers_need(job):
    assert imported(f"genre_ray.commands.{job}") == set()


def test_what_workers_do_without():
    assert (
        imported("genre_ray.runs.execute, genre_ray.features.essentia.documents, genre_ray.sources.documents.source")
        == set()
    )
    assert imported("genre_ray.predictions.score, genre_ray.bundles.predictor") == {"torch"}
