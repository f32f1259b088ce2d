"""Files and objects under one kind of address: a local path or an `s3://` URI.

Guarantees: a written object is seen whole or not at all; `put_if_absent` has exactly one winner, who knows it even
when the store's answer was lost; listings are sorted. Throttling, timeouts and resets are tried again, and end in a
`StorageError`. Credentials come from the usual AWS chain alone, the endpoint from `AWS_ENDPOINT_URL`.
"""

import io
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
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
from genre_ray.errors import ConfigurationError, InputError, NotFoundError, StorageError
from genre_ray.storage import retries, s3
from genre_ray.storage.streams import RANGE_BYTES, Range, Ranges, measured

T = TypeVar("T")

STREAM_BUFFER_BYTES = 2**20
TEMPORARY = ".writing-"
WRITER = "genre-ray-writer"
"""The metadata key by which the writer of a conditional put knows its own object again."""

GONE_OR_CLOSED = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
"""What a local file answers for good. A store's 403 is not among them: keys expire in the middle of a run."""

MISSING = "missing"
"""The version of a file that is listed but cannot be found, such as a link to nothing."""

_JOB_PACKAGE = re.compile(r"/(_ray_pkg_\w+)(?:/|$)")
"""The folder to which Ray unpacks a job's files on each node, named by the hash of the package."""

BROKEN_OFF = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
"""An answer that began and did not end: boto3 retries what comes before that."""


@dataclass(frozen=True)
class StoredFile:
    """A file as listed.

    Attributes:
        uri: its address.
        name: its path relative to what was listed.
        size: in bytes.
        version: changes with the content: an ETag, a modification time in ns, or the hash of the job package that
            the file is part of; `MISSING` where there was nothing behind the name.
    """

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


def absolute(uri: str, folder: str = "") -> str:
    """`uri` such that processes with another working directory than `folder`, or this one, understand it."""
    return uri if is_remote(uri) else os.path.abspath(os.path.join(folder, uri))


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
    return cast(bytes, _remote(uri, lambda: s3.client().get_object(Bucket=bucket, Key=key)["Body"].read()))


def open_stream(uri: str, planned: StoredFile | None = None) -> BinaryIO:
    """A sequential reader; on S3 it fetches ranges, so that a connection that is reset costs one range.

    On S3 all failures to read are `StorageError`s, and all ranges are of one version of the object.

    Args:
        uri: the file.
        planned: what it must be, as listed when the run was planned.

    Raises:
        StorageError: it cannot be opened just now.
        NotFoundError: it is not there, or closed to this process.
        InputError: it is not the planned one; reading an object may raise this later, too.
    """
    if is_remote(uri):
        ranges = Ranges(uri, _range_fetcher(uri, planned))
        return measured(cast(BinaryIO, io.BufferedReader(ranges, STREAM_BUFFER_BYTES)))
    stream = _local(uri, lambda: open(uri, "rb"))  # noqa: SIM115 - the caller closes it
    if planned is not None:
        try:
            _require_version(planned, *_size_and_version(uri, os.fstat(stream.fileno())))
        except InputError:
            stream.close()
            raise
    return measured(stream)


def require_unchanged(file: StoredFile) -> None:
    """Check that the file at an address is still the planned one.

    Raises:
        InputError: it is another one.
        NotFoundError: it is gone.
        StorageError: the store does not answer.
    """
    if is_remote(file.uri):
        found = _head(file.uri)
        if found is None:
            raise gone(file.uri)
        _require_version(file, found.size, found.version)
    else:
        try:
            status = os.stat(file.uri)
        except OSError:
            raise gone(file.uri) from None
        _require_version(file, *_size_and_version(file.uri, status))


def gone(uri: str) -> NotFoundError:
    """The error for a planned input that cannot be found while the run works."""
    return NotFoundError(
        f"{uri}: this input was listed when the run was planned and cannot be found now. Make it available under this "
        "address on every node, then --resume; or start a new run with another --output"
    )


def open_seekable(uri: str) -> pa.NativeFile:
    """A reader for formats that start at their end, such as Parquet."""
    if not is_remote(uri):
        return _local(uri, lambda: pa.OSFile(uri, "rb"))
    path = "/".join(_bucket_and_key(uri))
    return _local(uri, lambda: s3.filesystem().open_input_file(path))


