"""Streams of stored bytes: read objects range by range, and count the bytes."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, cast

from genre_ray.errors import StorageError

RANGE_BYTES = 8 * 2**20
"""Bytes per request. A smaller object needs only one request."""


class Range(NamedTuple):
    """Consecutive bytes of an object, and the size of the whole object."""

    content: bytes
    object_bytes: int


class Ranges(io.RawIOBase):
    """A stream that reads an object forwards, one range per request.

    Args:
        uri: the object, for error messages.
        fetch: returns the range that starts at a position. It retries, and raises an error if the object changed.
    """

    def __init__(self, uri: str, fetch: Callable[[int], Range]) -> None:
        self._uri, self._fetch, self._position = uri, fetch, 0
        # The first range is fetched here, so that opening a missing object fails.
        self._range = fetch(0)
        self._left = memoryview(self._range.content)

    def readable(self) -> bool:
        """Return True, as `io.BufferedReader` requires."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer` from the current range; return the number of bytes, 0 at the end of the object.

        Raises:
            StorageError: all attempts failed, or the object is shorter than the store stated.
        """
        if not self._left and self._position < self._range.object_bytes:
            self._range = self._fetch(self._position)
            self._left = memoryview(self._range.content)
            if not self._left:
                raise StorageError(
                    f"{self._uri}: expected {self._range.object_bytes} bytes, found {self._position}; try again"
                )
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        self._position += count
        return count


@dataclass
class Meter:
    """The number of bytes read from streams."""

    bytes_read: int = 0


_meter: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """Count the bytes read from streams that are opened inside the block."""
    meter = Meter()
    token = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(token)


def measured(stream: BinaryIO) -> BinaryIO:
    """Return the stream, or a stream that counts bytes inside a `metered` block."""
    meter = _meter.get()
    return stream if meter is None else cast(BinaryIO, _Metered(stream, meter))


class _Metered:
    """A stream that counts the bytes read from it."""

    def __init__(self, stream: BinaryIO, meter: Meter) -> None:
        self._stream, self._meter = stream, meter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> "_Metered":
        return self

    def __exit__(self, *ended: object) -> None:
        self._stream.close()

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._meter.bytes_read += len(data)
        return data
