"""Files and objects under one kind of address: a local path or an `s3://` URI.

Guarantees: a written object is seen whole or not at all; `put_if_absent` has exactly one winner; listings are sorted.
Credentials come from the usual AWS chain alone, the endpoint from `AWS_ENDPOINT_URL`.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

import boto3
import pyarrow as pa
import pyarrow.fs as pafs
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from genre_ray.errors import NotFoundError, StorageError

T = TypeVar("T")

STREAM_BUFFER_BYTES = 8 * 2**20
PUT_ATTEMPTS = 8
TEMPORARY = ".writing-"


@dataclass(frozen=True)
class StoredFile:
    """A file as listed: `name` is relative to what was listed, `version` an ETag or a modification time in ns."""

    uri: str
    name: str
    size: int
    version: str


def is_remote(uri: str) -> bool:
    """Whether `uri` is on an S3 store."""
    return uri.startswith("s3://")


def join(uri: str, *names: str) -> str:
    """`uri` followed by `names`, with single slashes between them."""
    return "/".join([uri.rstrip("/") or "/", *(name.strip("/") for name in names)])


def absolute(uri: str) -> str:
    """`uri` such that processes with another working directory understand it."""
    return uri if is_remote(uri) else os.path.abspath(uri)


def exists(uri: str) -> bool:
    """Whether a file or object of exactly this name is there."""
    return _head(uri) is not None if is_remote(uri) else os.path.isfile(uri)


def read_bytes(uri: str) -> bytes:
    """The whole content.

    Raises:
        StorageError: it is not there or cannot be read.
    """
    if not is_remote(uri):
        return _local(uri, lambda: Path(uri).read_bytes())
    bucket, key = _bucket_and_key(uri)
    return cast(bytes, _remote(uri, lambda: s3_client().get_object(Bucket=bucket, Key=key)["Body"].read()))


def open_stream(uri: str) -> BinaryIO:
    """A sequential reader; on S3 it fetches ranges, so that a connection that is reset costs one range."""
    if not is_remote(uri):
        return _local(uri, lambda: open(uri, "rb"))
    path = "/".join(_bucket_and_key(uri))
    # Unasked, Arrow decompresses what is named .gz, .bz2 or .zst.
    options = {"compression": None, "buffer_size": STREAM_BUFFER_BYTES}
    return cast(BinaryIO, _local(uri, lambda: s3_filesystem().open_input_stream(path, **options)))


def open_seekable(uri: str) -> pa.NativeFile:
    """A reader for formats that start at their end, such as Parquet."""
    if not is_remote(uri):
        return _local(uri, lambda: pa.OSFile(uri, "rb"))
    path = "/".join(_bucket_and_key(uri))
    return _local(uri, lambda: s3_filesystem().open_input_file(path))


def write_bytes(uri: str, data: bytes) -> None:
    """Write, replacing what was there."""
    if is_remote(uri):
        bucket, key = _bucket_and_key(uri)
        _remote(uri, lambda: s3_client().put_object(Bucket=bucket, Key=key, Body=data))
    else:
        _local(uri, lambda: _place(uri, data, os.replace))


def put_if_absent(uri: str, data: bytes) -> bool:
    """Write unless something is there already; of several writers at once exactly one gets True."""
    if not is_remote(uri):
        return _local(uri, lambda: _place(uri, data, os.link))
    bucket, key = _bucket_and_key(uri)
    for _ in range(PUT_ATTEMPTS):
        try:
            s3_client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except ClientError as error:
            if _status(error) == 412:
                return False
            if _status(error) != 409:  # AWS answers so while another writer is at it: ask again
                raise _storage_error(uri, error) from None
        except BotoCoreError as error:
            raise _storage_error(uri, error) from None
        else:
            return True
    raise StorageError(f"{uri}: {PUT_ATTEMPTS} writes collided with those of others; try again")


def delete_folder(uri: str) -> None:
    """Remove everything below a folder or prefix; what is not there needs no removal."""
    if is_remote(uri):
        path = "/".join(_bucket_and_key(uri))
        _local(uri, lambda: s3_filesystem().delete_dir_contents(path, missing_dir_ok=True))
    elif os.path.isdir(uri):
        _local(uri, lambda: shutil.rmtree(uri))


def list_files(uri: str) -> list[StoredFile]:
    """Every file below a folder or prefix, sorted by name; a file lists itself. What is not there lists nothing."""
    listed = _list_remote(uri) if is_remote(uri) else _local(uri, lambda: _list_local(uri))
    return sorted(listed, key=lambda file: file.name)


@lru_cache(maxsize=1)
def s3_client() -> Any:
    """The process's S3 client."""
    # A session of its own: making clients from boto3's common one is not thread-safe.
    return boto3.Session().client("s3", config=Config(retries={"mode": "standard", "max_attempts": 8}))