def write_bytes(uri: str, data: bytes) -> None:
    """Write, replacing what was there."""
    if is_remote(uri):
        bucket, key = _bucket_and_key(uri)
        _remote(uri, lambda: s3.client().put_object(Bucket=bucket, Key=key, Body=data))
    else:
        _local(uri, lambda: _place(uri, data, os.replace))


def put_if_absent(uri: str, data: bytes) -> bool:
    """Write unless something is there already; of several writers at once exactly one gets True."""
    if not is_remote(uri):
        return _local(uri, lambda: _place(uri, data, os.link))
    bucket, key = _bucket_and_key(uri)
    writer = uuid.uuid4().hex
    for _ in retries.attempts(retries.REQUEST_ATTEMPTS):
        try:
            s3.client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*", Metadata={WRITER: writer})
        except ClientError as error:
            if _status(error) == 412:
                # When the answer to a put that succeeded is lost, its retry finds the object: our own.
                return _writer(uri) == writer
            if _status(error) == 501:
                raise _no_preconditions(uri) from None
            if _status(error) != 409:  # AWS answers so while another writer is at it: ask again
                raise _storage_error(uri, error) from None
        except BotoCoreError as error:
            raise _storage_error(uri, error) from None
        else:
            return True
    raise StorageError(f"{uri}: {retries.REQUEST_ATTEMPTS} writes collided with those of others; try again")


def require_preconditions(uri: str) -> None:
    """Make sure that the store below `uri` keeps two writers apart, by two writes to `uri` of which one must lose.

    Raises:
        ConfigurationError: it overwrites what it was told not to: two runs could both take one output.
    """
    if not is_remote(uri):
        return
    put_if_absent(uri, b"")
    if put_if_absent(uri, b""):
        raise _no_preconditions(uri)


def delete_files(uris: Iterable[str]) -> None:
    """Remove files; what is not there needs no removal."""
    for uri in uris:
        if is_remote(uri):
            bucket, key = _bucket_and_key(uri)
            _remote(uri, lambda bucket=bucket, key=key: s3.client().delete_object(Bucket=bucket, Key=key))  # type: ignore[misc]
        else:
            _local(uri, lambda uri=uri: Path(uri).unlink(missing_ok=True))  # type: ignore[misc]


def modified_s(uri: str) -> float | None:
    """When a file was written, in seconds since 1970; None when it is not there."""
    if is_remote(uri):
        head = _head_object(uri)
        return None if head is None else float(head["LastModified"].timestamp())
    try:
        return os.stat(uri).st_mtime
    except FileNotFoundError:
        return None


def delete_folder(uri: str) -> None:
    """Remove everything below a folder or prefix; what is not there needs no removal."""
    if is_remote(uri):
        path = "/".join(_bucket_and_key(uri))
        _local(uri, lambda: s3.filesystem().delete_dir_contents(path, missing_dir_ok=True))
    elif os.path.isdir(uri):
        _local(uri, lambda: shutil.rmtree(uri))


def list_files(uri: str) -> list[StoredFile]:
    """Every file below a folder or prefix, sorted by name; a file lists itself. What is not there lists nothing."""
    return sorted(scan_files(uri), key=lambda file: file.name)


def scan_files(uri: str) -> Iterator[StoredFile]:
    """As `list_files`, but as they are found: in whatever order, and in memory that does not grow with them.

    Raises:
        StorageError: the listing breaks off; what was not told is not missing.
    """
    return _scan_remote(uri) if is_remote(uri) else _scan_local(uri)


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key.lstrip("/")


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _storage_error(uri: str, error: Exception) -> StorageError:
    missing = isinstance(error, GONE_OR_CLOSED) or (isinstance(error, ClientError) and _status(error) == 404)
    kind = NotFoundError if missing else StorageError
    return kind(f"{uri}: {redacted(str(error))}; check that it exists and that this process may use it")


def _no_preconditions(uri: str) -> ConfigurationError:
    return ConfigurationError(
        f"{uri}: expected a store that keeps If-None-Match (a write only where nothing is), found one that ignores it: "
        "two runs could both take one output. Use a store with conditional writes, such as AWS S3 or SeaweedFS"
    )


def _remote(uri: str, operation: Callable[[], T]) -> T:
    try:
        return retries.retried(operation, lambda error: isinstance(error, BROKEN_OFF))
    except (BotoCoreError, ClientError) as error:
        raise _storage_error(uri, error) from None


