"""Archives of documents, walked forwards member by member; nothing is extracted to disk.

Every member is one item, good or not; directories are none. The numbering of the items does not depend on
which of them are wanted, so that several workers can each take a range of one archive. An archive that ends
early, is damaged or exceeds a limit gives one last item that says so, after all that came before it.
"""

import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from genre_ray.catalog.compression import DAMAGE, decompressed
from genre_ray.catalog.names import identify
from genre_ray.catalog.tar_headers import members
from genre_ray.errors import NotFoundError, StorageError
from genre_ray.outcomes import Reason, Rejection, printable
from genre_ray.storage.objects import is_remote, open_stream

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.zst")
DOCUMENT_SUFFIX = ".json"
MAX_DOCUMENT_BYTES = 8 * 2**20
MAX_MEMBERS = 20_000_000
# AcousticBrainz documents shrink to a tenth; zeros and repeated documents can shrink to a millionth.
MAX_EXPANSION = 200.0
_EXPANSION_FLOOR_BYTES = 2**28
_SMALLEST_READ_LIMIT = 2**20
# ValueError to RecursionError: what tarfile lets through for headers made to hurt it.
_DAMAGE = (*DAMAGE, tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A document's bytes, or why there are none; `uri` is `<archive>#<member>` for a member of an archive."""

    name: str
    uri: str
    payload: bytes | Rejection

    @property
    def recording_id(self) -> str | None:
        """The recording that the name stands for; None where it is no document's."""
        return identify(self.name)[0] if is_document(self.name) else None


def is_archive(name: str) -> bool:
    """Whether `name` is an archive's, by its suffix."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def is_document(name: str) -> bool:
    """Whether `name` is a document's, by its suffix."""
    return name.lower().endswith(DOCUMENT_SUFFIX)


def read_file(uri: str, max_document_bytes: int = MAX_DOCUMENT_BYTES) -> RawDocument:
    """The document in a file of its own; never more than one byte over the limit is read.

    Raises:
        StorageError: the store fails just now, which says nothing about the document.
    """
    name = uri.rpartition("/")[2]
    payload: bytes | Rejection
    try:
        with open_regular(uri) as stream:
            payload = stream.read(max_document_bytes + 1)
    except NotFoundError as error:
        payload = Rejection(Reason.UNREADABLE, f"expected a readable file: {error}", identify(name)[0])
    else:
        if len(payload) > max_document_bytes:
            payload = _too_large(name, f"more than {max_document_bytes}", max_document_bytes)
    return RawDocument(printable(name), printable(uri), payload)


def open_regular(uri: str) -> BinaryIO:
    """A stream of the file; a pipe or a device would block for ever, or never end.

    Raises:
        NotFoundError: it is one of these, not there, or closed to this process.
        StorageError: it cannot be read just now.
    """
    if not is_remote(uri) and os.path.exists(uri) and not os.path.isfile(uri):
        raise NotFoundError(f"{uri} is no regular file")
    return open_stream(uri)


def read_archive(
    stream: BinaryIO,
    uri: str,
    *,
    max_document_bytes: int = MAX_DOCUMENT_BYTES,
    max_members: int = MAX_MEMBERS,
    max_expansion: float = MAX_EXPANSION,
    wanted: Callable[[int], bool] = lambda position: True,
) -> Iterator[RawDocument | None]:
    """Walk the members of the archive in `stream`, whose compression the suffix of `uri` tells.

    Yields one item for each member that is not a directory, in order: None where `wanted(position)` is false,
    with positions counted from 0. The last item is about the archive itself (`archive_truncated`,
    `archive_unreadable`, `too_many_members`, `expands_too_far`) where it ends early, is damaged or exceeds a limit,
    and is subject to `wanted` as well.

    Args:
        stream: the archive as stored.
        uri: its address.
        max_document_bytes: a larger member is rejected, and passed over.
        max_members: an archive with more of them ends there.
        max_expansion: an archive whose content is more than so many times its stored size ends there; a quarter of a
            GiB of content is always allowed.
        wanted: which positions to give.

    Raises:
        StorageError: `stream` itself failed, which says nothing about the archive.
    """
    source = _Forward(stream, uri, max(max_document_bytes, _SMALLEST_READ_LIMIT), max_expansion)
    position = 0
    try:
        for member in members(source):
            if position == max_members:
                raise _Exceeded(Reason.TOO_MANY_MEMBERS, f"expected at most {max_members} members, found more")
            item = None
            if wanted(position):
                payload = _refusal(member, max_document_bytes) or source.content(member)
                item = RawDocument(printable(member.name), printable(f"{uri}#{member.name}"), payload)
            if _has_content(member):
                # Whether a member is whole must not depend on who wants it, nor on its being refused.
                source.seek(member.offset_data + member.size)
            yield item
            position += 1
        source.expect_zeros()
    except (*_DAMAGE, _Exceeded) as error:
        yield about_archive(uri, source.verdict(error)) if wanted(position) else None


def about_archive(uri: str, why: Rejection) -> RawDocument:
    """The item that is about an archive itself."""
    return RawDocument(printable(uri.rpartition("/")[2]), printable(uri), why)


def _has_content(member: tarfile.TarInfo) -> bool:
    """Whether `size` bytes of content follow the header; a link has none and a sparse file fewer."""
    return member.isreg() and not member.issparse()


def _refusal(member: tarfile.TarInfo, max_document_bytes: int) -> Rejection | None:
    name = member.name
    path = name.replace("\\", "/")
    detail = None
    if not _has_content(member):
        detail = f"expected a regular file, found tar member type {member.type!r}: {name}"
    elif path.startswith("/") or ".." in path.split("/"):
        detail = f"expected a name inside the archive, found {name}"
    if detail is not None:
        return Rejection(Reason.UNSAFE_MEMBER, detail, identify(name)[0] if is_document(name) else None)
    if not is_document(name):
        return Rejection(Reason.NOT_A_DOCUMENT, f"expected a {DOCUMENT_SUFFIX} file, found {name}")
    if member.size > max_document_bytes:
        return _too_large(name, str(member.size), max_document_bytes)
    return None


def _too_large(name: str, size: str, limit: int) -> Rejection:
    return Rejection(Reason.TOO_LARGE, f"expected at most {limit} bytes, found {size}", identify(name)[0])


class _Exceeded(Exception):
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


class _Forward:
    """The decompressed content as tarfile wants it, `read`, `tell` and `seek`, but forwards only.

    A single read is limited: a header may claim any length for its own extensions.
    """

    def __init__(self, stream: BinaryIO, uri: str, read_limit: int, max_expansion: float) -> None:
        self.stored = _Storage(stream, uri)
        self.chunks = decompressed(self.stored, uri)
        self.read_limit = read_limit
        self.max_expansion = max_expansion
        self.position = 0
        self.at_end = False
        self._chunk, self._taken = b"", 0

    def tell(self) -> int:
        """Bytes passed so far."""
        return self.position

    def read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end of the content."""
        if size > self.read_limit:
            raise tarfile.ReadError(f"a header asks for {size} bytes at once")
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

    def content(self, member: tarfile.TarInfo) -> bytes:
        """The bytes of a regular member."""
        self.seek(member.offset_data)
        content = self.read(member.size)
        if len(content) < member.size:
            raise EOFError(f"expected {member.size} bytes of {member.name}, found {len(content)}")
        return content

    def expect_zeros(self) -> None:
        """Read to the end, which verifies the checksums; only padding may follow the end mark."""
        while part := self._take(sys.maxsize):
            if part.strip(b"\0"):
                raise tarfile.ReadError("there is more after the archive's end mark")

    def verdict(self, error: Exception) -> Rejection:
        """What `error` says about the archive: ended early, or no archive, or damaged, or beyond a limit."""
        if isinstance(error, _Exceeded):
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
        if content > _EXPANSION_FLOOR_BYTES and content > self.max_expansion * self.stored.size:
            raise _Exceeded(
                Reason.EXPANDS_TOO_FAR,
                f"expected at most {self.max_expansion:g} times the stored size, found {content} bytes in the first "
                f"{self.stored.size}",
            )
