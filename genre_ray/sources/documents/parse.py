"""Parse AcousticBrainz low-level documents: the JSON that Essentia's music extractor writes for a recording.

`parse_document` never raises an exception, whatever the bytes are, and returns only valid UTF-8 text. It does not check
the numeric values. `genre_ray.features.essentia.flatten` does.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import orjson

from genre_ray.outcomes import Reason, Rejection
from genre_ray.sources.documents.names import MAX_ID_CHARACTERS, identifier, identify
from genre_ray.sources.documents.nesting import is_deeper

MAX_LEVELS = 64
MAX_ARTISTS = 100
"""Maximum number of artist ids that are kept per document. MusicBrainz recordings have some dozens at most."""
MAX_EXTRACTOR_CHARACTERS = 256
_ROOMS = ("lowlevel", "rhythm", "tonal")


class DocumentVersion(StrEnum):
    """The versions of documents, with the names that the extractor writes."""

    MUSIC_1 = "music 1.0"
    MUSIC_2 = "music 2.0"


@dataclass(frozen=True, slots=True)
class Provenance:
    """The recording of a document, and the program that computed it. All values have a maximum length.

    Attributes:
        recording_id: MusicBrainz id of the recording, or another id from the file name.
        submission: submission number of the document.
        artist_ids, release_group_id: MusicBrainz ids from the document's tags.
        extractor: "<extractor> / essentia <release> / <git sha>", or "unknown" if the document does not state it.
    """

    recording_id: str
    submission: int
    artist_ids: tuple[str, ...]
    release_group_id: str | None
    extractor: str


@dataclass(frozen=True, slots=True)
class Document(Provenance):
    """A parsed document: `lowlevel`, `rhythm` and `tonal` are its JSON objects, unchecked."""

    version: DocumentVersion
    lowlevel: dict[str, Any]
    rhythm: dict[str, Any]
    tonal: dict[str, Any]


def parse_document(name: str, payload: bytes) -> Document | Rejection:
    """Parse a document.

    Args:
        name: file name, whose last part contains the recording id and the submission number.
        payload: the content.

    Returns:
        The document, or why it is rejected.
    """
    recording_id, _ = identify(name)
    content = _parse(payload, recording_id)
    if isinstance(content, Rejection):
        return content
    for room in _ROOMS:
        if not isinstance(content.get(room), dict):
            detail = f"expected an object under {room}, found {_kind(content, room)}"
            return Rejection(Reason.NO_LOWLEVEL, detail, recording_id)
    metadata = _object(content, "metadata")
    about = provenance(name, metadata)
    version = stated_version(metadata) or _evident_version(content["rhythm"], content["tonal"])
    if version is None:
        detail = f"expected {' or '.join(DocumentVersion)}, found {about.extractor} and fields of neither"
        return Rejection(Reason.UNKNOWN_VERSION, detail, recording_id)
    return Document(
        recording_id=recording_id,
        submission=about.submission,
        artist_ids=about.artist_ids,
        release_group_id=about.release_group_id,
        extractor=about.extractor,
        version=version,
        lowlevel=content["lowlevel"],
        rhythm=content["rhythm"],
        tonal=content["tonal"],
    )


def provenance(name: str, metadata: dict[str, Any]) -> Provenance:
    """Read the provenance of a document from its file name and its `metadata`."""
    recording_id, submission = identify(name)
    tags = _object(metadata, "tags")
    return Provenance(
        recording_id=recording_id,
        submission=submission,
        artist_ids=_ids(tags, "musicbrainz_artistid"),
        release_group_id=next(iter(_ids(tags, "musicbrainz_releasegroupid")), None),
        extractor=_extractor(_stated(metadata)),
    )


def stated_version(metadata: dict[str, Any]) -> DocumentVersion | None:
    """Return the version that a document's `metadata` states, or None if it is unknown."""
    try:
        return DocumentVersion(str(_stated(metadata).get("extractor")))
    except ValueError:
        return None


