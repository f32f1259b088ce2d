"""A compiled scanner that reads the numbers of a document from its bytes, without creating Python objects.

The scanner is either sure or unsure about a document. Sure means: the bytes are valid JSON, every field occurs exactly
once and is well formed, and each number is exactly the float32 that `flatten.flatten` returns. Anything else, damaged
or merely unusual (an escape in a key, a number of forty digits), makes the scanner unsure. Then the parser decides.

Positions in the text are addresses, because Numba counts references to arrays. The scanner never reads outside its
buffer: the text is copied between zero bytes, which end every search, and no step reads more than `MARGIN` bytes beyond
a checked byte. The scanner releases the GIL for all documents of a call.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from genre_ray.features.essentia.scan.lanes import (
    BEGIN_LIST,
    BEGIN_OBJECT,
    COLON,
    COMMA,
    END_LIST,
    END_OBJECT,
    QUOTE,
    after_space,
    byte_at,
    compiled,
    copy,
    inlined,
    put,
    word_at,
)
from genre_ray.features.essentia.scan.numbers import UNSURE, read_numbers
from genre_ray.features.essentia.scan.unread import after_key, after_value

MARGIN = 64

# The kinds of fields. genre_ray.features.essentia.scan.fields builds the tables.
OBJECT, NUMBER, ROW, MATRIX, CATEGORY, METADATA = range(6)
ROOT = 0
UNKNOWN = -1
KEY_WORDS = 5

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]
Fields = Any  # NumPy records; Numba reads their fields as attributes


@compiled
def _row(at: int, slots: int, count: int) -> int:
    """Read a list of exactly `count` numbers, store them at `slots`, and return the address after the list."""
    if byte_at(at) != BEGIN_LIST:
        return UNSURE
    at = read_numbers(after_space(at + 1), slots, count)
    if at < 0:
        return UNSURE
    at = after_space(at)
    return at + 1 if byte_at(at) == END_LIST else UNSURE


@compiled
def _matrix(at: int, slots: int, count: int) -> int:
    """Read a list of `count` lists of `count` numbers, store them at `slots`, and return the address after it."""
    before = BEGIN_LIST
    for row in range(count):
        if byte_at(at) != before:
            return UNSURE
        at = _row(after_space(at + 1), slots + 4 * row * count, count)
        if at < 0:
            return UNSURE
        at = after_space(at)
        before = COMMA
    return at + 1 if byte_at(at) == END_LIST else UNSURE


@inlined
def _is_key(at: int, field: Any) -> bool:
    for word in range(field.words):  # noqa: SIM110 (the compiler knows no generators)
        if (word_at(at + 8 * word) ^ field.key[word]) & field.mask[word]:
            return False
    return True


@inlined
def _find(at: int, fields: Fields, parent: int, expected: int) -> int:
    """Return the field of `parent` with the key at `at`. It tries `expected`, from earlier documents, first."""
    if _is_key(at, fields[expected]):
        return expected
    for field in range(fields[parent].first, fields[parent].end):
        if _is_key(at, fields[field]):
            return field
    return UNKNOWN


@inlined
def _category(at: int, slots: int, fields: Fields, field: int) -> int:
    """Read the string of a category into its one-hot slots, and return the address after it."""
    if byte_at(at) != QUOTE:
        return UNSURE
    found = _find(at + 1, fields, field, fields[field].first)
    if found == UNKNOWN:
        return UNSURE
    for spelling in range(fields[field].first, fields[field].end):
        put(slots + 4 * fields[spelling].slot, 0.0)
    put(slots + 4 * fields[found].slot, 1.0)
    return at + 1 + fields[found].key_bytes


@compiled
def _scan_document(
    begin: int, end_of_text: int, fields: Fields, follows: Places, slots: int, counts: Places
) -> tuple[int, int]:
    """Read the document at `begin` into `slots`, and count its fields of each group in `counts`.

    Returns:
        Start and end of its metadata object relative to `begin`; UNSURE if the document is not certain.
    """
    unsure = (UNSURE, UNSURE)
    seen = np.zeros(len(fields), np.bool_)
    counts[:] = 0
    start = end = UNSURE
    parent: Any = np.int64(ROOT)
    before = len(fields)
    at = after_space(begin)
    if byte_at(at) != BEGIN_OBJECT:
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
            at = after_key(at, is_metadata)
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
            if byte_at(at) == BEGIN_OBJECT and fields[field].is_object:
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
            value, at = at, after_value(at, is_metadata)
            if is_metadata:
                start, end = value, at
        if at < 0:
            return unsure
        at = after_space(at)
        while byte_at(at) == END_OBJECT:
            at = after_space(at + 1)
            if parent == ROOT:
                return (start - begin, end - begin) if at == end_of_text and start >= 0 else unsure
            before, parent = parent, fields[parent].parent
        if byte_at(at) != COMMA:
            return unsure


def _scan(
    texts: Places,
    lengths: Places,
    copied: Bytes,
    fields: Fields,
    layouts: Places,
    leaves: Places,
    follows: Places,
    values: Values,
    vectors: Values,
) -> Places:
    """Read documents into the rows of `vectors`.

    Args:
        texts: addresses of the documents, (documents,).
        lengths: their numbers of bytes, (documents,).
        copied: a buffer of zero bytes to copy documents to, with the length of the longest document and a `MARGIN` on
            either side.
        fields: `genre_ray.features.essentia.scan.fields.FIELDS`.
        layouts: the slot of each column, (layouts, columns). Layout n has the fields of the groups 0 and n + 1.
        leaves: number of fields with values in each group, (groups,).
        follows: `genre_ray.features.essentia.scan.fields.first_guess()`; updated.
        values: float32, one per slot, with the constant slots set.
        vectors: float32 (documents, columns). Rows of documents that the scanner is unsure about are not changed.

    Returns:
        (documents, 3): the layout, and the start and end of the metadata object. The layout is UNSURE if the scanner is
        unsure about the document.
    """
    found = np.full((len(texts), 3), UNSURE, np.int64)
    # Only addresses of arguments: Numba frees its own arrays after their last use, and an address does not count.
    zeros: Any = np.int64(copied.ctypes.data)
    begin: Any = zeros + MARGIN
    slots: Any = np.int64(values.ctypes.data)
    counts = np.zeros(len(leaves), np.int64)
    for document in range(len(texts)):
        end = begin + lengths[document]
        copy(begin, texts[document], lengths[document])
        copy(end, zeros, MARGIN)
        first, after = _scan_document(begin, end, fields, follows, slots, counts)
        if first < 0 or counts[0] != leaves[0]:
            continue
        layout = UNSURE
        for other in range(len(layouts)):
            if counts[other + 1] == leaves[other + 1]:
                # The extractor never writes the fields of both versions.
                layout = other if layout == UNSURE else UNSURE - 1
        if layout >= 0:
            found[document] = (layout, first, after)
            for column in range(layouts.shape[1]):
                vectors[document, column] = values[layouts[layout, column]]
    return found


def _kept(function: Callable[..., Any]) -> Any:
    """Compile `function`, and cache the code on disk for other processes if a cache folder is writable."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache folder is writable
        return njit(nogil=True, error_model="numpy")(function)


scan = _kept(_scan)
