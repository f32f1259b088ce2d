"""Compressed streams, read forwards in chunks: gzip, bzip2 and Zstandard by the name's suffix, or plain.

All of them read on across concatenated streams (frames), and raise EOFError where a stream ends early. No chunk is
larger than `CHUNK_BYTES`, whatever it was compressed from.
"""

import gzip
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from genre_ray.sources.documents.bzip2 import Readable, bzip2_blocks

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK_BYTES = 2**21
"""Enough for two dozen documents: while a chunk is decompressed, the interpreter is left to others."""
_READ_BYTES, _FRAME_BYTES = 2**20, 2**16

DAMAGE = (EOFError, OSError, zlib.error, zstd.ZstdError)
"""What a damaged compressed stream raises; EOFError where it ends early."""


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
        return _cut(bzip2_blocks(stream, threads()))
    if lowered.endswith(".zst"):
        return _zstandard_chunks(stream)
    return _chunks(stream.read)


def threads() -> int:
    """As many as this worker has CPUs: Ray says so in OMP_NUM_THREADS, as others do. Without it there is one."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(stated)) if stated.isdecimal() else 1


def _cut(blocks: Iterator[bytes]) -> Iterator[bytes]:
    return (block[at : at + CHUNK_BYTES] for block in blocks for at in range(0, len(block), CHUNK_BYTES))


def _chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    return iter(partial(read, CHUNK_BYTES), b"")


def _zstandard_chunks(stream: Readable) -> Iterator[bytes]:
    stored, at = memoryview(stream.read(_READ_BYTES)), 0
    while at < len(stored):
        # Little at first: what a frame leaves is copied, and there may be a frame every few bytes.
        frame, most = zstd.ZstdDecompressor(), _FRAME_BYTES
        while not frame.eof:
            piece = stored[:0]
            if frame.needs_input:
                if at == len(stored):
                    stored, at = memoryview(stream.read(_READ_BYTES)), 0
                piece = stored[at : at + most]
                if not piece:
                    raise EOFError("the compressed stream ends inside a frame")
                at, most = at + len(piece), _READ_BYTES
            if content := frame.decompress(piece, CHUNK_BYTES):
                yield content
        at -= len(frame.unused_data)
        if at == len(stored):
            stored, at = memoryview(stream.read(_READ_BYTES)), 0
