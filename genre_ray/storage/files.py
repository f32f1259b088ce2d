"""A file as it was listed, and the errors for one that is gone, changed or closed to this process."""

from dataclasses import dataclass

from genre_ray.errors import InputError, NotFoundError, StorageError

MISSING = "missing"
"""The version of a file that is listed but cannot be found, such as a link to nothing."""


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


def require_version(planned: StoredFile, size: int, version: str) -> None:
    """Check that what was found is the planned file.

    Raises:
        InputError: it has another size or version.
    """
    if (size, version) != (planned.size, planned.version):
        raise changed(
            planned,
            f": expected {planned.size} bytes of version {planned.version}, found {size} bytes of version {version}",
        )


def gone(uri: str) -> NotFoundError:
    """The error for a planned input that cannot be found while the run works."""
    return NotFoundError(
        f"{uri}: this input was listed when the run was planned and cannot be found now. Make it available under this "
        "address on every node, then --resume; or start a new run with another --output"
    )


def changed(planned: StoredFile, how: str = "") -> InputError:
    """The error for a planned input that is another one now."""
    return InputError(
        f"{planned.uri} changed since the run was planned{how}; restore it, or start a new run with another --output"
    )


def changed_while_read(uri: str) -> StorageError:
    """The error for an object that is not the one whose beginning was read."""
    return StorageError(f"{uri} was overwritten while it was read; try again when nobody writes it")


def unusable(uri: str, found: str, *, missing: bool) -> StorageError:
    """The error for an operation that a file system or a store refused.

    Args:
        uri: what it was about.
        found: what was answered, without secrets.
        missing: whether trying again does not change the answer.
    """
    kind = NotFoundError if missing else StorageError
    return kind(f"{uri}: {found}; check that it exists and that this process may use it")
