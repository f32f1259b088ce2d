"""How the storage asks delta-rs: its settings for a store, what is tried again, and its errors as ours."""

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
    """What delta-rs needs to reach the table at `uri`."""
    return s3.delta_options() if objects.is_remote(uri) else None


def retried(uri: str, operation: Callable[[], T]) -> T:
    """The result of an operation that may be repeated.

    Raises:
        TableNotFoundError: no table is there.
        StorageError: the store failed for good, or every time.
    """
    try:
        return retries.retried(operation, lambda error: is_transient(uri, error))
    except TableNotFoundError:
        raise
    except (DeltaError, OSError) as error:
        raise storage_error(uri, error) from None


def is_transient(uri: str, error: Exception) -> bool:
    """Whether an operation that ended so may succeed when it is repeated."""
    if not objects.is_remote(uri) or not isinstance(error, DeltaError | OSError):
        return False
    lasting = isinstance(error, TableNotFoundError | DeltaProtocolError | FileNotFoundError)
    return not lasting and not _PERMANENT.search(str(error))


def storage_error(uri: str, error: Exception) -> StorageError:
    """The error of a library as ours, in one line and without secrets."""
    return StorageError(f"{uri}: {one_line(error)}; check that it exists and that this process may use it")


def one_line(error: Exception) -> str:
    """What a library says of an error, in one line of at most 500 characters and without secrets."""
    # delta-rs draws its chain of causes as a coloured tree over many lines.
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|↳", "", redacted(str(error))).split())[:500]
