"""bzip2 on several cores: a stream's blocks are found by their marks, and decompressed side by side.

A block is independent of those before it, but begins at any bit; shifted to a byte and given a header and an end it is
a stream of its own, which Python's `bz2` reads without holding the interpreter. Guarantees: the content, the checks
(every block's checksum, every stream's) and the errors of `bz2.BZ2File`, whatever the number of threads. A mark that is
part of a block's content, as chance has it once in some terabytes, is found to be none.

indexed_bzip2, whose code rapidgzip has too, does it faster but leaves out the streams' checksums: of 147 streams with
flipped bits it let 8 go through as sound, one of them with other content.
"""

import bz2
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

WINDOW = 8
"""Segments that are held at once; a contrived one becomes 46 MB. It does not depend on the number of threads: how far
an archive may expand is judged by how much of it was read."""

READ_BYTES = 2**18
_BLOCK, _END = 0x314159265359, 0x177245385090
_MARK_BITS, _CHECKSUM_BITS, _HEADER_BYTES = 48, 32, 4
_MAX_SEGMENT_BYTES = 2**21
"""A block is made of at most 900,000 bytes, which hardly grow."""
_JOINS = 3
_HEADERS = [b"BZh%d" % level for level in range(1, 10)]
_BEGINNINGS = [header + mark.to_bytes(6, "big") for header in _HEADERS for mark in (_BLOCK, _END)]
# (mark, bits before it in its first byte, the five bytes that lie within it whole)
_NEEDLES = [
    (mark, shift, (mark << (8 - shift) if shift else mark << 8).to_bytes(7, "big")[1:6])
    for mark in (_BLOCK, _END)
    for shift in range(8)
]


class Readable(Protocol):
    """The one thing that is asked of a stream."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; none at the end."""


def bzip2_blocks(stream: Readable, threads: int) -> Iterator[bytes]:
    """The content of `stream`, block by block, over all streams in it.

    What can be read before a damage is yielded before it raises; what follows the last stream is ignored.

    Raises:
        EOFError: the stream ends early.
        OSError: it is damaged, or no bzip2.
    """
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(min(threads, WINDOW))) if threads > 1 else None
        window = _Window(_segments(stream), pool)
        if not _is_header(window.take().to_bytes(), window):
            raise OSError("expected the header of a bzip2 stream, found none")
        rest = yield from _stream_blocks(window)
        while (rest or window) and _is_header(rest, window):
            rest = yield from _stream_blocks(window)


