"""Streams of stored bytes: objects read range by range, and the count of what was read."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, cast

from genre_ray.errors import StorageError

RANGE_BYTES = 8 * 2**20
"""Bytes of one request: a smaller object needs no second one."""


class Range(NamedTuple):
    """Consecutive bytes of an object, and how many bytes all of it has."""

    content: bytes
    object_bytes: int


class Ranges(io.RawIOBase):
    """An object that is read forwards, one range per request.

    Args:
        uri: its address, for messages.
        fetch: returns the range that starts at a position; it retries, and raises if the object changed meanwhile.
    """

    def __init__(self, uri: str, fetch: Callable[[int], Range]) -> None:
        self._uri, self._fetch, self._position = uri, fetch, 0
        # The first range is fetched here, so that opening a missing object fails.
        self._range = fetch(0)
        self._left = memoryview(self._range.content)

    def readable(self) -> bool:
        """As asked by `io.BufferedReader`."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer` as far as the current range goes; 0 at the end of the object.

        Raises:
            StorageError: all attempts failed, or the object is shorter than the store said.
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
    """Bytes that were read from streams."""

    bytes_read: int = 0


_meter: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """Count what is read in this block from streams that are opened in it."""
    meter = Meter()
    token = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(token)


def measured(stream: BinaryIO) -> BinaryIO:
    """The stream itself or, inside of `metered`, one that counts."""
    meter = _meter.get()
    return stream if meter is None else cast(BinaryIO, _Metered(stream, meter))


class _Metered:
    """A stream whose reads are counted."""

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
