"""Archives of documents, walked forwards member by member; nothing is extracted to disk.

Every member that is not a directory is a row, good or not. The numbering of the rows does not depend on which of them
are wanted, so that an archive can be read on from any row. An archive that ends early, is damaged or exceeds a limit
gives one last row that says so, after all that came before it.
"""

import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

from genre_ray.outcomes import Reason, Rejection
from genre_ray.sources.documents.content import DAMAGE, Content, Exceeded
from genre_ray.sources.documents.names import bounded
from genre_ray.sources.documents.raw import (
    DOCUMENT_SUFFIX,
    MAX_DOCUMENT_BYTES,
    RawDocument,
    bounded_uri,
    is_document,
    known_recording,
    refused_name,
    too_large,
)
from genre_ray.sources.documents.tar_headers import members

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.zst")
MAX_MEMBERS = 20_000_000
# AcousticBrainz documents shrink to a tenth; zeros and repeated documents can shrink to a millionth.
MAX_EXPANSION = 200.0


def is_archive(name: str) -> bool:
    """Whether `name` is an archive's, by its suffix."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


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
    source = Content(stream, uri, max_expansion)
    count = 0
    is_wanted = None
    try:
        for member in members(source):
            if count == max_members:
                raise Exceeded(Reason.TOO_MANY_MEMBERS, f"expected at most {max_members} members, found more")
            refusal = _refusal(member, max_document_bytes)
            is_wanted = wanted(0 if refusal else member.size)
            row = None
            if is_wanted:
                row = RawDocument(
                    bounded(member.name), bounded_uri(f"{uri}#{member.name}"), refusal or source.content(member)
                )
            if _has_content(member):
                # Whether a member is whole must not depend on who wants it, nor on its being refused.
                source.seek(member.offset_data + member.size)
            count += 1
            yield row
            row = None  # its view keeps a chunk of the archive in memory
            is_wanted = None
        source.expect_zeros()
    except (*DAMAGE, Exceeded) as error:
        # A member that is cut has been asked for: the row about the archive stands in its place.
        is_wanted = wanted(0) if is_wanted is None else is_wanted
        yield about_archive(uri, source.verdict(error)) if is_wanted else None


def about_archive(uri: str, why: Rejection) -> RawDocument:
    """The row that is about an archive itself."""
    return RawDocument(bounded(uri.rpartition("/")[2]), bounded_uri(uri), why)


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
    return refused_name(name) or too_large(name, member.size, max_document_bytes)