@dataclass(frozen=True)
class _Segment:
    """The `bits` bits from a mark to the next, as a number; `offset` is where they begin in their first byte."""

    mark: int | None
    value: int
    bits: int
    offset: int
    decompressed: "Future[bytes | None] | None" = None

    @property
    def checksum(self) -> int:
        """What follows the mark."""
        return self.value >> (self.bits - _MARK_BITS - _CHECKSUM_BITS) & 0xFFFFFFFF

    @property
    def has_checksum(self) -> bool:
        return self.bits >= _MARK_BITS + _CHECKSUM_BITS

    def joined(self, other: "_Segment") -> "_Segment":
        value = self.value << other.bits | other.value
        return _Segment(self.mark, value, self.bits + other.bits, self.offset)

    def to_bytes(self, skip: int = 0) -> bytes:
        """The bits but for the first `skip`, from the first bit of a byte on."""
        bits = max(0, self.bits - skip)
        return ((self.value & (1 << bits) - 1) << -bits % 8).to_bytes((bits + 7) // 8, "big")

    def content(self) -> bytes | None:
        """The block that this is; None where it is none, or not a whole one."""
        return self.decompressed.result() if self.decompressed else _decompress(self)


class _Window:
    """Segments that are read ahead, with their blocks being decompressed."""

    def __init__(self, segments: Iterator[_Segment], pool: Executor | None) -> None:
        self._segments, self._pool, self._held = segments, pool, deque[_Segment]()
        self._fill()

    def __bool__(self) -> bool:
        return bool(self._held)

    def take(self) -> _Segment:
        segment = self._held.popleft()
        self._fill()
        return segment

    def _fill(self) -> None:
        while len(self._held) < WINDOW and (segment := next(self._segments, None)):
            if self._pool and segment.mark == _BLOCK:
                decompressed = self._pool.submit(_decompress, segment)
                segment = _Segment(segment.mark, segment.value, segment.bits, segment.offset, decompressed)
            self._held.append(segment)


def _is_header(found: bytes, window: _Window) -> bool:
    """Whether a stream begins with what was found before a mark.

    Raises:
        EOFError: it may have been about to.
    """
    if window:
        return found in _HEADERS
    if any(beginning.startswith(found) for beginning in _BEGINNINGS):
        raise EOFError("the compressed stream ends in its header")
    return False


def _stream_blocks(window: _Window) -> Generator[bytes, None, bytes]:
    """The blocks of one stream; returns what is between its end and the next mark."""
    combined = 0
    while window:
        segment = window.take()
        if segment.mark == _END and segment.has_checksum:
            if segment.checksum != combined:
                raise OSError("expected the compressed stream to have the checksum that its end states")
            end = _MARK_BITS + _CHECKSUM_BITS
            return segment.to_bytes(skip=end + -(segment.offset + end) % 8)
        if segment.mark == _END and not window:
            break
        content, joins = segment.content(), 0
        while content is None and window and joins < _JOINS:
            # The mark may be none, but a part of the block.
            segment, joins = segment.joined(window.take()), joins + 1
            content = segment.content()
        if content is None:
            yield from _as_far_as_it_goes(segment)
            if window:
                raise OSError("expected a block of a bzip2 stream, found a damaged one")
            break
        combined = (combined << 1 & 0xFFFFFFFF | combined >> 31) ^ segment.checksum
        yield content
    raise EOFError("the compressed stream ends before its end mark")


def _as_far_as_it_goes(segment: _Segment) -> Iterator[bytes]:
    decompressor = bz2.BZ2Decompressor()
    content = decompressor.decompress(_HEADERS[-1] + segment.to_bytes(), READ_BYTES)
    while content:
        yield content
        content = b"" if decompressor.needs_input or decompressor.eof else decompressor.decompress(b"", READ_BYTES)


def _decompress(segment: _Segment) -> bytes | None:
    if not segment.has_checksum:
        return None
    # The checksum of a stream of one block is the block's.
    end = _END << _CHECKSUM_BITS | segment.checksum
    whole = segment.joined(_Segment(_END, end, _MARK_BITS + _CHECKSUM_BITS, 0))
    try:
        return bz2.decompress(_HEADERS[-1] + whole.to_bytes())
    except (OSError, ValueError):
        return None


def _segments(stream: Readable) -> Iterator[_Segment]:
    """What lies between marks, first of all what comes before the first; the last goes as far as the stream does."""
    data, searched, start, mark = b"", 0, 0, None
    while len(data) < _MAX_SEGMENT_BYTES and (read := stream.read(READ_BYTES)):
        data += read
        for position, found in _marks(data, searched):
            if position > start or mark is None:
                yield _cut(data, mark, start, position)
                start, mark = position, found
        # The last bytes may be the beginning of a mark.
        searched, passed = max(0, len(data) - 7), start // 8
        data, searched, start = data[passed:], max(0, searched - passed), start % 8
    yield _cut(data, mark, start, 8 * len(data))


def _cut(data: bytes, mark: int | None, start: int, stop: int) -> _Segment:
    first, last = start // 8, (stop + 7) // 8
    value = int.from_bytes(data[first:last], "big") >> (8 * last - stop)
    return _Segment(mark, value & (1 << stop - start) - 1, stop - start, start % 8)


def _marks(data: bytes, searched: int) -> list[tuple[int, int]]:
    """(bit, mark) of the marks that begin from the byte `searched` on."""
    found = []
    for mark, shift, needle in _NEEDLES:
        place = data.find(needle, searched + 1)
        while place > 0:
            around = int.from_bytes(data[place - 1 : place + 6].ljust(7, b"\0"), "big")
            if around >> (8 - shift) & (1 << _MARK_BITS) - 1 == mark:
                found.append((8 * (place - 1) + shift, mark))
            place = data.find(needle, place + 1)
    return sorted(found)
