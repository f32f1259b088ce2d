"""Guards the cluster that every other server test stands on: closed without its token, honest with it."""

import os
import subprocess
import urllib.error
import urllib.request

import pytest


def _submit(job_server: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["ray", "job", "submit", "--address", job_server, "--", "python", "-c", "print('let in')"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def stranger(tmp_path):
    """The session's environment without any token, and with a home that has none either."""
    hidden = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return kept | {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}


def test_submission_without_a_token_is_refused(ray_cluster, stranger):
    done = _submit(ray_cluster.job_server, stranger)

    assert done.returncode != 0
    assert "AuthenticationError" in done.stdout + done.stderr
    assert "let in" not in done.stdout


def test_submission_with_a_wrong_token_is_refused(ray_cluster, stranger):
    done = _submit(ray_cluster.job_server, stranger | {"RAY_AUTH_TOKEN": "0" * 64})

    assert done.returncode != 0
    assert "authentication token is invalid" in done.stdout + done.stderr
    assert "let in" not in done.stdout


def test_plain_http_is_refused(ray_cluster):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{ray_cluster.job_server}/api/jobs/", timeout=10)

    assert refused.value.code == 401


def test_a_job_passes_and_its_log_comes_through(submit_job):
    done = submit_job("python", "-c", "print('let in')", working_dir=None)

    assert (done.code, done.driver_exit_code, done.status) == (0, 0, "SUCCEEDED")
    assert "let in" in done.log


def test_a_failed_job_keeps_its_exit_code_in_its_info(submit_job):
    done = submit_job("python", "-c", "raise SystemExit(4)", working_dir=None)

    assert (done.code, done.driver_exit_code, done.status) == (1, 4, "FAILED")


def test_workers_reach_the_object_store_that_starts_later(ray_cluster, s3):
    import ray

    @ray.remote
    def write(uri):
        import boto3

        bucket, _, key = uri.removeprefix("s3://").partition("/")
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"from a worker")
        return key

    ray.init(ignore_reinit_error=True)

    assert ray.get(write.remote(f"{s3}/object")) == s3.removeprefix("s3://").split("/", 1)[1] + "/object"


def test_code_of_the_test_process_joins_the_cluster(ray_cluster):
    import ray

    ray.init(ignore_reinit_error=True)

    # Ray puts the machine's own address in place of 127.0.0.1; the port tells the cluster.
    assert ray.get_runtime_context().gcs_address.split(":")[1] == ray_cluster.address.split(":")[1]
    assert ray.cluster_resources()["CPU"] == 2
