"""This process's ways to the S3 store: boto3's, Arrow's and delta-rs', with the same bounds on waiting and retries.

Credentials come from the usual AWS chain alone, the endpoint from `AWS_ENDPOINT_URL`. boto3 is imported with the first
request: who uses no S3 does not wait for it.
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
"""How delta-rs asks the store, and asks again."""

CONNECTIONS = 32
"""Connections that a process keeps open: more than it reads single files at a time."""


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
    # A session of its own: making clients from boto3's common one is not thread-safe.
    return boto3.Session().client("s3", config=config)


def endpoint() -> str | None:
    """The endpoint named by the environment, when it is not AWS's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@lru_cache(maxsize=1)
def filesystem() -> pafs.S3FileSystem:
    """Arrow's view of the same store."""
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
    """What delta-rs needs to reach the store, from the usual AWS chain.

    Keys that a profile holds are passed on, since delta-rs reads no profiles; keys that expire (roles of a machine or a
    pod) are not: delta-rs fetches and renews them itself.
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
