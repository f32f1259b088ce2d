"""Call delta-rs: its storage options, retries, and the conversion of its errors."""

import re
from collections.abc import Callable
from typing import TypeVar

from deltalake.exceptions import DeltaError, DeltaProtocolError, TableNotFoundError

from genre_ray.credentials import redacted
from genre_ray.errors import StorageError
from genre_ray.storage import objects, retries, s3

T = TypeVar("T")

_PERMANENT = re.compile(
    r"\b40[0-57]\b|Forbidden|AccessDenied|Permission|SignatureDoesNotMatch|InvalidAccessKeyId", re.I
)


def options(uri: str) -> dict[str, str] | None:
    """Return the storage options of delta-rs for the table at `uri`."""
    return s3.delta_options() if objects.is_remote(uri) else None


def retried(uri: str, operation: Callable[[], T]) -> T:
    """Run an operation that may be repeated, and retry it after transient errors.

    Raises:
        TableNotFoundError: there is no table.
        StorageError: the error is permanent, or all attempts failed.
    """
    try:
        return retries.retried(operation, lambda error: is_transient(uri, error))
    except TableNotFoundError:
        raise
    except (DeltaError, OSError) as error:
        raise storage_error(uri, error) from None


def is_transient(uri: str, error: Exception) -> bool:
    """Whether an operation that failed with this error may succeed if it is retried."""
    if not objects.is_remote(uri) or not isinstance(error, DeltaError | OSError):
        return False
    lasting = isinstance(error, TableNotFoundError | DeltaProtocolError | FileNotFoundError)
    return not lasting and not _PERMANENT.search(str(error))


def storage_error(uri: str, error: Exception) -> StorageError:
    """Convert the error of a library to a StorageError, on one line and without credentials."""
    return StorageError(f"{uri}: {one_line(error)}; check that it exists and that this process may use it")


def one_line(error: Exception) -> str:
    """Return the message of an error on one line of at most 500 characters, without credentials."""
    # delta-rs prints the chain of causes as a coloured tree over many lines.
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|↳", "", redacted(str(error))).split())[:500]
