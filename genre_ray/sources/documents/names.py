"""Identifiers as they stand in file names, tags and tables, always as text that any table can store."""

import re

from genre_ray.outcomes import printable

MAX_ID_CHARACTERS = 256
"""A longer text is no id of anything: a file name on any common file system is shorter."""
MAX_NAME_CHARACTERS = 4096
"""A longer name of an archive's member cannot be extracted to a disk either."""

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_MBID = re.compile(_UUID, re.IGNORECASE)
# No leading zeros, and few enough digits for an int32: otherwise two names would share one submission.
_SUBMISSION = re.compile(rf"({_UUID})-(0|[1-9][0-9]{{0,8}})", re.IGNORECASE)


def identifier(text: str) -> str:
    """`text` without surrounding space and printable; a MusicBrainz id also in lower case."""
    text = printable(text.strip())
    return text.lower() if _MBID.fullmatch(text) else text


def bounded(text: str, limit: int = MAX_NAME_CHARACTERS) -> str:
    """`text` as it can be stored: printable, and cut to at most `limit` characters, the last one then an ellipsis."""
    stored = printable(text[: limit + 1])
    return stored if len(stored) <= limit else stored[: limit - 1] + "…"


def identify(name: str) -> tuple[str, int]:
    """The recording id and the submission that a document's file name stands for.

    The stem `<uuid>-<n>` is submission n of a recording, as in the AcousticBrainz dumps. Any other stem is a
    recording id as a whole, submission 0: `song-3` is not the third submission of `song`.

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
