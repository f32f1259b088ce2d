"""Bytes at addresses, one, eight or thirty-two at a time: what the compiled scanner is made of.

Nothing here looks where an address leads. The scanner stays within a buffer that ends in zeros, and these
are of no class that is searched for.
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

# Called by compiled code only: what Python would need to call them is left out.
compiled = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
inlined = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)


def _load(builder: Any, at: Any, wanted: ir.Type) -> Any:
    """The bytes from address `at` on as one value of the type `wanted`, whatever their alignment."""
    return builder.load(builder.inttoptr(at, wanted.as_pointer()), align=1, typ=wanted)


@intrinsic
def byte_at(typing: Any, at: Any) -> Any:
    """The byte at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(_load(builder, args[0], ir.IntType(8)), ir.IntType(64))

    return types.int64(types.intp), codegen


@intrinsic
def word_at(typing: Any, at: Any) -> Any:
    """The eight bytes from an address on as a little-endian uint64."""

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
    """Copy so many bytes from address `at` on to address `to`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        place, source = (builder.inttoptr(address, byte) for address in args[:2])
        cgutils.raw_memcpy(builder, place, source, args[2], 1)
        return context.get_dummy_value()

    return types.none(types.intp, types.intp, types.intp), codegen


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
    return builder.icmp_unsigned("<", builder.sub(lanes, _each(ZERO)), _each(10))


def _are_of_numbers(builder: Any, lanes: Any) -> Any:
    """Digits, signs, points and exponents; a slash is between them, and found out later."""
    within = builder.icmp_unsigned("<=", builder.sub(lanes, _each(MINUS)), _each(ord("9") - MINUS))
    small_e = builder.icmp_unsigned("==", builder.or_(lanes, _each(LOWER_CASE)), _each(SMALL_E))
    return builder.or_(builder.or_(within, small_e), builder.icmp_unsigned("==", lanes, _each(PLUS)))


def _are_space(builder: Any, lanes: Any) -> Any:
    blank, tab, line, carriage = (builder.icmp_unsigned("==", lanes, _each(byte)) for byte in b" \t\n\r")
    return builder.or_(builder.or_(blank, tab), builder.or_(line, carriage))


def _are_plain(builder: Any, lanes: Any) -> Any:
    """Printable ASCII but for the quote and the backslash: what stands in a string as itself."""
    control = builder.icmp_signed("<", lanes, _each(SPACE))  # signed: so are bytes from 0x80 on
    quote, escape = (builder.icmp_unsigned("==", lanes, _each(byte)) for byte in (QUOTE, BACKSLASH))
    return builder.not_(builder.or_(control, builder.or_(quote, escape)))


digits_at, numbers_at, space_at, plain_at = (
    _lanes_where(belong) for belong in (_are_digits, _are_of_numbers, _are_space, _are_plain)
)


@intrinsic
def run(typing: Any, lanes: Any) -> Any:
    """How many lanes from the first on are set."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(builder.not_(args[0]), ir.Constant(ir.IntType(1), 0))

    return types.intp(types.uint64), codegen


@intrinsic
def bits(typing: Any, number: Any) -> Any:
    """The 64 bits of a double."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@inlined
def after_space(at: int) -> int:
    """The first address from `at` on whose byte is no space of JSON."""
    if byte_at(at) > SPACE:
        return at
    if byte_at(at) == SPACE and byte_at(at + 1) > SPACE:
        return at + 1
    while True:
        count = run(space_at(at))
        at += count
        if count < LANES:
            return at