def _local(uri: str, operation: Callable[[], T]) -> T:
    try:
        return operation()
    except OSError as error:
        raise _storage_error(uri, error) from None


def _range_fetcher(uri: str, planned: StoredFile | None) -> Callable[[int], Range]:
    """A function that returns the range of an object from a position on, always of the same version."""
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
            _require_version(planned, size, found)
        elif version is not None and found != version:
            raise _changed_while_read(uri)
        version = found
        return Range(content, size)

    def fetch(position: int) -> Range:
        try:
            return retries.retried(partial(get, position), lambda error: isinstance(error, BROKEN_OFF))
        except (BotoCoreError, ClientError) as error:
            status = _status(error) if isinstance(error, ClientError) else 0
            if status == 416 and position == 0:
                # An empty object has no range at all.
                return _remote(uri, partial(get, 0, whole=True))
            if status == 412:
                raise (_changed_while_read(uri) if planned is None else _changed(planned)) from None
            if status == 404 and planned is not None:
                raise gone(uri) from None
            raise _storage_error(uri, error) from None

    return fetch


def _require_version(planned: StoredFile, size: int, version: str) -> None:
    if (size, version) != (planned.size, planned.version):
        raise _changed(
            planned,
            f": expected {planned.size} bytes of version {planned.version}, found {size} bytes of version {version}",
        )


def _changed(planned: StoredFile, how: str = "") -> InputError:
    return InputError(
        f"{planned.uri} changed since the run was planned{how}; restore it, or start a new run with another --output"
    )


def _changed_while_read(uri: str) -> StorageError:
    return StorageError(f"{uri} was overwritten while it was read; try again when nobody writes it")


def _size_and_version(path: str, status: os.stat_result) -> tuple[int, str]:
    # Ray gives the files of a job package other modification times on every node.
    package = _JOB_PACKAGE.search(os.path.abspath(path))
    return status.st_size, package[1] if package else str(status.st_mtime_ns)


def _head(uri: str) -> StoredFile | None:
    """The object of exactly this name, if there is one."""
    head = _head_object(uri)
    if head is None:
        return None
    return StoredFile(uri, uri.rpartition("/")[2], head["ContentLength"], head["ETag"].strip('"'))


def _writer(uri: str) -> str | None:
    """Whose conditional put made the object."""
    head = _head_object(uri)
    return None if head is None else head.get("Metadata", {}).get(WRITER)


def _head_object(uri: str) -> dict[str, Any] | None:
    bucket, key = _bucket_and_key(uri)
    try:
        return cast(dict[str, Any], s3.client().head_object(Bucket=bucket, Key=key))
    except ClientError as error:
        if _status(error) == 404:
            return None
        raise _storage_error(uri, error) from None
    except BotoCoreError as error:
        raise _storage_error(uri, error) from None


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


def _scan_local(path: str) -> Iterator[StoredFile]:
    if os.path.isfile(path):
        yield _stored(path, os.path.basename(path))
        return
    folders = [path]
    while folders:
        folder = folders.pop()
        for entry in _entries(folder):
            if entry.is_dir():
                # Links to folders are not followed: they could lead in a circle.
                folders += [] if entry.is_symlink() else [entry.path]
            elif not entry.name.startswith(TEMPORARY):
                yield _stored(entry.path, os.path.relpath(entry.path, path))


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return
    except OSError as error:
        # A folder that is passed over in silence would be rows that are lost.
        raise _storage_error(folder, error) from None


def _stored(path: str, name: str) -> StoredFile:
    try:
        status = os.stat(path)
    except OSError:
        return StoredFile(path, name, 0, MISSING)
    return StoredFile(path, name, *_size_and_version(path, status))


def _scan_remote(uri: str) -> Iterator[StoredFile]:
    bucket, key = _bucket_and_key(uri)
    prefix = key if not key or key.endswith("/") else key + "/"
    request = {"Bucket": bucket, "Prefix": prefix}
    is_empty = True
    while request:
        page = _remote(uri, partial(s3.client().list_objects_v2, **request))
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):
                is_empty = False
                name = item["Key"].removeprefix(prefix)
                yield StoredFile(f"s3://{bucket}/{item['Key']}", name, item["Size"], item["ETag"].strip('"'))
        more = page.get("NextContinuationToken")
        request = {**request, "ContinuationToken": more} if more else {}
    if is_empty and key != prefix and (exact := _head(uri)):
        yield exact
