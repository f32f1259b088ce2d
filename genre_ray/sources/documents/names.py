"""Normalise ids and file names, so that every table can store them, and read recording ids from file names."""

import re

from genre_ray.outcomes import printable

MAX_ID_CHARACTERS = 256
"""Maximum length of an id. File names on common file systems are shorter."""
MAX_NAME_CHARACTERS = 4096
"""Maximum length of an archive member's name. Common file systems do not allow longer paths."""

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_MBID = re.compile(_UUID, re.IGNORECASE)
# No leading zeros and at most nine digits (int32). Otherwise two names could stand for the same submission.
_SUBMISSION = re.compile(rf"({_UUID})-(0|[1-9][0-9]{{0,8}})", re.IGNORECASE)


def identifier(text: str) -> str:
    """Normalise an id: strip white space, escape characters that are not printable, and lower-case a MusicBrainz id."""
    text = printable(text.strip())
    return text.lower() if _MBID.fullmatch(text) else text


def bounded(text: str, limit: int = MAX_NAME_CHARACTERS) -> str:
    """Make a text printable, and cut it to `limit` characters with an ellipsis at the end."""
    stored = printable(text[: limit + 1])
    return stored if len(stored) <= limit else stored[: limit - 1] + "…"


def identify(name: str) -> tuple[str, int]:
    """Return the recording id and the submission number in a document's file name.

    The stem `<uuid>-<n>` means submission n of a recording, as in the AcousticBrainz dumps. Any other stem is a
    recording id with submission 0: `song-3` is not the third submission of `song`.

    >>> identify("lowlevel/54/54551AAD-4FCA-4BA4-9CE2-F6B2D9B5FCEB-2.json")
    ('54551aad-4fca-4ba4-9ce2-f6b2d9b5fceb', 2)
    """
    stem = name.rpartition("/")[2]
    if len(stem) > len(".json") and stem.lower().endswith(".json"):
        stem = stem[: -len(".json")]
    found = _SUBMISSION.fullmatch(stem)
    if found:
        return found[1].lower(), int(found[2])
    return identifier(stem), 0
