"""The decompressed content of an archive, read forwards, with a limit on its expansion."""

import sys
import tarfile
from typing import BinaryIO

from genre_ray.errors import StorageError
from genre_ray.outcomes import Reason, Rejection
from genre_ray.sources.documents.compression import DAMAGE as COMPRESSION_DAMAGE
from genre_ray.sources.documents.compression import decompressed

# tarfile raises ValueError to RecursionError for malicious headers.
DAMAGE = (*COMPRESSION_DAMAGE, tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError)
"""The exceptions of a damaged archive."""

FREE_BYTES = 2**28
"""Bytes of content that are allowed for every archive, however small."""


class Exceeded(Exception):
    """The archive exceeds a limit."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.why = Rejection(reason, detail)


class _Storage:
    """The stored bytes. Its read errors become StorageErrors, so they differ from errors of damaged content."""

    def __init__(self, stream: BinaryIO, uri: str) -> None:
        self.stream = stream
        self.uri = uri
        self.size = 0

    @property
    def is_empty(self) -> bool:
        """Whether no bytes were read."""
        return self.size == 0

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = self.stream.read(size)
        except OSError as error:
            raise StorageError(f"{self.uri}: reading failed: {error}; try again") from error
        self.size += len(data)
        return data


class Content:
    """The decompressed content of an archive, with the methods that tarfile needs. It can be read only forwards.

    Reading raises one of `DAMAGE` if the content ends early or is damaged, `Exceeded` if it expands too far, and
    StorageError if reading the stream fails.

    Args:
        stream: the stored archive.
        uri: its path or URI. The suffix says how it is compressed.
        max_expansion: maximum ratio of the content to the stored size, beyond `FREE_BYTES`.
    """

    def __init__(self, stream: BinaryIO, uri: str, max_expansion: float) -> None:
        self.stored = _Storage(stream, uri)
        self.chunks = decompressed(self.stored, uri)
        self.max_expansion = max_expansion
        self.position = 0
        self.at_end = False
        self._chunk, self._taken = b"", 0

    def tell(self) -> int:
        """Return the current position in bytes."""
        return self.position

    def read(self, size: int) -> bytes:
        """Return `size` bytes, or fewer at the end of the content."""
        parts = [self._take(size)]
        missing = size - len(parts[0])
        while missing > 0 and (part := self._take(missing)):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def seek(self, position: int) -> None:
        """Skip forwards to `position`."""
        if position < self.position:
            raise tarfile.ReadError("a header points backwards")
        while self.position < position:
            if not self._fill():
                raise EOFError(f"expected {position} bytes, found {self.position}")
            self._pass(min(position - self.position, len(self._chunk) - self._taken))

    def content(self, member: tarfile.TarInfo) -> bytes | memoryview:
        """Return the content of a regular member, without a copy if it is in one chunk."""
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
        """Read to the end, which verifies checksums, and check that only zeros follow the archive's end marker."""
        while part := self._take(sys.maxsize):
            if part.strip(b"\0"):
                raise tarfile.ReadError("more data follow the archive's end marker")

    def verdict(self, error: Exception) -> Rejection:
        """Return the rejection for an error: the file ends early, is not an archive, is damaged or exceeds a limit."""
        if isinstance(error, Exceeded):
            return error.why
        at = f"after {self.position} bytes of content"
        # A file with less than one header is not known to be an archive, unless its compressed stream ends early.
        begun = self.position >= tarfile.BLOCKSIZE or isinstance(error, EOFError)
        if begun and not self.stored.is_empty and (self.at_end or isinstance(error, EOFError)):
            return Rejection(Reason.ARCHIVE_TRUNCATED, f"expected the archive's end marker, found the end of file {at}")
        found = "an empty file" if self.stored.is_empty else f"{type(error).__name__}: {error}"
        return Rejection(Reason.ARCHIVE_UNREADABLE, f"expected a tar archive, found {at}: {found}")

    def _take(self, size: int) -> bytes:
        """Return 1 to `size` bytes, or no bytes at the end."""
        if size <= 0 or not self._fill():
            return b""
        part = self._chunk[self._taken : self._taken + size]
        self._pass(len(part))
        return part

    def _pass(self, size: int) -> None:
        self._taken += size
        self.position += size

    def _fill(self) -> bool:
        """Make sure that the current chunk has unread bytes; return False at the end."""
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
