"""Guards the cluster that every other server test stands on: closed without its token, honest with it."""

import urllib.error
import urllib.request

import pytest


@pytest.mark.parametrize("headers", [{}, {"Authorization": f"Bearer {'0' * 64}"}], ids=["no token", "wrong token"])
def test_a_stranger_is_refused(ray_cluster, headers):
    request = urllib.request.Request(f"{ray_cluster.job_server}/api/jobs/", headers=headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)

    assert refused.value.code in (401, 403)


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
