"""AcousticBrainz low-level documents: the JSON that Essentia's music extractor writes for one recording.

`parse_document` never raises, whatever the bytes are, and returns only text that is valid UTF-8. Values are
not looked at here: `genre_ray.features.essentia.flatten` does that.
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
"""Artist ids that are kept of a document: the most credited recordings of MusicBrainz have some dozens."""
MAX_EXTRACTOR_CHARACTERS = 256
_ROOMS = ("lowlevel", "rhythm", "tonal")


class DocumentVersion(StrEnum):
    """The layouts of a document, named as the extractor names itself."""

    MUSIC_1 = "music 1.0"
    MUSIC_2 = "music 2.0"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Whose a document is and what made it: one submission of one recording.

    `extractor` reads "<extractor> / essentia <release> / <git sha>", or "unknown" where the document does not
    say. All of it is bounded, however much a document states: rows are held by the thousand.
    """

    recording_id: str
    submission: int
    artist_ids: tuple[str, ...]
    release_group_id: str | None
    extractor: str


@dataclass(frozen=True, slots=True)
class Document(Provenance):
    """A document and what it measured: `lowlevel`, `rhythm` and `tonal` are the parsed JSON objects, as found."""

    version: DocumentVersion
    lowlevel: dict[str, Any]
    rhythm: dict[str, Any]
    tonal: dict[str, Any]


def parse_document(name: str, payload: bytes) -> Document | Rejection:
    """Read the document stored under `name`, whose last part gives the recording and the submission."""
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
    """What `name` and a document's `metadata` tell about it."""
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
    """The version that a document's `metadata` names, if it is a known one."""
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
    """Parse what the strict parser refused, or say why not.

    NaN, Infinity and numbers beyond a double are accepted here: in an ignored field they do no harm, and in a
    wanted one flattening names the column. So are a byte order mark and escapes of lone surrogates.
    """
    if not payload.strip():
        return Rejection(Reason.EMPTY, f"expected a JSON object, found {len(payload)} bytes of nothing", recording_id)
    try:
        text = payload.decode("utf-8-sig")
        # Python refuses integers of thousands of digits; as floats they are infinite, which is what they
        # amount to.
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
    """What the document says of its extractor; with high-level data it stands one level deeper."""
    stated = _object(metadata, "version")
    return _object(stated, "lowlevel") or stated


def _evident_version(rhythm: dict[str, Any], tonal: dict[str, Any]) -> DocumentVersion | None:
    """The version that the shapes of the fields tell."""
    peak = rhythm.get("bpm_histogram_first_peak_bpm")
    if isinstance(peak, dict) or "key_key" in tonal:
        return DocumentVersion.MUSIC_1
    if isinstance(peak, int | float) or "key_temperley" in tonal:
        return DocumentVersion.MUSIC_2
    return None


def _extractor(stated: dict[str, Any]) -> str:
    texts = (stated.get(key) for key in ("extractor", "essentia", "essentia_git_sha"))
    return _described(*(text.strip()[:MAX_EXTRACTOR_CHARACTERS] if isinstance(text, str) else "" for text in texts))


@lru_cache(maxsize=8)  # a catalog's documents are of a few extractors
def _described(*texts: str) -> str:
    extractor, release, sha = (identifier(text) or "unknown" for text in texts)
    if extractor == release == sha == "unknown":
        return "unknown"
    return f"{extractor} / essentia {release} / {sha}"[:MAX_EXTRACTOR_CHARACTERS]


def _ids(tags: dict[str, Any], tag: str) -> tuple[str, ...]:
    """The ids under `tag`, which is a list of them or a single one; anything else in there is passed over."""
    found = tags.get(tag)
    ids: dict[str, None] = {}
    for text in found if isinstance(found, list) else [found]:
        if len(ids) == MAX_ARTISTS:
            break
        # A text of megabytes is not made printable first.
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
