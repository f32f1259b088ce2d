"""The headers of a tar, read forwards: as `tarfile` does it, in a fraction of its time where a header is a plain one.

Guarantees: a plain header gives the name, the type and the size that `tarfile` gives. `tarfile` reads all others, its
errors included, but never more at once than it reads in time: several of its steps take the square of a header's size.
"""

import re
import tarfile
import zlib
from collections.abc import Iterator
from string import digits
from typing import Any, Self

MAX_HEADER_BYTES = 2**20
"""Of all headers of a member: names, attributes and maps of sparse files are a few kilobytes."""
MAX_DIGITS = 255
"""Digits in a row; a file name has no more. `tarfile` looks for numbers again from each digit of a run on."""
MAX_GLOBAL_KEYWORDS = 100
"""Keywords that hold for all members; `tarfile` goes through all of them for each member."""

_NUMBER, _LONG_NUMBER = rb"(?:[0-7]{7}\0|[0-7]{6} \0)", rb"[0-7]{11}[\0 ]"
_CHECKSUM = slice(148, 156)
# A regular file as POSIX and GNU write it: all numbers in octal digits, no prefix to the name.
_PLAIN = re.compile(
    rb"(?s)(?P<name>.{100})"
    + 3 * _NUMBER
    + rb"(?P<size>[0-7]{11})[\0 ]"
    + _LONG_NUMBER
    + rb"(?P<checksum>[0-7]{6})(?:\0 | \0)0.{100}ustar(?:\x0000|  \0).{64}"
    + rb"(?:%b|\0{8}){2}\0.{166}" % _NUMBER
)
# Digits are alike, and so is all else.
_DIGITS_ALIKE = bytes(ord("0") if chr(byte) in digits else ord(".") for byte in range(256))
_TOO_MANY_DIGITS = (MAX_DIGITS + 1) * b"0"


def members(content: Any) -> Iterator[tarfile.TarInfo]:
    """The members of a tar that are not directories; raises for a missing end mark, as `tarfile` does not.

    Args:
        content: of the tar, with `read`, `tell` and `seek`, which goes forwards only. Who takes the members may read
            each one's content from it.
    """
    ends: list[tarfile.HeaderError] = []

    class Noted(_Header):
        """A header that remembers why there was none."""

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
        # It would keep every header of a million, only for looking members up by name.
        archive.members.clear()  # type: ignore[attr-defined]
        if member.size < 0:
            raise tarfile.ReadError(f"a header states a size of {member.size}")
        if not member.isdir():
            yield member
    if not isinstance(ends[0], tarfile.EOFHeaderError):  # type: ignore[attr-defined]
        raise ends[0]


class _Bounded:
    """What `tarfile` reads headers from; it refuses those that it cannot read in time.

    Attributes:
        left: bytes that may still be read, for one member.
    """

    def __init__(self, content: Any) -> None:
        self.tell, self.seek, self._read, self.left = content.tell, content.seek, content.read, MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end of the content."""
        self.left -= size
        if self.left < 0:
            raise tarfile.ReadError(f"the headers of a member are larger than {MAX_HEADER_BYTES} bytes")
        read: bytes = self._read(size)
        if size > tarfile.BLOCKSIZE and _TOO_MANY_DIGITS in read.translate(_DIGITS_ALIKE):
            raise tarfile.ReadError(f"a header has more than {MAX_DIGITS} digits in a row")
        return read


class _Header(tarfile.TarInfo):
    """A header that is only looked at in full where it is no plain one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        # Of ASCII, the sum of a header's bytes is less than Adler's modulus, and so is half of its checksum.
        plain = _PLAIN.fullmatch(buf) if buf.isascii() else None
        if plain is None:
            return super().frombuf(buf, encoding, errors)
        blank = 8 * ord(" ") - sum(buf[_CHECKSUM])
        if (zlib.adler32(buf) & 0xFFFF) - 1 + blank != int(plain["checksum"], 8):
            return super().frombuf(buf, encoding, errors)
        header = cls(plain["name"].partition(b"\0")[0].decode("ascii"))
        header.size = int(plain["size"], 8)
        return header
