"""Compressed streams, read forwards in chunks: gzip, bzip2 and Zstandard by the name's suffix, or plain.

All of them read on across concatenated streams (frames), and raise EOFError where a stream ends early. No chunk is
larger than `CHUNK_BYTES`, whatever it was compressed from.
"""

import bz2
import gzip
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK_BYTES = 2**21
"""Enough for two dozen documents: while a chunk is decompressed, the interpreter is left to others."""
_READ_BYTES, _FIRST_BYTES = 2**20, 2**16

DAMAGE = (EOFError, OSError, zlib.error, zstd.ZstdError)
"""What a damaged compressed stream raises; EOFError where it ends early."""


class Readable(Protocol):
    """The one thing that is asked of a stream."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; none at the end."""


class _Decompressor(Protocol):
    """What reads one stream, or frame, as the standard library has it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: memoryview, max_length: int = -1) -> bytes: ...


def decompressed(stream: Readable, name: str) -> Iterator[bytes]:
    """The content of `stream` in chunks that are never empty, decompressed as the suffix of `name` says.

    What can be read before a damage is yielded before it raises.

    Raises:
        EOFError: the compressed stream ends early.
        OSError, zlib.error, zstd.ZstdError: it is damaged or of another format, or something else follows it.
    """
    lowered = name.lower()
    if lowered.endswith((".gz", ".tgz")):
        return _chunks(gzip.GzipFile(fileobj=stream, mode="rb").read1)  # type: ignore[call-overload]
    if lowered.endswith(".bz2"):
        # Not by `bz2.BZ2File`: it takes a later stream with a damaged beginning for padding and loses it silently.
        return _streams(stream, bz2.BZ2Decompressor)
    if lowered.endswith(".zst"):
        return _streams(stream, zstd.ZstdDecompressor)
    return _chunks(stream.read)


def _chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    return iter(partial(read, CHUNK_BYTES), b"")


def _streams(stream: Readable, begin: Callable[[], _Decompressor]) -> Iterator[bytes]:
    stored, at = memoryview(stream.read(_READ_BYTES)), 0
    while at < len(stored):
        # Little at first: what a stream leaves is copied, and there may be a stream every few bytes.
        one, most = begin(), _FIRST_BYTES
        while not one.eof:
            piece = stored[:0]
            if one.needs_input:
                if at == len(stored):
                    stored, at = memoryview(stream.read(_READ_BYTES)), 0
                piece = stored[at : at + most]
                if not piece:
                    raise EOFError("the compressed stream ends early")
                at, most = at + len(piece), _READ_BYTES
            if content := one.decompress(piece, CHUNK_BYTES):
                yield content
        at -= len(one.unused_data)
        if at == len(stored):
            stored, at = memoryview(stream.read(_READ_BYTES)), 0
