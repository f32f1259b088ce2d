"""The result of processing rows: accepted rows, and rejected rows with a reason each.

A bad row becomes a rejected row instead of an exception, so that it does not affect other rows.
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
"""The columns of a rejected row. `recording_id` is null if it is not known."""


class Outcome(NamedTuple):
    """The result of one batch: the accepted rows, and the rejected rows with the schema `REJECTED_ROW`."""

    accepted: pa.Table
    rejected: pa.Table

    @property
    def num_rows(self) -> int:
        """Number of accepted and rejected rows together."""
        return int(self.accepted.num_rows + self.rejected.num_rows)


class Reason(StrEnum):
    """Why a row was rejected: a code that rejected tables store, and its `meaning` in words.

    Codes are never renamed or reused. The first group is about the content of a document. The second group is about its
    file or archive. The third group is about the process that computed the row, see `genre_ray.runs.isolation`.
    """

    meaning: str

    def __new__(cls, code: str, meaning: str) -> "Reason":
        """Make a member from its code and its meaning."""
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
    MISSING_VALUE = "missing_value", "a value that documents of this version contain is missing or null"
    WRONG_TYPE = "wrong_type", "a value has another type than its column"
    WRONG_SHAPE = "wrong_shape", "a value is a number instead of a list, or a list of another length"
    NOT_FINITE = "not_finite", "a value is NaN, infinite or too large for a 32-bit float"
    UNKNOWN_KEY = "unknown_key", "a musical key or scale is not a known one"

    NOT_A_DOCUMENT = "not_a_document", "a member of an archive is not a .json file"
    UNSAFE_MEMBER = "unsafe_member", "a member is a link or a device, or its name points outside the archive"
    ARCHIVE_TRUNCATED = "archive_truncated", "the archive ends early; the members before that are kept"
    ARCHIVE_UNREADABLE = "archive_unreadable", "the file is not an archive, or it is damaged from this point on"
    TOO_MANY_MEMBERS = (
        "too_many_members",
        "the archive has more members than the limit; the members up to the limit are kept",
    )
    EXPANDS_TOO_FAR = "expands_too_far", "the archive expands beyond the limit; the members before that are kept"
    ID_TOO_LONG = "id_too_long", "the name of the file, or the recording id in it, is too long"
    UNREADABLE = (
        "unreadable",
        "the file is not a regular file, is a broken link, or may not be read by this process",
    )

    CRASHED = "crashed", "processing the item crashed the process, twice"
    TIMED_OUT = "timed_out", "processing the item took longer than the limit, twice"
    OUT_OF_MEMORY = "out_of_memory", "processing the item took more memory than the limit, twice"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an item did not become a row.

    Attributes:
        reason: the code.
        detail: what was wrong with this item. It is converted to one line of valid UTF-8 and cut to
            `DETAIL_CHARACTERS` characters.
        recording_id: None if it is not known.
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
    """Convert pairs of (source URI, rejection) to a table with the schema `REJECTED_ROW`."""
    rows = [
        {"source_uri": uri, "recording_id": why.recording_id, "reason": str(why.reason), "detail": why.detail}
        for uri, why in rejected
    ]
    # Most batches have no rejected row, and from_pylist is slow even for an empty list.
    return pa.Table.from_pylist(rows, schema=REJECTED_ROW) if rows else REJECTED_ROW.empty_table()


def printable(text: str) -> str:
    r"""Return `text` as valid UTF-8 on one line, with control characters and lone surrogates escaped.

    Two different texts give different results except in contrived cases, so names do not collide.

    >>> printable("one\ttwo \udcff")
    'one\\ttwo \\udcff'
    """
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _ESCAPED_CATEGORIES else char
        for char in text
    )
