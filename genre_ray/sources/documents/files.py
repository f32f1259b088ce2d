"""Read documents that are single files."""

import os
from dataclasses import replace
from typing import BinaryIO

from genre_ray.errors import NotFoundError, StorageError
from genre_ray.outcomes import Reason, Rejection
from genre_ray.sources.documents.names import bounded
from genre_ray.sources.documents.raw import (
    MAX_DOCUMENT_BYTES,
    RawDocument,
    bounded_uri,
    known_recording,
    refused_name,
    too_large,
)
from genre_ray.storage import objects
from genre_ray.storage.files import MISSING, StoredFile, gone


def read_file(file: StoredFile, max_document_bytes: int = MAX_DOCUMENT_BYTES) -> RawDocument:
    """Read a document from a file. A document that is larger than the limit is rejected without reading it.

    Args:
        file: the file as listed when the run was planned.
        max_document_bytes: the limit.

    Raises:
        InputError: the file changed since then.
        NotFoundError: it does not exist any more.
        StorageError: reading failed, which says nothing about the document.
    """
    name = file.uri.rpartition("/")[2]
    return RawDocument(bounded(name), bounded_uri(file.uri), _payload(file, name, max_document_bytes))


def refused_file(file: StoredFile, why: Rejection) -> RawDocument:
    """Make the rejected row of a single file."""
    name = file.uri.rpartition("/")[2]
    return RawDocument(bounded(name), bounded_uri(file.uri), replace(why, recording_id=known_recording(name)))


def _payload(file: StoredFile, name: str, max_document_bytes: int) -> bytes | Rejection:
    if why := refused_name(name) or too_large(name, file.size, max_document_bytes):
        return why
    opened = open_planned(file)
    if isinstance(opened, str):
        return Rejection(Reason.UNREADABLE, f"expected a readable file, found {opened}", known_recording(name))
    with opened as stream:
        try:
            payload = stream.read(file.size)
        except OSError as error:
            raise StorageError(f"{file.uri}: {error}; try again when its storage is available") from None
    if not objects.is_remote(file.uri):
        # A local file may have changed while it was read. The ranges of an S3 object are checked when they are read.
        objects.require_unchanged(file)
    return payload


def open_planned(file: StoredFile) -> BinaryIO | str:
    """Open a planned file, or return in words why it can never be read.

    Pipes and devices are not opened, because reading them could block or never end.

    Raises:
        InputError: the file changed since the run was planned.
        NotFoundError: it does not exist any more.
        StorageError: it cannot be read at the moment.
    """
    if not objects.is_remote(file.uri):
        if file.version == MISSING:
            return "a broken link"
        if os.path.exists(file.uri) and not os.path.isfile(file.uri):
            if file.size:
                objects.require_unchanged(file)
            return "a file that is not a regular file"
    try:
        return objects.open_stream(file.uri, file)
    except NotFoundError as error:
        if objects.is_remote(file.uri):
            raise
        if os.path.exists(file.uri):
            return str(error)
        raise gone(file.uri) from None
