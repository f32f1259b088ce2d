"""Read the headers of a tar archive forwards, like `tarfile`, but faster for plain headers.

Guarantees: a plain header gives the same name, type and size as with `tarfile`. All other headers are read by `tarfile`
itself, with a limit on their size, because several of its steps take quadratic time.
"""

import re
import tarfile
import zlib
from collections.abc import Iterator
from string import digits
from typing import Any, Self

MAX_HEADER_BYTES = 2**20
"""Maximum size of all headers of a member. Names, attributes and maps of sparse files usually have a few kilobytes."""
MAX_DIGITS = 255
"""Maximum number of consecutive digits, for which `tarfile` takes quadratic time. File names have no more."""
MAX_GLOBAL_KEYWORDS = 100
"""Maximum number of global keywords, all of which `tarfile` processes for every member."""

_NUMBER, _LONG_NUMBER = rb"(?:[0-7]{7}\0|[0-7]{6} \0)", rb"[0-7]{11}[\0 ]"
_CHECKSUM = slice(148, 156)
# The header of a regular file as POSIX and GNU tar write it: all numbers in octal digits, and no name prefix.
_PLAIN = re.compile(
    rb"(?s)(?P<name>.{100})"
    + 3 * _NUMBER
    + rb"(?P<size>[0-7]{11})[\0 ]"
    + _LONG_NUMBER
    + rb"(?P<checksum>[0-7]{6})(?:\0 | \0)0.{100}ustar(?:\x0000|  \0).{64}"
    + rb"(?:%b|\0{8}){2}\0.{166}" % _NUMBER
)
# Maps all digits to 0 and all other characters to a point.
_DIGITS_ALIKE = bytes(ord("0") if chr(byte) in digits else ord(".") for byte in range(256))
_TOO_MANY_DIGITS = (MAX_DIGITS + 1) * b"0"


def members(content: Any) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar archive that are not directories. Raise an error if the end marker is missing.

    Args:
        content: content of the archive, with `read`, `tell` and a `seek` that only goes forwards. The caller may read
            the content of each member from it before taking the next member.
    """
    ends: list[tarfile.HeaderError] = []

    class Noted(_Header):
        """A header class that records the errors of `fromtarfile`."""

        @classmethod
        def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
            try:
                return super().fromtarfile(archive)
            except tarfile.HeaderError as error:
                ends.append(error)
                raise

    headers = _Bounded(content)
    archive = tarfile.TarFile(fileobj=headers, tarinfo=Noted, errors="surrogateescape")  # type: ignore[arg-type]
    while member := archive.next():
        headers.left = MAX_HEADER_BYTES
        if len(archive.pax_headers) > MAX_GLOBAL_KEYWORDS:
            raise tarfile.ReadError(f"{len(archive.pax_headers)} keywords are stated for all members")
        # `tarfile` would keep all headers in memory, to look up members by name.
        archive.members.clear()  # type: ignore[attr-defined]
        if member.size < 0:
            raise tarfile.ReadError(f"a header states a size of {member.size}")
        if not member.isdir():
            yield member
    if not isinstance(ends[0], tarfile.EOFHeaderError):  # type: ignore[attr-defined]
        raise ends[0]


class _Bounded:
    """The content from which `tarfile` reads headers, with a limit on the size of headers.

    Attributes:
        left: number of bytes that may still be read for the current member.
    """

    def __init__(self, content: Any) -> None:
        self.tell, self.seek, self._read, self.left = content.tell, content.seek, content.read, MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """Return `size` bytes, or fewer at the end of the content."""
        self.left -= size
        if self.left < 0:
            raise tarfile.ReadError(f"the headers of a member are larger than {MAX_HEADER_BYTES} bytes")
        read: bytes = self._read(size)
        if size > tarfile.BLOCKSIZE and _TOO_MANY_DIGITS in read.translate(_DIGITS_ALIKE):
            raise tarfile.ReadError(f"a header has more than {MAX_DIGITS} digits in a row")
        return read


class _Header(tarfile.TarInfo):
    """A header that parses plain headers quickly, and uses `tarfile` for all others."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        # For ASCII, the sum of a header's bytes is less than Adler's modulus, so the lower half is that sum plus 1.
        plain = _PLAIN.fullmatch(buf) if buf.isascii() else None
        if plain is None:
            return super().frombuf(buf, encoding, errors)
        blank = 8 * ord(" ") - sum(buf[_CHECKSUM])
        if (zlib.adler32(buf) & 0xFFFF) - 1 + blank != int(plain["checksum"], 8):
            return super().frombuf(buf, encoding, errors)
        header = cls(plain["name"].partition(b"\0")[0].decode("ascii"))
        header.size = int(plain["size"], 8)
        return header
