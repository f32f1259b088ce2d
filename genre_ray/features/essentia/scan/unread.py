"""Skip JSON values that the compiled scanner does not need, and check that they are valid JSON."""

import numpy as np

from genre_ray.features.essentia.scan.lanes import (
    BACKSLASH,
    BEGIN_LIST,
    BEGIN_OBJECT,
    COLON,
    COMMA,
    END_LIST,
    END_OBJECT,
    LANES,
    QUOTE,
    after_space,
    byte_at,
    compiled,
    inlined,
    plain_at,
    run,
    word_at,
)
from genre_ray.features.essentia.scan.numbers import UNSURE, after_number

# Maximum nesting in a skipped value. Together with the objects around it, it stays below the limit of
# genre_ray.sources.documents.parse.
_MAX_OPEN = 60

_NINE, _ASCII = ord("9"), 0x80
_WORDS = tuple(
    (np.uint64(int.from_bytes(word, "little")), np.uint64((1 << 8 * len(word)) - 1), len(word))
    for word in (b"true", b"false", b"null")
)


@compiled
def after_string(at: int, checked_later: bool) -> int:
    """Return the address after a string, given an address inside it.

    Escapes and characters outside ASCII are allowed only if a full parser checks the string later.
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
def after_key(at: int, checked_later: bool) -> int:
    """Return the address of the value that belongs to the key whose opening quote is at `at`."""
    if byte_at(at) != QUOTE:
        return UNSURE
    at = after_string(at + 1, checked_later)
    if at < 0:
        return UNSURE
    at = after_space(at)
    return after_space(at + 1) if byte_at(at) == COLON else UNSURE


@inlined
def after_word(at: int) -> int:
    """Return the address after the `true`, `false` or `null` at `at`."""
    for word, mask, length in _WORDS:
        if word_at(at) & mask == word:
            return at + length
    return UNSURE


@compiled
def after_value(at: int, checked_later: bool) -> int:
    """Return the address after the value at `at`, of any kind; UNSURE if it is not valid JSON."""
    is_object = np.zeros(_MAX_OPEN + 1, np.bool_)
    level = 0
    while True:
        opened = byte_at(at) == BEGIN_OBJECT or byte_at(at) == BEGIN_LIST
        if opened:
            level += 1
            if level > _MAX_OPEN:
                return UNSURE
            is_object[level] = byte_at(at) == BEGIN_OBJECT
            at = after_space(at + 1)
            if byte_at(at) != (END_OBJECT if is_object[level] else END_LIST):
                if is_object[level]:
                    at = after_key(at, checked_later)
                    if at < 0:
                        return UNSURE
                continue
        elif byte_at(at) == QUOTE:
            at = after_string(at + 1, checked_later)
        elif byte_at(at) > _NINE:
            at = after_word(at)
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
                    at = after_key(at, checked_later)
                    if at < 0:
                        return UNSURE
                break
            if byte_at(at) != (END_OBJECT if is_object[level] else END_LIST):
                return UNSURE
            level -= 1
            at += 1
