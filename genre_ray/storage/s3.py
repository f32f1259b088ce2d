"""The S3 clients of this process: boto3, Arrow and delta-rs, with the same timeouts and numbers of retries.

Credentials come from the usual AWS chain, the endpoint from `AWS_ENDPOINT_URL`. boto3 is imported with the first
request, because importing it takes time and local jobs do not need it.
"""

import os
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from genre_ray.storage import retries

_REQUESTS = {
    "conditional_put": "etag",
    "max_retries": str(retries.REQUEST_ATTEMPTS - 1),
    "backoff_config.init_backoff": f"{int(1000 * retries.FIRST_PAUSE_S)}ms",
    "backoff_config.max_backoff": f"{int(1000 * retries.LONGEST_PAUSE_S)}ms",
    "connect_timeout": f"{int(retries.CONNECT_TIMEOUT_S)}s",
    "timeout": f"{int(retries.READ_TIMEOUT_S)}s",
}
"""The settings of delta-rs for requests and retries."""

CONNECTIONS = 32
"""Maximum number of open connections of a process. It is larger than the number of files that are read at a time."""


@lru_cache(maxsize=1)
def client() -> Any:
    """The process's S3 client."""
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": retries.REQUEST_ATTEMPTS},
        connect_timeout=retries.CONNECT_TIMEOUT_S,
        read_timeout=retries.READ_TIMEOUT_S,
        max_pool_connections=CONNECTIONS,
    )
    # A separate session, because creating clients from boto3's default session is not thread-safe.
    return boto3.Session().client("s3", config=config)


def endpoint() -> str | None:
    """The endpoint URL in the environment; None for AWS S3."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@lru_cache(maxsize=1)
def filesystem() -> pafs.S3FileSystem:
    """The process's Arrow file system for S3."""
    address = urlsplit(endpoint() or "")
    options: dict[str, Any] = {
        "retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=retries.REQUEST_ATTEMPTS),
        "connect_timeout": retries.CONNECT_TIMEOUT_S,
        "request_timeout": retries.READ_TIMEOUT_S,
    }
    if address.netloc:
        options |= {"endpoint_override": address.netloc, "scheme": address.scheme}
    return pafs.S3FileSystem(**options)


def delta_options() -> dict[str, str]:
    """Return the storage options of delta-rs, with credentials from the usual AWS chain.

    Keys of a profile are included, because delta-rs does not read profiles. Keys that expire (of an instance or pod
    role) are not included, because delta-rs fetches and renews them itself.
    """
    import boto3
    from botocore.credentials import RefreshableCredentials

    session = boto3.Session()
    options = {"AWS_REGION": session.region_name or "us-east-1", **_REQUESTS}
    credentials = session.get_credentials()
    if credentials is not None and not isinstance(credentials, RefreshableCredentials):
        keys = credentials.get_frozen_credentials()
        options |= {"AWS_ACCESS_KEY_ID": keys.access_key or "", "AWS_SECRET_ACCESS_KEY": keys.secret_key or ""}
        if keys.token:
            options["AWS_SESSION_TOKEN"] = keys.token
    if address := endpoint():
        options |= {"AWS_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": str(address.startswith("http:")).lower()}
    return options
