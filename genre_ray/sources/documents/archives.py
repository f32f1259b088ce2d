"""Read archives of documents forwards, member by member, without extracting them to disk.

Every member that is not a directory becomes a row, valid or rejected. Rows are numbered independently of which rows are
wanted, so reading can start at any row. If an archive ends early, is damaged or exceeds a limit, its last row says so.
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
# AcousticBrainz documents compress to a tenth of their size; zeros and repeated documents can compress to a millionth.
MAX_EXPANSION = 200.0


def is_archive(name: str) -> bool:
    """Whether a file is an archive, by the suffix of its name."""
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
    """Read the members of an archive.

    Yields one row for each member that is not a directory, in order, or None for a row that is not wanted. If the
    archive ends early, is damaged or exceeds a limit, the last row is about the archive itself (`archive_truncated`,
    `archive_unreadable`, `too_many_members` or `expands_too_far`).

    Args:
        stream: the stored archive.
        uri: its path or URI. The suffix says how it is compressed.
        max_document_bytes: larger members are rejected without reading them.
        max_members: maximum number of members to read.
        max_expansion: maximum ratio of the archive's content to its stored size. A quarter of a GiB of content is
            always allowed.
        wanted: called once for each row, in order and before its content is read, with the size of its document in
            bytes (0 if the document is rejected without reading it). Returns whether to yield the row.

    Raises:
        StorageError: reading `stream` failed, which says nothing about the archive.
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
                # Whether a member is complete must not depend on whether it is wanted or rejected.
                source.seek(member.offset_data + member.size)
            count += 1
            yield row
            row = None  # it refers to a chunk of the archive in memory
            is_wanted = None
        source.expect_zeros()
    except (*DAMAGE, Exceeded) as error:
        # If a member is truncated, `wanted` was called for it, and the row about the archive takes its place.
        is_wanted = wanted(0) if is_wanted is None else is_wanted
        yield about_archive(uri, source.verdict(error)) if is_wanted else None


def about_archive(uri: str, why: Rejection) -> RawDocument:
    """Make the row that is about an archive itself."""
    return RawDocument(bounded(uri.rpartition("/")[2]), bounded_uri(uri), why)


def _has_content(member: tarfile.TarInfo) -> bool:
    """Whether `size` bytes of content follow the header. A link has no content, and a sparse file has fewer bytes."""
    return member.isreg() and not member.issparse()


def _refusal(member: tarfile.TarInfo, max_document_bytes: int) -> Rejection | None:
    name = member.name
    path = name.replace("\\", "/")
    detail = None
    if not _has_content(member):
        detail = f"expected a regular file, found a tar member of type {member.type!r}: {name}"
    elif path.startswith("/") or ".." in path.split("/"):
        detail = f"expected a name inside the archive, found {name}"
    if detail is not None:
        return Rejection(Reason.UNSAFE_MEMBER, detail, known_recording(name))
    if not is_document(name):
        return Rejection(Reason.NOT_A_DOCUMENT, f"expected a {DOCUMENT_SUFFIX} file, found {name}")
    return refused_name(name) or too_large(name, member.size, max_document_bytes)
