"""A compiled scanner: from the bytes of a document that is in order to its numbers, without a Python object between.

It is sure or it is not. Sure means that the bytes are JSON, that every field of
`genre_ray.features.scan_fields` that it counts was there once and well formed, and that each number is the
float32 that `genre_ray.features.flatten` would give, to the bit. Whatever else it meets, be it damage or only
unusual (an escape in a key, a number of thirty digits), makes it unsure, and the plain way decides.

All that is compiled stands in this module, because Numba looks for changes only in the file of the function
that it keeps on disk. Reading never leaves the buffer: `scan` copies the document between zeros, which end
every loop, and no step goes further than the `MARGIN` beyond a byte that was looked at.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 32
MARGIN = 64
UNSURE = -1

# What a field holds; genre_ray.features.scan_fields makes the tables.
OBJECT, NUMBER, ROW, MATRIX, CATEGORY, METADATA = range(6)
ROOT = 0
UNKNOWN = -1
KEY_WORDS = 5

# Objects and lists within each other in a part that is passed over; with those around it below the limit of
# genre_ray.catalog.documents.
_MAX_OPEN = 60

_QUOTE, _BACKSLASH, _COMMA, _COLON, _MINUS, _PLUS, _DOT, _ZERO = (ord(char) for char in '"\\,:-+.0')
_OBJECT, _OBJECT_END, _LIST, _LIST_END, _SPACE = (ord(char) for char in "{}[] ")
_SMALL_E, _LOWER_CASE = ord("e"), 0x20
_ASCII = 0x80
_WORDS = tuple(
    (np.uint64(int.from_bytes(word, "little")), np.uint64((1 << 8 * len(word)) - 1), len(word))
    for word in (b"true", b"false", b"null")
)

# Powers of ten up to 10^22 are doubles, the others the nearest ones.
_LAST_POWER = 80
_NO_EXPONENT = 10**6
_PAIR = np.uint64(0b1100)
_POWERS = np.array([float(f"1e{power}") for power in range(_LAST_POWER + 1)])
_EXACT_POWER = 22
_EXACT_MANTISSA = 2**53
_INT_POWERS = np.array([10**power for power in range(19)])
# The largest number that has room in an int64 for so many more digits.
_ROOM = np.array([(2**63 - 1) // 10**digits - 1 for digits in range(19)], np.int64)
# The 29 bits of a double that a float32 has no room for, half of them, and how far from it rounding is certain.
_DROPPED = 2**29 - 1
_HALF = 2**28
_CERTAIN = 16
_LEAST_NORMAL = float(np.finfo(np.float32).smallest_normal) * 1.001
_TOO_LARGE = float(np.finfo(np.float32).max) * (1 + 2.0**-25)

Fields = np.ndarray[Any, np.dtype[np.void]]
_compiled = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
_inlined = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)


def _load(builder: Any, at: Any, wanted: ir.Type) -> Any:
    """The bytes from address `at` on as one value of the type `wanted`, whatever their alignment."""
    return builder.load(builder.inttoptr(at, wanted.as_pointer()), align=1, typ=wanted)


@intrinsic
def _byte(typing: Any, at: Any) -> Any:
    """The byte at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(_load(builder, args[0], ir.IntType(8)), ir.IntType(64))

    return types.int64(types.intp), codegen


@intrinsic
def _word(typing: Any, at: Any) -> Any:
    """The eight bytes from an address on as a little-endian uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load(builder, args[0], ir.IntType(64))

    return types.uint64(types.intp), codegen


@intrinsic
def _put(typing: Any, at: Any, number: Any) -> Any:
    """Store a double as the float32 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], ir.FloatType().as_pointer())
        builder.store(builder.fptrunc(args[1], ir.FloatType()), place, align=4)
        return context.get_dummy_value()

    return types.none(types.intp, types.float64), codegen


