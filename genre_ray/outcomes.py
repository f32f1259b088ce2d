"""What reading or computing gives: accepted rows and rejected rows, each rejection with a stable reason.

A bad row is a value, never an exception, so that its neighbours are not affected.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import pyarrow as pa

DETAIL_CHARACTERS = 300
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})

REJECTED_ROW = pa.schema([(name, pa.string()) for name in ("source_uri", "recording_id", "reason", "detail")])
"""The columns of a rejected row: where it came from, its recording where that is known, and why it was rejected."""


class Outcome(NamedTuple):
    """The accepted rows, and the rejected rows with the columns of `REJECTED_ROW`."""

    accepted: pa.Table
    rejected: pa.Table

    @property
    def num_rows(self) -> int:
        """Accepted and rejected rows together."""
        return int(self.accepted.num_rows + self.rejected.num_rows)


class Reason(StrEnum):
    """A stable code, stored in rejected tables, with its `meaning` for reports.

    Codes are never renamed or reused. The first group is about a document, the second about where it came
    from, the third about what computing it did (`genre_ray.runs.isolation`).
    """

    meaning: str

    def __new__(cls, code: str, meaning: str) -> "Reason":
        """A member, written as its code and its meaning."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    EMPTY = "empty", "the document has no content"
    NOT_UTF8 = "not_utf8", "the document is not UTF-8 text"
    NOT_JSON = "not_json", "the document is not JSON"
    NOT_AN_OBJECT = "not_an_object", "the document is JSON, but not an object"
    TOO_DEEP = "too_deep", "the document is nested too deeply"
    TOO_LARGE = "too_large", "the document is larger than the limit"
    NO_LOWLEVEL = "no_lowlevel", "the document has no low-level descriptors"
    UNKNOWN_VERSION = "unknown_version", "neither the stated version nor the fields fit a known extractor"
    MISSING_VALUE = "missing_value", "a value that the document's version supplies is absent or null"
    WRONG_TYPE = "wrong_type", "a value is not of the type its column needs"
    WRONG_SHAPE = "wrong_shape", "a value is a number where a list belongs, or a list of another length"
    NOT_FINITE = "not_finite", "a value is NaN, infinite or too large for a 32-bit float"
    UNKNOWN_KEY = "unknown_key", "a musical key or scale is not among the known ones"

    NOT_A_DOCUMENT = "not_a_document", "a member of an archive is not a .json file"
    UNSAFE_MEMBER = "unsafe_member", "a member is a link or a device, or its name leaves the archive"
    ARCHIVE_TRUNCATED = "archive_truncated", "the archive ends early; what came before is kept"
    ARCHIVE_UNREADABLE = "archive_unreadable", "the file is not an archive, or it is damaged from here on"
    TOO_MANY_MEMBERS = "too_many_members", "the archive has more members than the limit; those within it are kept"
    EXPANDS_TOO_FAR = "expands_too_far", "the archive expands beyond the limit; what came before is kept"
    ID_TOO_LONG = "id_too_long", "the name is too long, or the recording id in it"
    UNREADABLE = "unreadable", "the file is not a regular file, a link to nothing, or closed to this process"

    CRASHED = "crashed", "the item ended the process that computed it, twice"
    TIMED_OUT = "timed_out", "the item took longer than the limit, twice"
    OUT_OF_MEMORY = "out_of_memory", "the item took more memory than the limit, twice"


@dataclass(frozen=True, slots=True)
class Rejection:
    """An item that did not become a row.

    `detail` says what was expected and what was found; it is made valid UTF-8 on one line of at most
    `DETAIL_CHARACTERS` characters. `recording_id` is None where it is not known.
    """

    reason: Reason
    detail: str
    recording_id: str | None = None

    def __post_init__(self) -> None:
        detail = printable(self.detail[:DETAIL_CHARACTERS])
        if len(detail) > DETAIL_CHARACTERS or len(self.detail) > DETAIL_CHARACTERS:
            detail = detail[: DETAIL_CHARACTERS - 1] + "…"
        object.__setattr__(self, "detail", detail)
        if self.recording_id is not None:
            object.__setattr__(self, "recording_id", printable(self.recording_id))


def rejections(rejected: "Iterable[tuple[str, Rejection]]") -> pa.Table:
    """The rejected rows for pairs of (source URI, rejection)."""
    rows = [
        {"source_uri": uri, "recording_id": why.recording_id, "reason": str(why.reason), "detail": why.detail}
        for uri, why in rejected
    ]
    # Mostly there are none, and to make a table of no rows takes as long as to make one of a few.
    return pa.Table.from_pylist(rows, schema=REJECTED_ROW) if rows else REJECTED_ROW.empty_table()


def printable(text: str) -> str:
    r"""Return `text` as valid UTF-8 on one line: control characters and lone surrogates become escapes.

    Texts that differ stay different in all but contrived cases, so that names do not collide.

    >>> printable("one\ttwo \udcff")
    'one\\ttwo \\udcff'
    """
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _ESCAPED_CATEGORIES else char
        for char in text
    )
