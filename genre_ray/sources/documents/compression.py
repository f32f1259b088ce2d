"""Decompress streams in chunks: gzip, bzip2, Zstandard or uncompressed, by the suffix of the name.

Concatenated streams (frames) are read to the end. A stream that ends early raises EOFError. No chunk is larger than
`CHUNK_BYTES`, whatever the compression ratio.
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
"""Maximum size of a chunk, about two dozen documents. Decompressing a chunk releases the GIL."""
_READ_BYTES, _FIRST_BYTES = 2**20, 2**16

DAMAGE = (EOFError, OSError, zlib.error, zstd.ZstdError)
"""The exceptions of a damaged compressed stream; EOFError if it ends early."""


class Readable(Protocol):
    """A stream that can be read."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, and no bytes at the end."""


class _Decompressor(Protocol):
    """A decompressor of one stream (frame), as in the standard library."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: memoryview, max_length: int = -1) -> bytes: ...


def decompressed(stream: Readable, name: str) -> Iterator[bytes]:
    """Yield the decompressed content of `stream` in chunks that are not empty.

    Content before a damaged place is yielded before an exception is raised.

    Args:
        stream: the compressed stream.
        name: name of the file, whose suffix says how it is compressed.

    Raises:
        EOFError: the compressed stream ends early.
        OSError, zlib.error, zstd.ZstdError: it is damaged, has another format, or is followed by other data.
    """
    lowered = name.lower()
    if lowered.endswith((".gz", ".tgz")):
        return _chunks(gzip.GzipFile(fileobj=stream, mode="rb").read1)  # type: ignore[call-overload]
    if lowered.endswith(".bz2"):
        # `bz2.BZ2File` is not used, because it silently ignores a later stream with a damaged beginning.
        return _streams(stream, bz2.BZ2Decompressor)
    if lowered.endswith(".zst"):
        return _streams(stream, zstd.ZstdDecompressor)
    return _chunks(stream.read)


def _chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    return iter(partial(read, CHUNK_BYTES), b"")


def _streams(stream: Readable, begin: Callable[[], _Decompressor]) -> Iterator[bytes]:
    stored, at = memoryview(stream.read(_READ_BYTES)), 0
    while at < len(stored):
        # Small pieces at first: unused data of a stream are copied, and streams may be only some bytes long.
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
