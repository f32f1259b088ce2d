"""Documents in files of their own, as they were planned."""

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
    """The document in a file of its own, as it was planned; one that is larger than the limit is not read.

    Raises:
        InputError: the file is not the planned one.
        NotFoundError: it is gone.
        StorageError: the store fails just now, which says nothing about the document.
    """
    name = file.uri.rpartition("/")[2]
    return RawDocument(bounded(name), bounded_uri(file.uri), _payload(file, name, max_document_bytes))


def refused_file(file: StoredFile, why: Rejection) -> RawDocument:
    """The row of a single file that is not to be read."""
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
        if file.version == MISSING:
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
        raise gone(file.uri) from None
