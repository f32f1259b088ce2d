"""A compiled scanner: from the bytes of a document that is in order to its numbers, without a Python object between.

It is sure or it is not. Sure means that the bytes are JSON, that every field that it counts was there once and well
formed, and that each number is the float32 that `genre_ray.features.flatten` would give, to the bit. Whatever else it
meets, be it damage or only unusual (an escape in a key, a number of forty digits), makes it unsure, and the plain way
decides.

Places in the text are addresses, for which the compiler counts no references. Reading never leaves the text: the zeros
of its margins end every search, and no step reads further than a margin from a byte that was looked at.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from genre_ray.features.scan_lanes import (
    BACKSLASH,
    COLON,
    COMMA,
    LANES,
    QUOTE,
    after_space,
    byte_at,
    compiled,
    inlined,
    plain_at,
    put,
    run,
    word_at,
)
from genre_ray.features.scan_numbers import UNSURE, after_number, read_numbers

MARGIN = 64

# What a field holds; genre_ray.features.scan_fields makes the tables.
OBJECT, NUMBER, ROW, MATRIX, CATEGORY, METADATA = range(6)
ROOT = 0
UNKNOWN = -1
KEY_WORDS = 5

# Objects and lists within each other in a part that is passed over; with those around it below the limit of
# genre_ray.catalog.documents.
_MAX_OPEN = 60

_OBJECT, _OBJECT_END, _LIST, _LIST_END = (ord(char) for char in "{}[]")
_NINE, _ASCII = ord("9"), 0x80
_WORDS = tuple(
    (np.uint64(int.from_bytes(word, "little")), np.uint64((1 << 8 * len(word)) - 1), len(word))
    for word in (b"true", b"false", b"null")
)

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]
Fields = Any  # records, whose fields the compiler reads as attributes


@compiled
def _after_string(at: int, checked_later: bool) -> int:
    """The place after the string that goes on at `at`.

    Only where it is checked later, by a whole parser, may it hold escapes and other characters than ASCII.
    """
    while True:
        count = run(plain_at(at))
        at += count
        if count == LANES:
            continue
        if byte_at(at) == QUOTE:
            return at + 1
        if not checked_later:
            return UNSURE
        if byte_at(at) == BACKSLASH:
            at += 2
        elif byte_at(at) >= _ASCII:
            at += 1
        else:
            return UNSURE


@inlined
def _after_key(at: int, checked_later: bool) -> int:
    """The place of the value whose key's opening quote is at `at`."""
    if byte_at(at) != QUOTE:
        return UNSURE
    at = _after_string(at + 1, checked_later)
    if at < 0:
        return UNSURE
    at = after_space(at)
    return after_space(at + 1) if byte_at(at) == COLON else UNSURE


@inlined
def _after_word(at: int) -> int:
    for word, mask, length in _WORDS:
        if word_at(at) & mask == word:
            return at + length
    return UNSURE


@compiled
def _after_value(at: int, checked_later: bool) -> int:
    """The place after the value at `at`, of any kind, which is proven to be JSON."""
    is_object = np.zeros(_MAX_OPEN + 1, np.bool_)
    level = 0
    while True:
        opened = byte_at(at) == _OBJECT or byte_at(at) == _LIST
        if opened:
            level += 1
            if level > _MAX_OPEN:
                return UNSURE
            is_object[level] = byte_at(at) == _OBJECT
            at = after_space(at + 1)
            if byte_at(at) != (_OBJECT_END if is_object[level] else _LIST_END):
                if is_object[level]:
                    at = _after_key(at, checked_later)
                    if at < 0:
                        return UNSURE
                continue
        elif byte_at(at) == QUOTE:
            at = _after_string(at + 1, checked_later)
        elif byte_at(at) > _NINE:
            at = _after_word(at)
        else:
            at = after_number(at)
        if at < 0:
            return UNSURE
        while True:
            if level == 0:
                return at
            at = after_space(at)
            if byte_at(at) == COMMA:
                at = after_space(at + 1)
                if is_object[level]:
                    at = _after_key(at, checked_later)
                    if at < 0:
                        return UNSURE
                break
            if byte_at(at) != (_OBJECT_END if is_object[level] else _LIST_END):
                return UNSURE
            level -= 1
            at += 1


@compiled
def _row(at: int, slots: int, count: int) -> int:
    """Read a list of exactly `count` numbers to the address `slots`; gives the place after it."""
    if byte_at(at) != _LIST:
        return UNSURE
    at = read_numbers(after_space(at + 1), slots, count)
    if at < 0:
        return UNSURE
    at = after_space(at)
    return at + 1 if byte_at(at) == _LIST_END else UNSURE


