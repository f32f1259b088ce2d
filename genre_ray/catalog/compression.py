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

CHUNK_BYTES = 2**20
"""Enough for a dozen documents: the interpreter is left to others while a chunk is decompressed."""
_READ_BYTES = 2**17

DAMAGE = (EOFError, OSError, zlib.error, zstd.ZstdError)
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
        OSError, zlib.error, zstd.ZstdError: it is damaged or of another format.
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
    pending = stream.read(_READ_BYTES)
    while pending:
        frame = zstd.ZstdDecompressor()
        while not frame.eof:
            if frame.needs_input and not (pending := pending or stream.read(_READ_BYTES)):
                raise EOFError("the compressed stream ends inside a frame")
            if content := frame.decompress(pending, CHUNK_BYTES):
                yield content
            pending = b""
        pending = frame.unused_data or stream.read(_READ_BYTES)
