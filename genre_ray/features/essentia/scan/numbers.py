"""Parse JSON numbers to float32, with the same rounding as Python's `float` followed by a cast, or return UNSURE."""

from typing import Any

import numpy as np

from genre_ray.features.essentia.scan.lanes import (
    COMMA,
    DOT,
    LANES,
    LOWER_CASE,
    MINUS,
    PLUS,
    SMALL_E,
    ZERO,
    after_space,
    bits,
    byte_at,
    compiled,
    digits_at,
    inlined,
    numbers_at,
    put,
    run,
    word_at,
)

UNSURE = -1

# Powers of ten up to 10^22 are exact as doubles. Larger ones are rounded.
_LAST_POWER, _EXACT_POWER = 80, 22
_POWERS = np.array([float(f"1e{power}") for power in range(_LAST_POWER + 1)])
_NO_EXPONENT = 10**6
_EXACT_MANTISSA = 2**53
_INT_POWERS = np.array([10**power for power in range(19)])
# The largest number to which this many digits can be appended in an int64.
_ROOM = np.array([(2**63 - 1) // 10**digits - 1 for digits in range(19)], np.int64)
# The 29 bits of a double that a float32 drops, half of their range, and the distance from it where rounding is certain.
_DROPPED, _HALF, _CERTAIN = 2**29 - 1, 2**28, 16
_LEAST_NORMAL = float(np.finfo(np.float32).smallest_normal) * 1.001
_TOO_LARGE = float(np.finfo(np.float32).max) * (1 + 2.0**-25)
# The bits of the third and the fourth lane.
_PAIR = np.uint64(0b1100)


@inlined
def _eight_digits(word: Any) -> Any:
    """Convert eight ASCII digits, the first in the lowest byte, by joining pairs, then fours, then eights."""
    word = (word & np.uint64(0x0F0F0F0F0F0F0F0F)) * np.uint64(10 * 2**8 + 1) >> np.uint64(8)
    word = (word & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(100 * 2**16 + 1) >> np.uint64(16)
    word = (word & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(10000 * 2**32 + 1) >> np.uint64(32)
    return np.int64(word)


@inlined
def _integer(end: int, digits: int) -> int:
    """Convert the 1 to 16 digits before `end`. Bytes before the digits are shifted out and replaced by zeros."""
    low = np.uint64(8 * (8 - min(digits, 8)))
    high = np.uint64(4 * (16 - max(digits, 8)))
    first, last = word_at(end - 16) >> high >> high << high << high, word_at(end - 8) >> low << low
    return _eight_digits(first) * 100_000_000 + _eight_digits(last)


@inlined
def _appended(mantissa: int, end: int, digits: int) -> int:
    """Append the 1 to 31 digits before `end` to `mantissa`; UNSURE if the result does not fit in an int64."""
    if digits > 16:
        # The first of so many digits are usually zeros.
        if mantissa > _ROOM[15]:
            return UNSURE
        mantissa = mantissa * _INT_POWERS[digits - 16] + _integer(end - 16, digits - 16)
        digits = 16
    if mantissa > _ROOM[digits]:
        return UNSURE
    return mantissa * _INT_POWERS[digits] + _integer(end, digits)


@compiled
def _exponent(at: int, end: int) -> int:
    """Parse the exponent from its letter at `at` up to `end`; `_NO_EXPONENT` if it is malformed."""
    sign = byte_at(at + 1)
    first = at + 2 if sign in (MINUS, PLUS) else at + 1
    digits = run(digits_at(first))
    if byte_at(at) | LOWER_CASE != SMALL_E or first + digits != end or not 1 <= digits <= 4:
        return _NO_EXPONENT
    exponent = _integer(end, digits)
    return -exponent if sign == MINUS else exponent


@inlined
def _spelling(at: Any) -> tuple[Any, ...]:
    """Find the parts of the number at `at`.

    Returns:
        The address after the number (UNSURE if it is not a JSON number), whether there is a minus, the address after
        the digits before the point, their number, the number of digits after the point, and the exponent.
    """
    # The end is computed independently of the parts, so that the next number can start early. There are no branches
    # where documents differ, because a mispredicted branch costs more than the arithmetic.
    length = run(numbers_at(at))
    end = at + length
    are_digits = digits_at(at)
    negative = np.int64(byte_at(at) == MINUS)
    at += negative
    are_digits >>= np.uint64(negative)
    whole = run(are_digits)
    wrong = (length == LANES) | (whole == 0) | ((whole > 1) & (byte_at(at) == ZERO))
    at += whole
    point, places = at, np.int64(0)
    are_digits >>= np.uint64(whole)
    if byte_at(at) == DOT:
        places = run(are_digits >> np.uint64(1))
        wrong |= places == 0
        at += 1 + places
        are_digits >>= np.uint64(1 + places)
    # Nearly always the number ends here, or an e, a sign and two digits follow.
    tail = word_at(at)
    letter = np.int64(tail) & 0xFF | LOWER_CASE
    sign = COMMA - (np.int64(tail >> np.uint64(8)) & 0xFF)  # the comma is between plus and minus
    two_digits = (np.int64(tail >> np.uint64(16)) & 0xF) * 10 + (np.int64(tail >> np.uint64(24)) & 0xF)
    usual = (end == at + 4) & (letter == SMALL_E) & (sign * sign == 1) & (are_digits & _PAIR == _PAIR)
    exponent = np.int64(usual) * sign * two_digits
    if not (usual | (end == at)):
        exponent = _exponent(at, end)
        wrong |= exponent == _NO_EXPONENT
    return UNSURE if wrong else end, negative, point, whole, places, exponent


@inlined
def _scaled(mantissa: int, scale: int) -> float:
    """Return `mantissa` × 10^`scale` as a double that rounds to the correct float32, or UNSURE.

    If both factors are exact doubles, one division or multiplication gives the nearest double (Clinger 1990). Otherwise
    the error is less than `_CERTAIN` units in the last place. It can change the float32 only if the result is that
    close to a rounding boundary of float32, and then it is UNSURE.
    """
    if scale < -_LAST_POWER or scale > _LAST_POWER:
        return UNSURE
    number = float(mantissa)
    if scale > 0:
        number *= _POWERS[scale]
    else:
        number /= _POWERS[-scale]
    exact = mantissa <= _EXACT_MANTISSA and -_EXACT_POWER <= scale <= _EXACT_POWER
    if not exact and (abs((bits(number) & _DROPPED) - _HALF) <= _CERTAIN or 0.0 < number < _LEAST_NORMAL):
        return UNSURE
    return number if number < _TOO_LARGE else UNSURE


@inlined
def read_number(at: Any) -> tuple[float, int]:
    """Return the number at `at` and the address after it, which is UNSURE unless the float32 is certain."""
    end, negative, point, whole, places, exponent = _spelling(at)
    if end < 0:
        return 0.0, UNSURE
    if whole <= 8:
        mantissa = _eight_digits(word_at(point - 8) >> np.uint64(64 - 8 * whole) << np.uint64(64 - 8 * whole))
    else:
        mantissa = _appended(np.int64(0), point, whole)
    if places and mantissa >= 0:
        mantissa = _appended(mantissa, point + 1 + places, places)
    elif negative and mantissa == 0:
        return 0.0, UNSURE  # the integer -0, which parsers read differently
    if mantissa < 0:
        return 0.0, UNSURE
    number = _scaled(mantissa, exponent - places)
    return (-number if negative else number), end if number >= 0 else UNSURE


@inlined
def after_number(at: Any) -> int:
    """Return the address after the number at `at`, whatever its value."""
    return _spelling(at)[0]


@compiled
def read_numbers(at: int, slots: int, count: int) -> int:
    """Read exactly `count` numbers separated by commas, store them at `slots`, and return the address after them."""
    while True:
        number, at = read_number(at)
        if at < 0:
            return UNSURE
        put(slots, number)
        count -= 1
        if count == 0:
            return at
        slots += 4
        at = after_space(at)
        if byte_at(at) != COMMA:
            return UNSURE
        at = after_space(at + 1)