def s3_endpoint() -> str | None:
    """The endpoint named by the environment, when it is not AWS's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@lru_cache(maxsize=1)
def s3_filesystem() -> pafs.S3FileSystem:
    """Arrow's view of the same store."""
    endpoint = urlsplit(s3_endpoint() or "")
    options: dict[str, Any] = {"retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=8)}
    if endpoint.netloc:
        options |= {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
    return pafs.S3FileSystem(**options)


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key.lstrip("/")


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _storage_error(uri: str, error: Exception) -> StorageError:
    missing = isinstance(error, FileNotFoundError) or (isinstance(error, ClientError) and _status(error) == 404)
    kind = NotFoundError if missing else StorageError
    return kind(f"{uri}: {error}; check that it exists and that this process may use it")


def _remote(uri: str, operation: Callable[[], T]) -> T:
    try:
        return operation()
    except (BotoCoreError, ClientError) as error:
        raise _storage_error(uri, error) from None


def _local(uri: str, operation: Callable[[], T]) -> T:
    try:
        return operation()
    except OSError as error:
        raise _storage_error(uri, error) from None


def _head(uri: str) -> StoredFile | None:
    """The object of exactly this name, if there is one."""
    bucket, key = _bucket_and_key(uri)
    try:
        head = s3_client().head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if _status(error) == 404:
            return None
        raise _storage_error(uri, error) from None
    except BotoCoreError as error:
        raise _storage_error(uri, error) from None
    return StoredFile(uri, key.rpartition("/")[2], head["ContentLength"], head["ETag"].strip('"'))


def _place(path: str, data: bytes, put: Callable[[str, str], None]) -> bool:
    """Write beside `path`, then `put` there in one step; False when that step found `path` taken."""
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=TEMPORARY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        try:
            put(temporary, path)
        except FileExistsError:
            return False
        return True
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _list_local(path: str) -> list[StoredFile]:
    if os.path.isfile(path):
        return [_stored(path, os.path.basename(path))]

    def refuse(error: OSError) -> None:
        # A folder that is passed over in silence would be rows that are lost.
        if not isinstance(error, FileNotFoundError):
            raise error

    return [
        _stored(os.path.join(folder, name), os.path.relpath(os.path.join(folder, name), path))
        for folder, _, names in os.walk(path, onerror=refuse)
        for name in names
        if not name.startswith(TEMPORARY)
    ]


def _stored(path: str, name: str) -> StoredFile:
    try:
        status = os.stat(path)
    except OSError:
        return StoredFile(path, name, 0, "missing")
    return StoredFile(path, name, status.st_size, str(status.st_mtime_ns))


def _list_remote(uri: str) -> list[StoredFile]:
    bucket, key = _bucket_and_key(uri)
    prefix = key if not key or key.endswith("/") else key + "/"

    def below() -> list[StoredFile]:
        return [
            StoredFile(
                f"s3://{bucket}/{item['Key']}",
                item["Key"].removeprefix(prefix),
                item["Size"],
                item["ETag"].strip('"'),
            )
            for page in s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            for item in page.get("Contents", [])
            if not item["Key"].endswith("/")
        ]

    found = _remote(uri, below)
    exact = None if found or key == prefix else _head(uri)
    return [exact] if exact else found
