"""Guards the object store that the s3:// tests stand on: real keys, and conditional puts that are kept."""

import boto3
import botocore.exceptions
import pytest


def _address(uri):
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": f"{key}/object"}


def test_a_second_put_if_absent_is_refused(s3):
    client = boto3.client("s3")
    client.put_object(**_address(s3), Body=b"first", IfNoneMatch="*")

    with pytest.raises(botocore.exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(**_address(s3), Body=b"second", IfNoneMatch="*")

    assert client.get_object(**_address(s3))["Body"].read() == b"first"


def test_a_stranger_is_refused(s3):
    stranger = boto3.client("s3", aws_access_key_id="nobody", aws_secret_access_key="nothing")

    with pytest.raises(botocore.exceptions.ClientError, match=r"InvalidAccessKeyId|AccessDenied"):
        stranger.put_object(**_address(s3), Body=b"")
