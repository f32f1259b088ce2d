"""One interface to local files and to objects of an S3 store, addressed by a path or an `s3://` URI.

Guarantees: readers see a written object completely or not at all. Of several concurrent calls of `put_if_absent`
exactly one returns True, even if the store's response was lost. `list_files` is sorted. Throttling, timeouts and resets
are retried, and raise a StorageError in the end. Credentials come from the usual AWS chain, the endpoint from
`AWS_ENDPOINT_URL`.
"""

import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol

import pyarrow as pa

from genre_ray.storage import local, remote
from genre_ray.storage.files import StoredFile
from genre_ray.storage.streams import measured


class _Store(Protocol):
    """The operations of a kind of store. The functions below document them."""

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
    """Whether `uri` is an `s3://` URI."""
    return uri.startswith("s3://")


def join(uri: str, *names: str) -> str:
    """Join `uri` and `names` with single slashes."""
    return "/".join([uri.rstrip("/") or "/", *(name.strip("/") for name in names)])


def absolute(uri: str, folder: str = "") -> str:
    """Make a path absolute, so that processes with another working directory can use it.

    Args:
        uri: a path or an `s3://` URI, which is returned as it is.
        folder: the folder that a relative path starts from; the working directory if empty.
    """
    return uri if is_remote(uri) else os.path.abspath(os.path.join(folder, uri))


def exists(uri: str) -> bool:
    """Whether a file or object with exactly this name exists."""
    return _store(uri).exists(uri)


def read_bytes(uri: str) -> bytes:
    """Read a whole file.

    Raises:
        StorageError: it does not exist or cannot be read.
    """
    return _store(uri).read_bytes(uri)


def open_stream(uri: str, planned: StoredFile | None = None) -> BinaryIO:
    """Open a file for sequential reading.

    An S3 object is read in ranges, so after a reset connection only one range is requested again. All ranges come from
    the same version of the object, and all read errors are StorageErrors.

    Args:
        uri: the file.
        planned: the file as listed when the run was planned; raise an error if it differs.

    Raises:
        StorageError: it cannot be opened at the moment.
        NotFoundError: it does not exist, or this process may not read it.
        InputError: it differs from `planned`. Reading an S3 object can raise this later too.
    """
    return measured(_store(uri).open_stream(uri, planned))


def require_unchanged(file: StoredFile) -> None:
    """Check that a file is unchanged since it was listed.

    Raises:
        InputError: it changed.
        NotFoundError: it does not exist any more.
        StorageError: the store does not respond.
    """
    _store(file.uri).require_unchanged(file)


def open_seekable(uri: str) -> pa.NativeFile:
    """Open a file for random access, which formats such as Parquet need."""
    return _store(uri).open_seekable(uri)


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file, replacing an existing one."""
    _store(uri).write_bytes(uri, data)


def put_if_absent(uri: str, data: bytes) -> bool:
    """Write a file unless it exists. Of several concurrent writers exactly one gets True."""
    return _store(uri).put_if_absent(uri, data)


def require_preconditions(uri: str) -> None:
    """Check that the store supports `put_if_absent`, by two writes to `uri` of which one must fail.

    Raises:
        ConfigurationError: the store ignores the condition, so two runs could write to the same output.
    """
    _store(uri).require_preconditions(uri)


def delete_files(uris: Iterable[str]) -> None:
    """Delete files. Files that do not exist are ignored."""
    for uri in uris:
        _store(uri).delete_file(uri)


def delete_folder(uri: str) -> None:
    """Delete everything in a folder or under a prefix, if it exists."""
    _store(uri).delete_folder(uri)


def modified_s(uri: str) -> float | None:
    """Return when a file was written, in seconds since 1970; None if it does not exist."""
    return _store(uri).modified_s(uri)


def list_files(uri: str) -> list[StoredFile]:
    """List all files in a folder or under a prefix, including subfolders, sorted by name.

    A file lists itself. The list is empty if nothing exists.
    """
    return sorted(scan_files(uri), key=lambda file: file.name)


def scan_files(uri: str) -> Iterator[StoredFile]:
    """Yield the files of `list_files` in any order, with memory that does not depend on their number.

    Raises:
        StorageError: the listing failed, so there may be more files.
    """
    return _store(uri).scan_files(uri)


def _store(uri: str) -> _Store:
    return _REMOTE if is_remote(uri) else _LOCAL
