"""Compressed streams, read forwards in chunks: gzip, bzip2 and Zstandard by the name's suffix, or plain.

All of them read on across concatenated streams (frames), and say so when a stream ends early: zstandard's own
reader returns short data in silence, Python's others raise EOFError.
"""

import bz2
import gzip
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import zstandard

CHUNK_BYTES = 256 * 2**10
# One block of 128 KiB can hide in four bytes of Zstandard: this bounds what one chunk can blow up to at 128
# MiB.
_ZSTD_CHUNK_BYTES = 4 * 2**10

DAMAGE = (EOFError, OSError, zlib.error, zstandard.ZstdError)
"""What a damaged compressed stream raises; EOFError where it ends early."""


class Readable(Protocol):
    """The one thing that is asked of a stream."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; none at the end."""


def decompressed(stream: Readable, name: str) -> Iterator[bytes]:
    """The content of `stream` in chunks that are never empty, decompressed as the suffix of `name` says.

    What can be read before a damage is yielded before it raises.

    Raises:
        EOFError: the compressed stream ends early.
        OSError, zlib.error, zstandard.ZstdError: it is damaged or of another format.
    """
    lowered = name.lower()
    if lowered.endswith((".gz", ".tgz")):
        return _chunks(gzip.GzipFile(fileobj=stream, mode="rb").read1)  # type: ignore[call-overload]
    if lowered.endswith(".bz2"):
        return _chunks(bz2.BZ2File(stream).read1)  # type: ignore[call-overload]
    if lowered.endswith(".zst"):
        return _zstandard_chunks(stream)
    return _chunks(stream.read)


def _chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    return iter(partial(read, CHUNK_BYTES), b"")


def _zstandard_chunks(stream: Readable) -> Iterator[bytes]:
    pending = stream.read(_ZSTD_CHUNK_BYTES)
    while pending:
        frame = zstandard.ZstdDecompressor().decompressobj()
        while not frame.eof:
            if not pending:
                raise EOFError("the compressed stream ends inside a frame")
            content = frame.decompress(pending)
            if content:
                yield content
            pending = frame.unused_data if frame.eof else stream.read(_ZSTD_CHUNK_BYTES)
        pending = pending or stream.read(_ZSTD_CHUNK_BYTES)