def _parse(payload: bytes, recording_id: str) -> dict[str, Any] | Rejection:
    try:
        content = orjson.loads(payload)
    except orjson.JSONDecodeError:
        content = _parse_leniently(payload, recording_id)
    if isinstance(content, Rejection):
        return content
    if not isinstance(content, dict):
        detail = f"expected a JSON object, found {type(content).__name__}"
        return Rejection(Reason.NOT_AN_OBJECT, detail, recording_id)
    if is_deeper(payload, content, MAX_LEVELS):
        return Rejection(Reason.TOO_DEEP, f"expected at most {MAX_LEVELS} levels, found more", recording_id)
    return content


def _parse_leniently(payload: bytes, recording_id: str) -> Any:
    """Parse a document that the strict parser refused, or return why it is rejected.

    NaN, Infinity and numbers larger than a double are accepted here. They do no harm in a field that is not used, and
    `flatten` reports them in the others. A byte order mark and escapes of lone surrogates are accepted too.
    """
    if not payload.strip():
        return Rejection(
            Reason.EMPTY, f"expected a JSON object, found {len(payload)} bytes of white space", recording_id
        )
    try:
        text = payload.decode("utf-8-sig")
        # Python refuses integers with thousands of digits. As floats they become infinite.
        return json.loads(text, parse_int=float)
    except UnicodeDecodeError as error:
        detail = f"expected UTF-8, found byte 0x{payload[error.start]:02x} at {error.start}: {error.reason}"
        return Rejection(Reason.NOT_UTF8, detail, recording_id)
    except json.JSONDecodeError as error:
        detail = f"expected JSON, found at line {error.lineno}, column {error.colno}: {error.msg}"
        return Rejection(Reason.NOT_JSON, detail, recording_id)
    except RecursionError:
        return Rejection(Reason.TOO_DEEP, f"expected at most {MAX_LEVELS} levels, found far more", recording_id)


def _stated(metadata: dict[str, Any]) -> dict[str, Any]:
    """The document's description of its extractor, which is one level deeper in documents with high-level data."""
    stated = _object(metadata, "version")
    return _object(stated, "lowlevel") or stated


def _evident_version(rhythm: dict[str, Any], tonal: dict[str, Any]) -> DocumentVersion | None:
    """The version that follows from the shapes of the fields."""
    peak = rhythm.get("bpm_histogram_first_peak_bpm")
    if isinstance(peak, dict) or "key_key" in tonal:
        return DocumentVersion.MUSIC_1
    if isinstance(peak, int | float) or "key_temperley" in tonal:
        return DocumentVersion.MUSIC_2
    return None


def _extractor(stated: dict[str, Any]) -> str:
    texts = (stated.get(key) for key in ("extractor", "essentia", "essentia_git_sha"))
    return _described(*(text.strip()[:MAX_EXTRACTOR_CHARACTERS] if isinstance(text, str) else "" for text in texts))


@lru_cache(maxsize=8)  # the documents of a catalog come from a few extractors
def _described(*texts: str) -> str:
    extractor, release, sha = (identifier(text) or "unknown" for text in texts)
    if extractor == release == sha == "unknown":
        return "unknown"
    return f"{extractor} / essentia {release} / {sha}"[:MAX_EXTRACTOR_CHARACTERS]


def _ids(tags: dict[str, Any], tag: str) -> tuple[str, ...]:
    """The ids under `tag`, which is a list of ids or a single id. Other values are ignored."""
    found = tags.get(tag)
    ids: dict[str, None] = {}
    for text in found if isinstance(found, list) else [found]:
        if len(ids) == MAX_ARTISTS:
            break
        # The length is checked first, so that a text of megabytes is not normalised.
        if isinstance(text, str) and len(text := text.strip()) <= MAX_ID_CHARACTERS:
            text = identifier(text)
            if 0 < len(text) <= MAX_ID_CHARACTERS:
                ids[text] = None
    return tuple(ids)


def _object(parent: dict[str, Any], key: str) -> dict[str, Any]:
    child = parent.get(key)
    return child if isinstance(child, dict) else {}


def _kind(parent: dict[str, Any], key: str) -> str:
    return type(parent[key]).__name__ if key in parent else "nothing"
