"""The headers of a tar, read forwards: as `tarfile` does it, in a fraction of its time where a header is a plain one.

Guarantees: a plain header gives the name, the type and the size that `tarfile` gives; whatever is unusual about a
header leaves it, its errors included, to `tarfile`.
"""

import re
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, Self

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

    archive = tarfile.TarFile(fileobj=content, tarinfo=Noted, errors="surrogateescape")
    while member := archive.next():
        # It would keep every header of a million, only for looking members up by name.
        archive.members.clear()  # type: ignore[attr-defined]
        if member.size < 0:
            raise tarfile.ReadError(f"a header states a size of {member.size}")
        if not member.isdir():
            yield member
    if not isinstance(ends[0], tarfile.EOFHeaderError):  # type: ignore[attr-defined]
        raise ends[0]


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
