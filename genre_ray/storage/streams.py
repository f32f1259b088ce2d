"""Streams of stored bytes: objects read range by range, and the count of what was read."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

import pyarrow as pa

from genre_ray.credentials import redacted
from genre_ray.errors import StorageError
from genre_ray.storage import retries


class Ranges(io.RawIOBase):
    """An object read forwards, range by range; what fails is asked for again, and never just ends."""

    def __init__(self, uri: str, file: pa.NativeFile) -> None:
        self._uri, self._file, self._position, self._size = uri, file, 0, int(file.size())

    def readable(self) -> bool:
        """As asked by `io.BufferedReader`."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer` as far as the object goes.

        Raises:
            StorageError: all attempts failed, or the object became shorter.
        """
        wanted = min(len(buffer), self._size - self._position)
        if not wanted:
            return 0
        try:
            read = partial(self._file.read_at, wanted, self._position)
            data: bytes = retries.retried(read, lambda error: isinstance(error, OSError))
        except OSError as error:
            raise StorageError(f"{self._uri}: {redacted(str(error))}; try again when the store answers") from None
        if not data:
            raise StorageError(f"{self._uri}: expected {self._size} bytes, found {self._position}; try again")
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Let go of the object."""
        self._file.close()
        super().close()


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