@compiled
def _matrix(at: int, slots: int, count: int) -> int:
    """Read a list of `count` lists of `count` numbers to the address `slots`; gives the place after it."""
    before = _LIST
    for row in range(count):
        if byte_at(at) != before:
            return UNSURE
        at = _row(after_space(at + 1), slots + 4 * row * count, count)
        if at < 0:
            return UNSURE
        at = after_space(at)
        before = COMMA
    return at + 1 if byte_at(at) == _LIST_END else UNSURE


@inlined
def _is_key(at: int, field: Any) -> bool:
    for word in range(field.words):  # noqa: SIM110 (the compiler knows no generators)
        if (word_at(at + 8 * word) ^ field.key[word]) & field.mask[word]:
            return False
    return True


@inlined
def _find(at: int, fields: Fields, parent: int, expected: int) -> int:
    """The field of `parent` whose key stands at `at`, first looked for where it stood in the last document."""
    if _is_key(at, fields[expected]):
        return expected
    for field in range(fields[parent].first, fields[parent].end):
        if _is_key(at, fields[field]):
            return field
    return UNKNOWN


@inlined
def _category(at: int, slots: int, fields: Fields, field: int) -> int:
    """Read one of the spellings of a category into its one-hot slots; gives the place after it."""
    if byte_at(at) != QUOTE:
        return UNSURE
    found = _find(at + 1, fields, field, fields[field].first)
    if found == UNKNOWN:
        return UNSURE
    for spelling in range(fields[field].first, fields[field].end):
        put(slots + 4 * fields[spelling].slot, 0.0)
    put(slots + 4 * fields[found].slot, 1.0)
    return at + 1 + fields[found].key_bytes


def _scan(text: Bytes, fields: Fields, follows: Places, values: Values) -> tuple[Places, int, int]:
    """Read a document into `values`; tell how many fields of each group it had, and where its metadata are.

    Args:
        text: the document's bytes between two `MARGIN`s of zeros.
        fields: `genre_ray.features.scan_fields.FIELDS`.
        follows: `genre_ray.features.scan_fields.first_guess()`, which is changed.
        values: float32, one for each slot of `fields`.

    Returns:
        Counts by group, and the first place of the metadata's object and the one after it; both UNSURE where the
        scanner is.
    """
    begin: Any = np.int64(text.ctypes.data) + MARGIN
    slots: Any = np.int64(values.ctypes.data)
    end_of_text = begin + len(text) - 2 * MARGIN
    seen = np.zeros(len(fields), np.bool_)
    counts = np.zeros(3, np.int64)
    unsure = (counts, UNSURE, UNSURE)
    start = end = UNSURE
    parent: Any = np.int64(ROOT)
    before = len(fields)
    at = after_space(begin)
    if byte_at(at) != _OBJECT:
        return unsure
    while True:
        # A key, after the bracket or the comma at `at`.
        at = after_space(at + 1)
        if byte_at(at) != QUOTE:
            return unsure
        field = _find(at + 1, fields, parent, follows[before])
        kind = UNKNOWN if field == UNKNOWN else fields[field].kind
        is_metadata = kind == METADATA
        if field == UNKNOWN:
            at = _after_key(at, is_metadata)
            if at < 0:
                return unsure
        else:
            if seen[field]:
                return unsure
            seen[field] = True
            follows[before] = field
            before = field
            at = after_space(at + 1 + fields[field].key_bytes)
            if byte_at(at) != COLON:
                return unsure
            at = after_space(at + 1)
            if byte_at(at) == _OBJECT and fields[field].is_object:
                parent, before = field, len(fields) + field
                continue
            counts[fields[field].group] += 1
            length, slot = fields[field].length, slots + 4 * fields[field].slot
        if kind == ROW:
            at = _row(at, slot, length)
        elif kind == NUMBER:
            at = read_numbers(at, slot, length)
        elif kind == MATRIX:
            at = _matrix(at, slot, length)
        elif kind == CATEGORY:
            at = _category(at, slots, fields, field)
        elif kind == OBJECT:
            return unsure
        else:
            value, at = at, _after_value(at, is_metadata)
            if is_metadata:
                start, end = value, at
        if at < 0:
            return unsure
        at = after_space(at)
        while byte_at(at) == _OBJECT_END:
            at = after_space(at + 1)
            if parent == ROOT:
                return (counts, start - begin, end - begin) if at == end_of_text else unsure
            before, parent = parent, fields[parent].parent
        if byte_at(at) != COMMA:
            return unsure


def _kept(function: Callable[..., Any]) -> Any:
    """`function` compiled, and kept on disk for other processes where there is a place to write."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return njit(nogil=True, error_model="numpy")(function)


scan = _kept(_scan)
