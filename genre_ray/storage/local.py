"""Local and mounted files. `genre_ray.storage.objects` documents the functions and their guarantees."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyarrow as pa

from genre_ray.credentials import redacted
from genre_ray.errors import InputError, StorageError
from genre_ray.storage.files import MISSING, StoredFile, gone, require_version, unusable

T = TypeVar("T")

TEMPORARY = ".writing-"
"""Prefix of the names of files that are being written. Listings ignore them."""

GONE_OR_CLOSED = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
"""Errors of a file system that a retry cannot fix."""

_JOB_PACKAGE = re.compile(r"/(_ray_pkg_\w+)(?:/|$)")
"""The folder to which Ray unpacks a job package on each node. Its name contains the hash of the package."""


def exists(uri: str) -> bool:
    """See `objects.exists`."""
    return os.path.isfile(uri)


def read_bytes(uri: str) -> bytes:
    """See `objects.read_bytes`."""
    return _run(uri, lambda: Path(uri).read_bytes())


def open_stream(uri: str, planned: StoredFile | None) -> BinaryIO:
    """See `objects.open_stream`."""
    stream = _run(uri, lambda: open(uri, "rb"))  # noqa: SIM115 - the caller closes it
    if planned is not None:
        try:
            require_version(planned, *_size_and_version(uri, os.fstat(stream.fileno())))
        except InputError:
            stream.close()
            raise
    return stream


def require_unchanged(file: StoredFile) -> None:
    """See `objects.require_unchanged`."""
    try:
        status = os.stat(file.uri)
    except OSError:
        raise gone(file.uri) from None
    require_version(file, *_size_and_version(file.uri, status))


def open_seekable(uri: str) -> pa.NativeFile:
    """See `objects.open_seekable`."""
    return _run(uri, lambda: pa.OSFile(uri, "rb"))


def write_bytes(uri: str, data: bytes) -> None:
    """See `objects.write_bytes`."""
    _run(uri, lambda: _place(uri, data, os.replace))


def put_if_absent(uri: str, data: bytes) -> bool:
    """See `objects.put_if_absent`."""
    return _run(uri, lambda: _place(uri, data, os.link))


def require_preconditions(uri: str) -> None:
    """Do nothing: every file system supports this, because a hard link is created only if the name is free."""


def delete_file(uri: str) -> None:
    """Delete a file if it exists."""
    _run(uri, lambda: Path(uri).unlink(missing_ok=True))


def delete_folder(uri: str) -> None:
    """See `objects.delete_folder`."""
    if os.path.isdir(uri):
        _run(uri, lambda: shutil.rmtree(uri))


def modified_s(uri: str) -> float | None:
    """See `objects.modified_s`."""
    try:
        return os.stat(uri).st_mtime
    except FileNotFoundError:
        return None


def scan_files(uri: str) -> Iterator[StoredFile]:
    """See `objects.scan_files`."""
    if os.path.isfile(uri):
        yield _stored(uri, os.path.basename(uri))
        return
    folders = [uri]
    while folders:
        folder = folders.pop()
        for entry in _entries(folder):
            if entry.is_dir():
                # Links to folders are not followed, because they could form a cycle.
                folders += [] if entry.is_symlink() else [entry.path]
            elif not entry.name.startswith(TEMPORARY):
                yield _stored(entry.path, os.path.relpath(entry.path, uri))


def _run(uri: str, operation: Callable[[], T]) -> T:
    try:
        return operation()
    except OSError as error:
        raise _storage_error(uri, error) from None


def _storage_error(uri: str, error: OSError) -> StorageError:
    return unusable(uri, redacted(str(error)), missing=isinstance(error, GONE_OR_CLOSED))


def _place(path: str, data: bytes, put: Callable[[str, str], None]) -> bool:
    """Write a temporary file and `put` it at `path` in one step; return False if `path` exists."""
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


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return
    except OSError as error:
        # Skipping an unreadable folder silently would lose rows.
        raise _storage_error(folder, error) from None


def _stored(path: str, name: str) -> StoredFile:
    try:
        status = os.stat(path)
    except OSError:
        return StoredFile(path, name, 0, MISSING)
    return StoredFile(path, name, *_size_and_version(path, status))


def _size_and_version(path: str, status: os.stat_result) -> tuple[int, str]:
    # Files of a job package have different modification times on every node.
    package = _JOB_PACKAGE.search(os.path.abspath(path))
    return status.st_size, package[1] if package else str(status.st_mtime_ns)
