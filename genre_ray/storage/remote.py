"""Objects of an S3 store. `genre_ray.storage.objects` documents the functions and their guarantees."""

import io
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, TypeVar, cast

import pyarrow as pa
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from genre_ray.credentials import redacted
from genre_ray.errors import ConfigurationError, StorageError
from genre_ray.storage import retries, s3
from genre_ray.storage.files import StoredFile, changed, changed_while_read, gone, require_version, unusable
from genre_ray.storage.streams import RANGE_BYTES, Range, Ranges

T = TypeVar("T")

STREAM_BUFFER_BYTES = 2**20
WRITER = "genre-ray-writer"
"""The metadata key by which the writer of a conditional put recognises its own object."""

GONE_OR_CLOSED = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
"""The errors that Arrow raises for the statuses 404 and 403, which a retry cannot fix."""

BROKEN_OFF = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
"""Errors of a response that ended early. boto3 itself retries only requests without a response."""


def exists(uri: str) -> bool:
    """See `objects.exists`."""
    return _head(uri) is not None


def read_bytes(uri: str) -> bytes:
    """See `objects.read_bytes`."""
    bucket, key = _bucket_and_key(uri)
    return cast(bytes, _run(uri, lambda: s3.client().get_object(Bucket=bucket, Key=key)["Body"].read()))


def open_stream(uri: str, planned: StoredFile | None) -> BinaryIO:
    """See `objects.open_stream`."""
    return cast(BinaryIO, io.BufferedReader(Ranges(uri, _range_fetcher(uri, planned)), STREAM_BUFFER_BYTES))


def require_unchanged(file: StoredFile) -> None:
    """See `objects.require_unchanged`."""
    found = _stored(file.uri)
    if found is None:
        raise gone(file.uri)
    require_version(file, found.size, found.version)


def open_seekable(uri: str) -> pa.NativeFile:
    """See `objects.open_seekable`."""
    path = "/".join(_bucket_and_key(uri))
    return _by_arrow(uri, lambda: s3.filesystem().open_input_file(path))


def write_bytes(uri: str, data: bytes) -> None:
    """See `objects.write_bytes`."""
    bucket, key = _bucket_and_key(uri)
    _run(uri, lambda: s3.client().put_object(Bucket=bucket, Key=key, Body=data))


def put_if_absent(uri: str, data: bytes) -> bool:
    """See `objects.put_if_absent`."""
    bucket, key = _bucket_and_key(uri)
    writer = uuid.uuid4().hex
    for _ in retries.attempts(retries.REQUEST_ATTEMPTS):
        try:
            s3.client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*", Metadata={WRITER: writer})
        except ClientError as error:
            if _status(error) == 412:
                # If the response to a successful put was lost, the retry finds our own object.
                head = _head(uri)
                return head is not None and head.get("Metadata", {}).get(WRITER) == writer
            if _status(error) == 501:
                raise _no_preconditions(uri) from None
            if _status(error) != 409:  # AWS returns 409 during a concurrent write; try again
                raise _storage_error(uri, error) from None
        except BotoCoreError as error:
            raise _storage_error(uri, error) from None
        else:
            return True
    raise StorageError(f"{uri}: all {retries.REQUEST_ATTEMPTS} writes conflicted with other writers; try again")


def require_preconditions(uri: str) -> None:
    """See `objects.require_preconditions`."""
    put_if_absent(uri, b"")
    if put_if_absent(uri, b""):
        raise _no_preconditions(uri)


def delete_file(uri: str) -> None:
    """Delete an object if it exists."""
    bucket, key = _bucket_and_key(uri)
    _run(uri, lambda: s3.client().delete_object(Bucket=bucket, Key=key))


def delete_folder(uri: str) -> None:
    """See `objects.delete_folder`."""
    path = "/".join(_bucket_and_key(uri))
    _by_arrow(uri, lambda: s3.filesystem().delete_dir_contents(path, missing_dir_ok=True))


def modified_s(uri: str) -> float | None:
    """See `objects.modified_s`."""
    head = _head(uri)
    return None if head is None else float(head["LastModified"].timestamp())


