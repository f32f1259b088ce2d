"""The content of an archive: decompressed as it is read, forwards only, and only so far as it may expand."""

import sys
import tarfile
from typing import BinaryIO

from genre_ray.errors import StorageError
from genre_ray.outcomes import Reason, Rejection
from genre_ray.sources.documents.compression import DAMAGE as COMPRESSION_DAMAGE
from genre_ray.sources.documents.compression import decompressed

# ValueError to RecursionError: what tarfile lets through for headers made to hurt it.
DAMAGE = (*COMPRESSION_DAMAGE, tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError)
"""What reading a damaged archive raises."""

FREE_BYTES = 2**28
"""Content that is allowed however small the archive is."""


class Exceeded(Exception):
    """The archive goes beyond a limit."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.why = Rejection(reason, detail)


class _Storage:
    """The bytes as stored; its failures are kept apart from those of what is stored."""

    def __init__(self, stream: BinaryIO, uri: str) -> None:
        self.stream = stream
        self.uri = uri
        self.size = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing came."""
        return self.size == 0

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = self.stream.read(size)
        except OSError as error:
            raise StorageError(f"{self.uri}: expected to read on, found: {error}. Try again.") from error
        self.size += len(data)
        return data


class Content:
    """The decompressed content as tarfile wants it, `read`, `tell` and `seek`, but forwards only.

    Reading raises one of `DAMAGE` or `Exceeded` where the content ends early, is damaged or expands too far, and
    StorageError where the stream itself fails.

    Args:
        stream: the archive as stored.
        uri: its address, whose suffix says how it is compressed.
        max_expansion: how many times the stored size the content may have, above `FREE_BYTES`.
    """

    def __init__(self, stream: BinaryIO, uri: str, max_expansion: float) -> None:
        self.stored = _Storage(stream, uri)
        self.chunks = decompressed(self.stored, uri)
        self.max_expansion = max_expansion
        self.position = 0
        self.at_end = False
        self._chunk, self._taken = b"", 0

    def tell(self) -> int:
        """Bytes passed so far."""
        return self.position

    def read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end of the content."""
        parts = [self._take(size)]
        missing = size - len(parts[0])
        while missing > 0 and (part := self._take(missing)):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def seek(self, position: int) -> None:
        """Pass over everything before `position`."""
        if position < self.position:
            raise tarfile.ReadError("a header points backwards")
        while self.position < position:
            if not self._fill():
                raise EOFError(f"expected {position} bytes, found {self.position}")
            self._pass(min(position - self.position, len(self._chunk) - self._taken))

    def content(self, member: tarfile.TarInfo) -> bytes | memoryview:
        """The bytes of a regular member, not copied where they are in one chunk."""
        self.seek(member.offset_data)
        size = member.size
        if 0 < size <= len(self._chunk) - self._taken:
            content = memoryview(self._chunk)[self._taken : self._taken + size]
            self._pass(size)
            return content
        read = self.read(size)
        if len(read) < size:
            raise EOFError(f"expected {size} bytes of {member.name}, found {len(read)}")
        return read

    def expect_zeros(self) -> None:
        """Read to the end, which verifies the checksums; only padding may follow the end mark."""
        while part := self._take(sys.maxsize):
            if part.strip(b"\0"):
                raise tarfile.ReadError("there is more after the archive's end mark")

    def verdict(self, error: Exception) -> Rejection:
        """What `error` says about the archive: ended early, or no archive, or damaged, or beyond a limit."""
        if isinstance(error, Exceeded):
            return error.why
        at = f"after {self.position} bytes of content"
        # Less than one header proves nothing to have been an archive, unless its compression breaks off.
        begun = self.position >= tarfile.BLOCKSIZE or isinstance(error, EOFError)
        if begun and not self.stored.is_empty and (self.at_end or isinstance(error, EOFError)):
            return Rejection(Reason.ARCHIVE_TRUNCATED, f"expected the archive's end mark, found its end {at}")
        found = "an empty file" if self.stored.is_empty else f"{type(error).__name__}: {error}"
        return Rejection(Reason.ARCHIVE_UNREADABLE, f"expected a tar archive, found {at}: {found}")

    def _take(self, size: int) -> bytes:
        """At most `size` bytes, at least one of them but at the end."""
        if size <= 0 or not self._fill():
            return b""
        part = self._chunk[self._taken : self._taken + size]
        self._pass(len(part))
        return part

    def _pass(self, size: int) -> None:
        self._taken += size
        self.position += size

    def _fill(self) -> bool:
        """Have some content at hand; False at the end."""
        if self._taken == len(self._chunk):
            self._chunk, self._taken = next(self.chunks, b""), 0
            self.at_end = not self._chunk
            self._check_expansion()
        return not self.at_end

    def _check_expansion(self) -> None:
        content = self.position + len(self._chunk)
        if content > FREE_BYTES and content > self.max_expansion * self.stored.size:
            raise Exceeded(
                Reason.EXPANDS_TOO_FAR,
                f"expected at most {self.max_expansion:g} times the stored size, found {content} bytes in the first "
                f"{self.stored.size}",
            )
