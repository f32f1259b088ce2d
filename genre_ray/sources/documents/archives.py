"""Archives of documents, walked forwards member by member; nothing is extracted to disk.

Every member that is not a directory is a row, good or not. The numbering of the rows does not depend on which of them
are wanted, so that an archive can be read on from any row. An archive that ends early, is damaged or exceeds a limit
gives one last row that says so, after all that came before it.
"""

import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from genre_ray.errors import NotFoundError, StorageError
from genre_ray.outcomes import Reason, Rejection
from genre_ray.sources.documents.compression import DAMAGE, decompressed
from genre_ray.sources.documents.names import MAX_ID_CHARACTERS, MAX_NAME_CHARACTERS, bounded, identify
from genre_ray.sources.documents.tar_headers import members
from genre_ray.storage import objects
from genre_ray.storage.objects import StoredFile

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.zst")
DOCUMENT_SUFFIX = ".json"
MAX_DOCUMENT_BYTES = 8 * 2**20
MAX_MEMBERS = 20_000_000
# AcousticBrainz documents shrink to a tenth; zeros and repeated documents can shrink to a millionth.
MAX_EXPANSION = 200.0
_EXPANSION_FLOOR_BYTES = 2**28
# ValueError to RecursionError: what tarfile lets through for headers made to hurt it.
_DAMAGE = (*DAMAGE, tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A document's bytes, or why there are none.

    Attributes:
        name: of the file, or of the member of an archive.
        uri: the file's address; `<archive>#<member>` for a member of an archive.
        payload: the content. A view is of a chunk of the archive, which stays in memory as long as the view does.
    """

    name: str
    uri: str
    payload: bytes | memoryview | Rejection


def is_archive(name: str) -> bool:
    """Whether `name` is an archive's, by its suffix."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def is_document(name: str) -> bool:
    """Whether `name` is a document's, by its suffix."""
    return name.lower().endswith(DOCUMENT_SUFFIX)


def read_file(file: StoredFile, max_document_bytes: int = MAX_DOCUMENT_BYTES) -> RawDocument:
    """The document in a file of its own, as it was planned; one that is larger than the limit is not read.

    Raises:
        InputError: the file is not the planned one.
        NotFoundError: it is gone.
        StorageError: the store fails just now, which says nothing about the document.
    """
    name = file.uri.rpartition("/")[2]
    return RawDocument(bounded(name), _bounded_uri(file.uri), _payload(file, name, max_document_bytes))


def refused_file(file: StoredFile, why: Rejection) -> RawDocument:
    """The row of a single file that is not to be read."""
    name = file.uri.rpartition("/")[2]
    return RawDocument(bounded(name), _bounded_uri(file.uri), replace(why, recording_id=known_recording(name)))


def _payload(file: StoredFile, name: str, max_document_bytes: int) -> bytes | Rejection:
    if why := _refused_name(name) or _too_large(name, file.size, max_document_bytes):
        return why
    opened = open_planned(file)
    if isinstance(opened, str):
        return Rejection(Reason.UNREADABLE, f"expected a readable file, found {opened}", known_recording(name))
    with opened as stream:
        try:
            payload = stream.read(file.size)
        except OSError as error:
            raise StorageError(f"{file.uri}: {error}; try again when its storage can be read") from None
    if not objects.is_remote(file.uri):
        # It may have been written to while it was read; an object is checked with each range.
        objects.require_unchanged(file)
    return payload


def open_planned(file: StoredFile) -> BinaryIO | str:
    """A stream of a planned file; or why it cannot be read, where that is as it was when it was planned.

    A pipe or a device is not opened: it would block for ever, or never end.

    Raises:
        InputError: the file is not the planned one.
        NotFoundError: it is gone.
        StorageError: it cannot be read just now.
    """
    if not objects.is_remote(file.uri):
        if file.version == objects.MISSING:
            return "a link to nothing"
        if os.path.exists(file.uri) and not os.path.isfile(file.uri):
            if file.size:
                objects.require_unchanged(file)
            return "a file that is not a regular one"
    try:
        return objects.open_stream(file.uri, file)
    except NotFoundError as error:
        if objects.is_remote(file.uri):
            raise
        if os.path.exists(file.uri):
            return str(error)
        raise objects.gone(file.uri) from None


def _always(size: int) -> bool:
    return True


def read_archive(
    stream: BinaryIO,
    uri: str,
    *,
    max_document_bytes: int = MAX_DOCUMENT_BYTES,
    max_members: int = MAX_MEMBERS,
    max_expansion: float = MAX_EXPANSION,
    wanted: Callable[[int], bool] = _always,
) -> Iterator[RawDocument | None]:
    """Walk the members of the archive in `stream`, whose compression follows from the suffix of `uri`.

    Yields one row for each member that is not a directory, in order; None where it is not wanted. The last row is about
    the archive itself (`archive_truncated`, `archive_unreadable`, `too_many_members`, `expands_too_far`) where it ends
    early, is damaged or exceeds a limit.

    Args:
        stream: the archive as stored.
        uri: its address.
        max_document_bytes: a larger member is rejected, and passed over.
        max_members: an archive with more of them ends there.
        max_expansion: an archive whose content is more than so many times its stored size ends there; a quarter of a
            GiB of content is always allowed.
        wanted: called once for each row in order, before its content is read, with the bytes of its document: 0 where
            it is refused unread. Returns whether to yield the row.

    Raises:
        StorageError: `stream` itself failed, which says nothing about the archive.
    """
    source = _Forward(stream, uri, max_expansion)
    count = 0
    is_wanted = None
    try:
        for member in members(source):
            if count == max_members:
                raise _Exceeded(Reason.TOO_MANY_MEMBERS, f"expected at most {max_members} members, found more")
            refusal = _refusal(member, max_document_bytes)
            is_wanted = wanted(0 if refusal else member.size)
            row = None
            if is_wanted:
                row = RawDocument(
                    bounded(member.name), _bounded_uri(f"{uri}#{member.name}"), refusal or source.content(member)
                )
            if _has_content(member):
                # Whether a member is whole must not depend on who wants it, nor on its being refused.
                source.seek(member.offset_data + member.size)
            count += 1
            yield row
            row = None  # its view keeps a chunk of the archive in memory
            is_wanted = None
        source.expect_zeros()
    except (*_DAMAGE, _Exceeded) as error:
        # A member that is cut has been asked for: the row about the archive stands in its place.
        is_wanted = wanted(0) if is_wanted is None else is_wanted
        yield about_archive(uri, source.verdict(error)) if is_wanted else None


def about_archive(uri: str, why: Rejection) -> RawDocument:
    """The row that is about an archive itself."""
    return RawDocument(bounded(uri.rpartition("/")[2]), _bounded_uri(uri), why)


def _bounded_uri(uri: str) -> str:
    # Room for the name of an archive and that of a member.
    return bounded(uri, 2 * MAX_NAME_CHARACTERS)


def known_recording(name: str) -> str | None:
    """The recording that a name stands for; None where it is not a document's, or no id."""
    if not is_document(name) or _refused_name(name):
        return None
    return identify(name)[0]


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
        return Rejection(Reason.UNSAFE_MEMBER, detail, known_recording(name))
    if not is_document(name):
        return Rejection(Reason.NOT_A_DOCUMENT, f"expected a {DOCUMENT_SUFFIX} file, found {name}")
    return _refused_name(name) or _too_large(name, member.size, max_document_bytes)


def _refused_name(name: str) -> Rejection | None:
    if len(name) <= MAX_ID_CHARACTERS and name.isprintable():
        return None
    if len(name) > MAX_NAME_CHARACTERS:
        detail = f"expected a name of at most {MAX_NAME_CHARACTERS} characters, found {len(name)}: {name}"
        return Rejection(Reason.ID_TOO_LONG, detail)
    if (length := len(identify(name)[0])) > MAX_ID_CHARACTERS:
        detail = f"expected a recording id of at most {MAX_ID_CHARACTERS} characters, found {length}: {name}"
        return Rejection(Reason.ID_TOO_LONG, detail)
    return None


def _too_large(name: str, size: int, limit: int) -> Rejection | None:
    if size <= limit:
        return None
    return Rejection(Reason.TOO_LARGE, f"expected at most {limit} bytes, found {size}", known_recording(name))


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
    """The decompressed content as tarfile wants it, `read`, `tell` and `seek`, but forwards only."""

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