def _lanes_where(belong: Callable[[Any, Any], Any]) -> Any:
    """What tells which of the `LANES` bytes from an address on belong to a class, all compared at once: bit by bit."""

    @intrinsic
    def where(typing: Any, at: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            found = belong(builder, _load(builder, args[0], ir.VectorType(ir.IntType(8), LANES)))
            return builder.zext(builder.bitcast(found, ir.IntType(LANES)), ir.IntType(64))

        return types.uint64(types.intp), codegen

    return where


def _each(byte: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(ir.IntType(8), LANES), [byte] * LANES)


def _are_digits(builder: Any, lanes: Any) -> Any:
    return builder.icmp_unsigned("<", builder.sub(lanes, _each(_ZERO)), _each(10))


def _are_of_numbers(builder: Any, lanes: Any) -> Any:
    """Digits, signs, points and exponents; a slash is between them, and found out later."""
    within = builder.icmp_unsigned("<=", builder.sub(lanes, _each(_MINUS)), _each(ord("9") - _MINUS))
    small_e = builder.icmp_unsigned("==", builder.or_(lanes, _each(_LOWER_CASE)), _each(_SMALL_E))
    return builder.or_(builder.or_(within, small_e), builder.icmp_unsigned("==", lanes, _each(_PLUS)))


def _are_space(builder: Any, lanes: Any) -> Any:
    blank, tab, line, carriage = (builder.icmp_unsigned("==", lanes, _each(byte)) for byte in b" \t\n\r")
    return builder.or_(builder.or_(blank, tab), builder.or_(line, carriage))


def _are_plain(builder: Any, lanes: Any) -> Any:
    """Printable ASCII but for the quote and the backslash: what stands in a string as itself."""
    control = builder.icmp_signed("<", lanes, _each(_SPACE))  # signed: so are bytes from 0x80 on
    quote, escape = (builder.icmp_unsigned("==", lanes, _each(byte)) for byte in (_QUOTE, _BACKSLASH))
    return builder.not_(builder.or_(control, builder.or_(quote, escape)))


_digits_at, _numbers_at, _space_at, _plain_at = (
    _lanes_where(belong) for belong in (_are_digits, _are_of_numbers, _are_space, _are_plain)
)


@intrinsic
def _run(typing: Any, lanes: Any) -> Any:
    """How many lanes from the first on are set."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(builder.not_(args[0]), ir.Constant(ir.IntType(1), 0))

    return types.intp(types.uint64), codegen


@intrinsic
def _bits(typing: Any, number: Any) -> Any:
    """The 64 bits of a double."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@_inlined
def _eight_digits(word):
    """Eight digits, the first in the lowest byte: neighbours are joined to pairs, fours, and one number."""
    word = (word & np.uint64(0x0F0F0F0F0F0F0F0F)) * np.uint64(10 * 2**8 + 1) >> np.uint64(8)
    word = (word & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(100 * 2**16 + 1) >> np.uint64(16)
    word = (word & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(10000 * 2**32 + 1) >> np.uint64(32)
    return np.int64(word)


@_inlined
def _integer(end, digits):
    """The number that the 1 to 16 digits before `end` spell. Bytes before them are shifted out and back as zeros."""
    low = np.uint64(8 * (8 - min(digits, 8)))
    high = np.uint64(4 * (16 - max(digits, 8)))
    first, last = _word(end - 16) >> high >> high << high << high, _word(end - 8) >> low << low
    return _eight_digits(first) * 100_000_000 + _eight_digits(last)


@_inlined
def _appended(mantissa, end, digits):
    """`mantissa` with the 1 to 31 digits before `end` behind its own; UNSURE where that is beyond an int64."""
    if digits > 16:
        # The first of them are zeros more often than not.
        if mantissa > _ROOM[15]:
            return UNSURE
        mantissa = mantissa * _INT_POWERS[digits - 16] + _integer(end - 16, digits - 16)
        digits = 16
    if mantissa > _ROOM[digits]:
        return UNSURE
    return mantissa * _INT_POWERS[digits] + _integer(end, digits)


@_compiled
def _exponent(at, end):
    """The exponent from its letter at `at` up to `end`; far beyond any double where there is none."""
    sign = _byte(at + 1)
    first = at + 2 if sign == _MINUS or sign == _PLUS else at + 1
    digits = _run(_digits_at(first))
    if _byte(at) | _LOWER_CASE != _SMALL_E or first + digits != end or not 1 <= digits <= 4:
        return _NO_EXPONENT
    exponent = _integer(end, digits)
    return -exponent if sign == _MINUS else exponent


@_inlined
def _number(at):
    """(the number at `at`, the place after it), which is UNSURE unless its float32 is certain.

    Where digits and exponent fit, one division or multiplication of exact doubles is the nearest double
    (Clinger 1990). Elsewhere the result is off by less than `_CERTAIN` units in the last place, which cannot
    matter unless a float32 lies as near to its rounding.
    """
    # Where it ends is found apart from its parts, so that what comes next need not wait for these; and there is
    # no branch where documents differ, since a wrong guess costs more than the arithmetic.
    length = _run(_numbers_at(at))
    end = at + length
    digits_at = _digits_at(at)
    negative = np.int64(_byte(at) == _MINUS)
    at += negative
    digits_at >>= np.uint64(negative)
    digits = _run(digits_at)
    if length == LANES or digits == 0 or ((digits > 1) & (_byte(at) == _ZERO)):
        return 0.0, UNSURE
    at += digits
    if digits <= 8:
        mantissa = _eight_digits(_word(at - 8) >> np.uint64(64 - 8 * digits) << np.uint64(64 - 8 * digits))
    else:
        mantissa = _appended(np.int64(0), at, digits)
    scale = 0
    if _byte(at) == _DOT:
        digits_at >>= np.uint64(digits + 1)
        digits = _run(digits_at)
        if digits == 0 or mantissa < 0:
            return 0.0, UNSURE
        at += 1 + digits
        digits_at >>= np.uint64(digits)
        mantissa = _appended(mantissa, at, digits)
        scale = -digits
    else:
        digits_at >>= np.uint64(digits)
        if negative and mantissa == 0:
            return 0.0, UNSURE  # an integer, -0, of which parsers think differently
    if mantissa < 0:
        return 0.0, UNSURE
    # Nearly always nothing follows, or a letter, a sign and two digits.
    tail = _word(at)
    letter = np.int64(tail) & 0xFF | _LOWER_CASE
    sign = _COMMA - (np.int64(tail >> np.uint64(8)) & 0xFF)  # the comma is between plus and minus
    exponent = (np.int64(tail >> np.uint64(16)) & 0xF) * 10 + (np.int64(tail >> np.uint64(24)) & 0xF)
    usual = (end == at + 4) & (letter == _SMALL_E) & (sign * sign == 1) & (digits_at & _PAIR == _PAIR)
    scale += np.int64(usual) * sign * exponent
    if not (usual | (end == at)):
        scale += _exponent(at, end)
    if scale < -_LAST_POWER or scale > _LAST_POWER:
        return 0.0, UNSURE
    number = float(mantissa)
    if scale > 0:
        number *= _POWERS[scale]
    else:
        number /= _POWERS[-scale]
    if mantissa > _EXACT_MANTISSA or scale < -_EXACT_POWER or scale > _EXACT_POWER:
        if abs((_bits(number) & _DROPPED) - _HALF) <= _CERTAIN or 0.0 < number < _LEAST_NORMAL:
            return 0.0, UNSURE
    if number >= _TOO_LARGE:
        return 0.0, UNSURE
    return number * (1 - 2 * negative), end


@_inlined
def _after_space(at):
    if _byte(at) > _SPACE:
        return at
    if _byte(at) == _SPACE and _byte(at + 1) > _SPACE:
        return at + 1
    while True:
        run = _run(_space_at(at))
        at += run
        if run < LANES:
            return at


@_compiled
def _after_string(at, checked_later):
    """The place after the string that goes on at `at`. Only where it is checked later, by a whole parser, may it
    hold escapes and other characters than ASCII.
    """
    while True:
        run = _run(_plain_at(at))
        at += run
        if run == LANES:
            continue
        if _byte(at) == _QUOTE:
            return at + 1
        if not checked_later:
            return UNSURE
        if _byte(at) == _BACKSLASH:
            at += 2
        elif _byte(at) >= _ASCII:
            at += 1
        else:
            return UNSURE


@_inlined
def _after_key(at, checked_later):
    """The place of the value whose key's opening quote is at `at`."""
    if _byte(at) != _QUOTE:
        return UNSURE
    at = _after_string(at + 1, checked_later)
    if at < 0:
        return UNSURE
    at = _after_space(at)
    return _after_space(at + 1) if _byte(at) == _COLON else UNSURE


@_inlined
def _after_word(at):
    for word, mask, length in _WORDS:
        if _word(at) & mask == word:
            return at + length
    return UNSURE


@_compiled
def _after_value(at, checked_later):
    """The place after the value at `at`, of any kind, which is proven to be JSON."""
    is_object = np.zeros(_MAX_OPEN + 1, np.bool_)
    level = 0
    while True:
        opened = _byte(at) == _OBJECT or _byte(at) == _LIST
        if opened:
            level += 1
            if level > _MAX_OPEN:
                return UNSURE
            is_object[level] = _byte(at) == _OBJECT
            at = _after_space(at + 1)
            if _byte(at) != (_OBJECT_END if is_object[level] else _LIST_END):
                if is_object[level]:
                    at = _after_key(at, checked_later)
                    if at < 0:
                        return UNSURE
                continue
        elif _byte(at) == _QUOTE:
            at = _after_string(at + 1, checked_later)
        elif _byte(at) > ord("9"):
            at = _after_word(at)
        else:
            _, at = _number(at)
        if at < 0:
            return UNSURE
        while True:
            if level == 0:
                return at
            at = _after_space(at)
            if _byte(at) == _COMMA:
                at = _after_space(at + 1)
                if is_object[level]:
                    at = _after_key(at, checked_later)
                    if at < 0:
                        return UNSURE
                break
            if _byte(at) != (_OBJECT_END if is_object[level] else _LIST_END):
                return UNSURE
            level -= 1
            at += 1


@_compiled
def _numbers(at, slots, count):
    """Read exactly `count` numbers with commas between them to the address `slots`; gives the place after them."""
    while True:
        number, at = _number(at)
        if at < 0:
            return UNSURE
        _put(slots, number)
        count -= 1
        if count == 0:
            return at
        slots += 4
        at = _after_space(at)
        if _byte(at) != _COMMA:
            return UNSURE
        at = _after_space(at + 1)


@_compiled
def _row(at, slots, count):
    """Read a list of exactly `count` numbers to the address `slots`; gives the place after it."""
    if _byte(at) != _LIST:
        return UNSURE
    at = _numbers(_after_space(at + 1), slots, count)
    if at < 0:
        return UNSURE
    at = _after_space(at)
    return at + 1 if _byte(at) == _LIST_END else UNSURE


@_compiled
def _matrix(at, slots, count):
    """Read a list of `count` lists of `count` numbers to the address `slots`; gives the place after it."""
    before = _LIST
    for row in range(count):
        if _byte(at) != before:
            return UNSURE
        at = _row(_after_space(at + 1), slots + 4 * row * count, count)
        if at < 0:
            return UNSURE
        at = _after_space(at)
        before = _COMMA
    return at + 1 if _byte(at) == _LIST_END else UNSURE


@_inlined
def _is_key(at, field):
    for word in range(field.words):
        if (_word(at + 8 * word) ^ field.key[word]) & field.mask[word]:
            return False
    return True


@_inlined
def _find(at, fields, parent, expected):
    """The field of `parent` whose key stands at `at`, first looked for where it stood in the last document."""
    if _is_key(at, fields[expected]):
        return expected
    for field in range(fields[parent].first, fields[parent].end):
        if _is_key(at, fields[field]):
            return field
    return UNKNOWN


@_inlined
def _category(at, slots, fields, field):
    """Read one of the spellings of a category into its one-hot slots; gives the place after it."""
    if _byte(at) != _QUOTE:
        return UNSURE
    found = _find(at + 1, fields, field, fields[field].first)
    if found == UNKNOWN:
        return UNSURE
    for spelling in range(fields[field].first, fields[field].end):
        _put(slots + 4 * fields[spelling].slot, 0.0)
    _put(slots + 4 * fields[found].slot, 1.0)
    return at + 1 + fields[found].key_bytes


def _scan(text, fields, follows, values):
    begin, slots = np.int64(text.ctypes.data) + MARGIN, np.int64(values.ctypes.data)
    end_of_text = begin + len(text) - 2 * MARGIN
    seen = np.zeros(len(fields), np.bool_)
    counts = np.zeros(3, np.int64)
    unsure = (counts, UNSURE, UNSURE)
    start = end = UNSURE
    parent, before = np.int64(ROOT), len(fields)
    at = _after_space(begin)
    if _byte(at) != _OBJECT:
        return unsure
    while True:
        # A key, after the bracket or the comma at `at`.
        at = _after_space(at + 1)
        if _byte(at) != _QUOTE:
            return unsure
        field = _find(at + 1, fields, parent, follows[before])
        if field == UNKNOWN:
            kind = UNKNOWN
            at = _after_key(at, kind == METADATA)
            if at < 0:
                return unsure
        else:
            if seen[field]:
                return unsure
            seen[field] = True
            follows[before] = field
            before = field
            at = _after_space(at + 1 + fields[field].key_bytes)
            if _byte(at) != _COLON:
                return unsure
            at = _after_space(at + 1)
            if _byte(at) == _OBJECT and fields[field].is_object:
                parent, before = field, len(fields) + field
                continue
            counts[fields[field].group] += 1
            kind, length, slot = fields[field].kind, fields[field].length, slots + 4 * fields[field].slot
        if kind == ROW:
            at = _row(at, slot, length)
        elif kind == NUMBER:
            at = _numbers(at, slot, length)
        elif kind == MATRIX:
            at = _matrix(at, slot, length)
        elif kind == CATEGORY:
            at = _category(at, slots, fields, field)
        elif kind == OBJECT:
            return unsure
        else:
            if kind == METADATA:
                start = at
            at = _after_value(at, kind == METADATA)
            if kind == METADATA:
                end = at
        if at < 0:
            return unsure
        at = _after_space(at)
        while _byte(at) == _OBJECT_END:
            at = _after_space(at + 1)
            if parent == ROOT:
                return (counts, start - begin, end - begin) if at == end_of_text else unsure
            before, parent = parent, fields[parent].parent
        if _byte(at) != _COMMA:
            return unsure


try:
    scan = njit(nogil=True, error_model="numpy", cache=True)(_scan)
except RuntimeError:
    scan = njit(nogil=True, error_model="numpy")(_scan)