def scan_files(uri: str) -> Iterator[StoredFile]:
    """See `objects.scan_files`."""
    bucket, key = _bucket_and_key(uri)
    prefix = key if not key or key.endswith("/") else key + "/"
    request = {"Bucket": bucket, "Prefix": prefix}
    is_empty = True
    while request:
        page = _run(uri, partial(s3.client().list_objects_v2, **request))
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):
                is_empty = False
                name = item["Key"].removeprefix(prefix)
                yield StoredFile(f"s3://{bucket}/{item['Key']}", name, item["Size"], item["ETag"].strip('"'))
        more = page.get("NextContinuationToken")
        request = {**request, "ContinuationToken": more} if more else {}
    if is_empty and key != prefix and (exact := _stored(uri)):
        yield exact


def _range_fetcher(uri: str, planned: StoredFile | None) -> Callable[[int], Range]:
    """Return a function that fetches the range of an object from a position on, always of the same version."""
    bucket, key = _bucket_and_key(uri)
    version = None if planned is None else planned.version

    def get(position: int, *, whole: bool = False) -> Range:
        nonlocal version
        request: dict[str, str] = {} if whole else {"Range": f"bytes={position}-{position + RANGE_BYTES - 1}"}
        if version is not None:
            request["IfMatch"] = f'"{version}"'
        answer = s3.client().get_object(Bucket=bucket, Key=key, **request)
        content = answer["Body"].read()
        size = int(answer.get("ContentRange", f"/{len(content)}").rpartition("/")[2])
        found = answer["ETag"].strip('"')
        if planned is not None:
            require_version(planned, size, found)
        elif version is not None and found != version:
            raise changed_while_read(uri)
        version = found
        return Range(content, size)

    def fetch(position: int) -> Range:
        try:
            return retries.retried(partial(get, position), lambda error: isinstance(error, BROKEN_OFF))
        except (BotoCoreError, ClientError) as error:
            status = _status(error) if isinstance(error, ClientError) else 0
            if status == 416 and position == 0:
                # An empty object has no ranges.
                return _run(uri, partial(get, 0, whole=True))
            if status == 412:
                raise (changed_while_read(uri) if planned is None else changed(planned)) from None
            if status == 404 and planned is not None:
                raise gone(uri) from None
            raise _storage_error(uri, error) from None

    return fetch


def _stored(uri: str) -> StoredFile | None:
    """The object with exactly this name, if it exists."""
    head = _head(uri)
    if head is None:
        return None
    return StoredFile(uri, uri.rpartition("/")[2], head["ContentLength"], head["ETag"].strip('"'))


def _head(uri: str) -> dict[str, Any] | None:
    """The metadata of an object, if it exists."""
    bucket, key = _bucket_and_key(uri)
    try:
        return cast(dict[str, Any], s3.client().head_object(Bucket=bucket, Key=key))
    except ClientError as error:
        if _status(error) == 404:
            return None
        raise _storage_error(uri, error) from None
    except BotoCoreError as error:
        raise _storage_error(uri, error) from None


def _run(uri: str, operation: Callable[[], T]) -> T:
    try:
        return retries.retried(operation, lambda error: isinstance(error, BROKEN_OFF))
    except (BotoCoreError, ClientError) as error:
        raise _storage_error(uri, error) from None


def _by_arrow(uri: str, operation: Callable[[], T]) -> T:
    try:
        return operation()
    except OSError as error:
        raise unusable(uri, redacted(str(error)), missing=isinstance(error, GONE_OR_CLOSED)) from None


def _storage_error(uri: str, error: BotoCoreError | ClientError) -> StorageError:
    # A 403 is not treated as permanent, because credentials can expire during a run.
    missing = isinstance(error, ClientError) and _status(error) == 404
    return unusable(uri, redacted(str(error)), missing=missing)


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key.lstrip("/")


def _no_preconditions(uri: str) -> ConfigurationError:
    return ConfigurationError(
        f"{uri}: this store does not support conditional writes (If-None-Match), so two runs could write to the same "
        "output. Use a store that supports them, such as AWS S3 or SeaweedFS"
    )
