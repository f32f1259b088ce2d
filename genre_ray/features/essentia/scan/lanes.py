"""Primitives of the compiled scanner: read 1, 8 or 32 bytes at an address, and classify them.

They do not check addresses. The scanner reads from a buffer that ends in zero bytes, which belong to no class that is
searched for, so searches stop there.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 32
QUOTE, BACKSLASH, COMMA, COLON, MINUS, PLUS, DOT, ZERO, SPACE = (ord(char) for char in '"\\,:-+.0 ')
BEGIN_OBJECT, END_OBJECT, BEGIN_LIST, END_LIST = (ord(char) for char in "{}[]")
SMALL_E, LOWER_CASE = ord("e"), 0x20

# Only compiled code calls these functions, so the wrappers for calls from Python are left out.
compiled = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
inlined = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)


def _load(builder: Any, at: Any, wanted: ir.Type) -> Any:
    """Load a value of the type `wanted` from address `at`, with any alignment."""
    return builder.load(builder.inttoptr(at, wanted.as_pointer()), align=1, typ=wanted)


@intrinsic
def byte_at(typing: Any, at: Any) -> Any:
    """Return the byte at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(_load(builder, args[0], ir.IntType(8)), ir.IntType(64))

    return types.int64(types.intp), codegen


@intrinsic
def word_at(typing: Any, at: Any) -> Any:
    """Return the eight bytes from an address on as a little-endian uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load(builder, args[0], ir.IntType(64))

    return types.uint64(types.intp), codegen


@intrinsic
def put(typing: Any, at: Any, number: Any) -> Any:
    """Store a double as the float32 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], ir.FloatType().as_pointer())
        builder.store(builder.fptrunc(args[1], ir.FloatType()), place, align=4)
        return context.get_dummy_value()

    return types.none(types.intp, types.float64), codegen


@intrinsic
def copy(typing: Any, to: Any, at: Any, count: Any) -> Any:
    """Copy `count` bytes from address `at` to address `to`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        place, source = (builder.inttoptr(address, byte) for address in args[:2])
        cgutils.raw_memcpy(builder, place, source, args[2], 1)
        return context.get_dummy_value()

    return types.none(types.intp, types.intp, types.intp), codegen


def _lanes_where(belong: Callable[[Any, Any], Any]) -> Any:
    """Make a function that returns, as a bit mask, which of the `LANES` bytes from an address on belong to a class."""

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
    return builder.icmp_unsigned("<", builder.sub(lanes, _each(ZERO)), _each(10))


def _are_of_numbers(builder: Any, lanes: Any) -> Any:
    """Characters of numbers: digits, signs, point and exponent. The slash is included and rejected later."""
    within = builder.icmp_unsigned("<=", builder.sub(lanes, _each(MINUS)), _each(ord("9") - MINUS))
    small_e = builder.icmp_unsigned("==", builder.or_(lanes, _each(LOWER_CASE)), _each(SMALL_E))
    return builder.or_(builder.or_(within, small_e), builder.icmp_unsigned("==", lanes, _each(PLUS)))


def _are_space(builder: Any, lanes: Any) -> Any:
    blank, tab, line, carriage = (builder.icmp_unsigned("==", lanes, _each(byte)) for byte in b" \t\n\r")
    return builder.or_(builder.or_(blank, tab), builder.or_(line, carriage))


def _are_plain(builder: Any, lanes: Any) -> Any:
    """Printable ASCII except the quote and the backslash: characters that need no escape in a string."""
    control = builder.icmp_signed("<", lanes, _each(SPACE))  # as signed numbers, bytes from 0x80 on are negative
    quote, escape = (builder.icmp_unsigned("==", lanes, _each(byte)) for byte in (QUOTE, BACKSLASH))
    return builder.not_(builder.or_(control, builder.or_(quote, escape)))


digits_at, numbers_at, space_at, plain_at = (
    _lanes_where(belong) for belong in (_are_digits, _are_of_numbers, _are_space, _are_plain)
)


@intrinsic
def run(typing: Any, lanes: Any) -> Any:
    """Return how many lanes are set before the first that is not."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(builder.not_(args[0]), ir.Constant(ir.IntType(1), 0))

    return types.intp(types.uint64), codegen


@intrinsic
def bits(typing: Any, number: Any) -> Any:
    """Return the 64 bits of a double as an integer."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@inlined
def after_space(at: int) -> int:
    """Return the first address from `at` on whose byte is not JSON white space."""
    if byte_at(at) > SPACE:
        return at
    if byte_at(at) == SPACE and byte_at(at + 1) > SPACE:
        return at + 1
    while True:
        count = run(space_at(at))
        at += count
        if count < LANES:
            return at
