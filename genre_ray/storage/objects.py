"""Files and objects under one kind of address: a local path or an `s3://` URI.

Guarantees: a written object is seen whole or not at all; `put_if_absent` has exactly one winner, who knows it even
when the store's answer was lost; listings are sorted. Throttling, timeouts and resets are tried again, and end in a
`StorageError`. Credentials come from the usual AWS chain alone, the endpoint from `AWS_ENDPOINT_URL`.
"""

import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol

import pyarrow as pa

from genre_ray.storage import local, remote
from genre_ray.storage.files import StoredFile
from genre_ray.storage.streams import measured


class _Store(Protocol):
    """What a kind of address needs; the functions below say what each does."""

    def exists(self, uri: str) -> bool: ...
    def read_bytes(self, uri: str) -> bytes: ...
    def open_stream(self, uri: str, planned: StoredFile | None) -> BinaryIO: ...
    def require_unchanged(self, file: StoredFile) -> None: ...
    def open_seekable(self, uri: str) -> pa.NativeFile: ...
    def write_bytes(self, uri: str, data: bytes) -> None: ...
    def put_if_absent(self, uri: str, data: bytes) -> bool: ...
    def require_preconditions(self, uri: str) -> None: ...
    def delete_file(self, uri: str) -> None: ...
    def delete_folder(self, uri: str) -> None: ...
    def modified_s(self, uri: str) -> float | None: ...
    def scan_files(self, uri: str) -> Iterator[StoredFile]: ...


_LOCAL: _Store = local
_REMOTE: _Store = remote


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
    return _store(uri).exists(uri)


def read_bytes(uri: str) -> bytes:
    """The whole content.

    Raises:
        StorageError: it is not there or cannot be read.
    """
    return _store(uri).read_bytes(uri)


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
    return measured(_store(uri).open_stream(uri, planned))


def require_unchanged(file: StoredFile) -> None:
    """Check that the file at an address is still the planned one.

    Raises:
        InputError: it is another one.
        NotFoundError: it is gone.
        StorageError: the store does not answer.
    """
    _store(file.uri).require_unchanged(file)


def open_seekable(uri: str) -> pa.NativeFile:
    """A reader for formats that start at their end, such as Parquet."""
    return _store(uri).open_seekable(uri)


def write_bytes(uri: str, data: bytes) -> None:
    """Write, replacing what was there."""
    _store(uri).write_bytes(uri, data)


def put_if_absent(uri: str, data: bytes) -> bool:
    """Write unless something is there already; of several writers at once exactly one gets True."""
    return _store(uri).put_if_absent(uri, data)


def require_preconditions(uri: str) -> None:
    """Make sure that the store below `uri` keeps two writers apart, by two writes to `uri` of which one must lose.

    Raises:
        ConfigurationError: it overwrites what it was told not to: two runs could both take one output.
    """
    _store(uri).require_preconditions(uri)


def delete_files(uris: Iterable[str]) -> None:
    """Remove files; what is not there needs no removal."""
    for uri in uris:
        _store(uri).delete_file(uri)


def delete_folder(uri: str) -> None:
    """Remove everything below a folder or prefix; what is not there needs no removal."""
    _store(uri).delete_folder(uri)


def modified_s(uri: str) -> float | None:
    """When a file was written, in seconds since 1970; None when it is not there."""
    return _store(uri).modified_s(uri)


def list_files(uri: str) -> list[StoredFile]:
    """Every file below a folder or prefix, sorted by name; a file lists itself. What is not there lists nothing."""
    return sorted(scan_files(uri), key=lambda file: file.name)


def scan_files(uri: str) -> Iterator[StoredFile]:
    """As `list_files`, but as they are found: in whatever order, and in memory that does not grow with them.

    Raises:
        StorageError: the listing breaks off, so files that were not yielded may exist.
    """
    return _store(uri).scan_files(uri)


def _store(uri: str) -> _Store:
    return _REMOTE if is_remote(uri) else _LOCAL
