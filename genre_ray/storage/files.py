"""A listed file, and the errors for a file that was removed, changed or made inaccessible since."""

from dataclasses import dataclass

from genre_ray.errors import InputError, NotFoundError, StorageError

MISSING = "missing"
"""The version of a listed file that does not exist, such as a broken link."""


@dataclass(frozen=True)
class StoredFile:
    """A listed file or object.

    Attributes:
        uri: its path or `s3://` URI.
        name: its path relative to the listed folder.
        size: size in bytes.
        version: a value that changes with the content: an ETag, a modification time in ns, or the hash of the job
            package that contains the file; `MISSING` if the file does not exist.
    """

    uri: str
    name: str
    size: int
    version: str


def require_version(planned: StoredFile, size: int, version: str) -> None:
    """Check that a file has the size and version that it had when the run was planned.

    Raises:
        InputError: the size or the version differs.
    """
    if (size, version) != (planned.size, planned.version):
        raise changed(
            planned,
            f": expected {planned.size} bytes of version {planned.version}, found {size} bytes of version {version}",
        )


def gone(uri: str) -> NotFoundError:
    """Make the error for a planned input that does not exist any more."""
    return NotFoundError(
        f"{uri}: this input existed when the run was planned and does not exist now. Restore it, on every node if it "
        "is a local file, and run again with --resume; or start a new run with another --output"
    )


def changed(planned: StoredFile, how: str = "") -> InputError:
    """Make the error for an input that changed since the run was planned."""
    return InputError(
        f"{planned.uri} changed since the run was planned{how}; restore it, or start a new run with another --output"
    )


def changed_while_read(uri: str) -> StorageError:
    """Make the error for an object that was overwritten between two reads."""
    return StorageError(f"{uri} was overwritten while it was being read; try again when no other program writes it")


def unusable(uri: str, found: str, *, missing: bool) -> StorageError:
    """Make the error for an operation that a file system or store refused.

    Args:
        uri: the file or object.
        found: the error message, without credentials.
        missing: whether the file does not exist or is not accessible, so that a retry cannot succeed.
    """
    kind = NotFoundError if missing else StorageError
    return kind(f"{uri}: {found}; check that it exists and that this process may use it")
