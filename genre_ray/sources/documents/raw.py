"""A document before it is parsed: its bytes, or the reason why it is refused unread."""

from dataclasses import dataclass

from genre_ray.outcomes import Reason, Rejection
from genre_ray.sources.documents.names import MAX_ID_CHARACTERS, MAX_NAME_CHARACTERS, bounded, identify

DOCUMENT_SUFFIX = ".json"
MAX_DOCUMENT_BYTES = 8 * 2**20


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


def is_document(name: str) -> bool:
    """Whether `name` is a document's, by its suffix."""
    return name.lower().endswith(DOCUMENT_SUFFIX)


def known_recording(name: str) -> str | None:
    """The recording that a name stands for; None where it is not a document's, or no id."""
    if not is_document(name) or refused_name(name):
        return None
    return identify(name)[0]


def refused_name(name: str) -> Rejection | None:
    """Why a name cannot stand for a recording; None where it can."""
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
    """Why a document of `size` bytes is not read; None where it is at most `limit` bytes."""
    if size <= limit:
        return None
    return Rejection(Reason.TOO_LARGE, f"expected at most {limit} bytes, found {size}", known_recording(name))


def bounded_uri(uri: str) -> str:
    """An address as it can be stored, with room for the name of an archive and that of a member."""
    return bounded(uri, 2 * MAX_NAME_CHARACTERS)
