"""A document before it is parsed: its bytes, or why it is rejected without reading it."""

from dataclasses import dataclass

from genre_ray.outcomes import Reason, Rejection
from genre_ray.sources.documents.names import MAX_ID_CHARACTERS, MAX_NAME_CHARACTERS, bounded, identify

DOCUMENT_SUFFIX = ".json"
MAX_DOCUMENT_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class RawDocument:
    """The bytes of a document, or why it is rejected.

    Attributes:
        name: name of the file or of the archive member.
        uri: path or URI of the file; `<archive>#<member>` for a member of an archive.
        payload: the content, or the rejection. A memoryview keeps a chunk of the archive in memory.
    """

    name: str
    uri: str
    payload: bytes | memoryview | Rejection


def is_document(name: str) -> bool:
    """Whether a file is a document, by the suffix of its name."""
    return name.lower().endswith(DOCUMENT_SUFFIX)


def known_recording(name: str) -> str | None:
    """Return the recording id in a file name, or None if it is not the name of a document or contains no valid id."""
    if not is_document(name) or refused_name(name):
        return None
    return identify(name)[0]


def refused_name(name: str) -> Rejection | None:
    """Return why a file name contains no valid recording id, or None if it does."""
    if len(name) <= MAX_ID_CHARACTERS and name.isprintable():
        return None
    if len(name) > MAX_NAME_CHARACTERS:
        detail = f"expected a name of at most {MAX_NAME_CHARACTERS} characters, found {len(name)}: {name}"
        return Rejection(Reason.ID_TOO_LONG, detail)
    if (length := len(identify(name)[0])) > MAX_ID_CHARACTERS:
        detail = f"expected a recording id of at most {MAX_ID_CHARACTERS} characters, found {length}: {name}"
        return Rejection(Reason.ID_TOO_LONG, detail)
    return None


def too_large(name: str, size: int, limit: int) -> Rejection | None:
    """Return the rejection of a document that is larger than the limit, or None."""
    if size <= limit:
        return None
    return Rejection(Reason.TOO_LARGE, f"expected at most {limit} bytes, found {size}", known_recording(name))


def bounded_uri(uri: str) -> str:
    """Make a URI printable, and cut it to the maximum length of an archive's path and a member's name together."""
    return bounded(uri, 2 * MAX_NAME_CHARACTERS)
