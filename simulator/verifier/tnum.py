"""Tnums: numbers of which some bits are known.

A tnum is a pair (value, mask). A bit set in `mask` is unknown; elsewhere the bit is the one in `value`. `value & mask`
is always 0, so equal sets of numbers are equal pairs. Plain pairs of int: the verifier makes them by the million.

`full` is the mask of all bits of the width at hand: 64 bits unless told otherwise (tests try all pairs at 4 bits).
Source of the rules: kernel/bpf/tnum.c and the paper on its multiplication, arXiv 2105.05398.
"""

from __future__ import annotations

from typing import Final, TypeAlias

Tnum: TypeAlias = tuple[int, int]
"""(value, mask)."""

M32: Final = 0xFFFFFFFF
M64: Final = 0xFFFFFFFFFFFFFFFF
HIGH: Final = M64 ^ M32

UNKNOWN: Final[Tnum] = (0, M64)
"""Nothing is known of any bit."""


def const(number: int) -> Tnum:
    """The tnum of one number, given unsigned."""
    return number, 0


def contains(tnum: Tnum, number: int) -> bool:
    """Whether `number`, unsigned, is one of the numbers that `tnum` allows."""
    return number & ~tnum[1] == tnum[0]


def span(low: int, high: int) -> Tnum:
    """The least tnum that has every number from `low` to `high`, both unsigned: their common upper bits.

    The kernel's `tnum_range`. At 64 differing bits the shift below gives every bit, as the kernel's special case does.
    """
    unknown = (1 << (low ^ high).bit_length()) - 1
    return low & ~unknown, unknown


def is_const(tnum: Tnum) -> bool:
    """Whether every bit is known."""
    return not tnum[1]


def within(inner: Tnum, outer: Tnum) -> bool:
    """Whether every number of `inner` is one of `outer`: the kernel's `tnum_in(outer, inner)`."""
    return not inner[1] & ~outer[1] and inner[0] & ~outer[1] == outer[0]


def overlap(a: Tnum, b: Tnum) -> bool:
    """Whether some number is in both: the bits that both know agree."""
    return not (a[0] ^ b[0]) & ~(a[1] | b[1])


def intersect(a: Tnum, b: Tnum) -> Tnum:
    """What is known from both. Where they contradict each other the bit is 1, as in the kernel."""
    mask = a[1] & b[1]
    return (a[0] | b[0]) & ~mask, mask


def union(a: Tnum, b: Tnum) -> Tnum:
    """The least tnum with the numbers of both."""
    mask = (a[0] ^ b[0]) | a[1] | b[1]
    return a[0] & b[0] & ~mask, mask


def shift_left(a: Tnum, count: int, full: int = M64) -> Tnum:
    """Shifted by a known count; the bits that come in are known zeroes."""
    return a[0] << count & full, a[1] << count & full


def shift_right(a: Tnum, count: int) -> Tnum:
    """Shifted by a known count; the bits that come in are known zeroes."""
    return a[0] >> count, a[1] >> count


def shift_right_signed(a: Tnum, count: int, full: int = M64) -> Tnum:
    """Shifted by a known count; what comes in is the sign bit, known or unknown as that bit is."""
    value, mask = a
    sign = full ^ full >> 1
    incoming = full ^ full >> count
    return (
        value >> count | (incoming if value & sign else 0),
        mask >> count | (incoming if mask & sign else 0),
    )


def add(a: Tnum, b: Tnum, full: int = M64) -> Tnum:
    """The sum: unknown where an operand's bit is, or where the carries of its least and its greatest differ."""
    least = a[0] + b[0] & full
    greatest = least + a[1] + b[1] & full
    mask = (greatest ^ least) | a[1] | b[1]
    return least & ~mask, mask


def sub(a: Tnum, b: Tnum, full: int = M64) -> Tnum:
    """The difference: unknown where an operand's bit is, or where the borrows of its two ends differ."""
    difference = a[0] - b[0] & full
    mask = (difference + a[1] ^ difference - b[1]) & full | a[1] | b[1]
    return difference & ~mask, mask


def neg(a: Tnum, full: int = M64) -> Tnum:
    """Zero minus `a`."""
    return sub((0, 0), a, full)


def and_(a: Tnum, b: Tnum) -> Tnum:
    """Bitwise and: a known 0 in either gives a known 0."""
    value = a[0] & b[0]
    return value, (a[0] | a[1]) & (b[0] | b[1]) & ~value


def or_(a: Tnum, b: Tnum) -> Tnum:
    """Bitwise or: a known 1 in either gives a known 1."""
    value = a[0] | b[0]
    return value, (a[1] | b[1]) & ~value


def xor(a: Tnum, b: Tnum) -> Tnum:
    """Bitwise exclusive or: known where both are."""
    mask = a[1] | b[1]
    return (a[0] ^ b[0]) & ~mask, mask


def mul(a: Tnum, b: Tnum, full: int = M64) -> Tnum:
    """The product by long multiplication, as kernels since 6.18 do it.

    For each bit of `a`: a known 1 adds `b`, shifted; an unknown bit gives the union of adding it and not.
    """
    (a_value, a_mask), total = a, (0, 0)
    while a_value or a_mask:
        if a_value & 1:
            total = add(total, b, full)
        elif a_mask & 1:
            total = union(total, add(total, b, full))
        a_value >>= 1
        a_mask >>= 1
        b = b[0] << 1 & full, b[1] << 1 & full
    return total


def mul_of_masks(a: Tnum, b: Tnum, full: int = M64) -> Tnum:
    """The product as kernels before 6.18 have it: the values' product plus the sum of what the unknown bits may add."""
    (a_value, a_mask), (b_value, b_mask) = a, b
    known, unknown = (a_value * b_value & full, 0), (0, 0)
    while a_value or a_mask:
        if a_value & 1:
            unknown = add(unknown, (0, b_mask), full)
        elif a_mask & 1:
            unknown = add(unknown, (0, b_value | b_mask), full)
        a_value >>= 1
        a_mask >>= 1
        b_value, b_mask = b_value << 1 & full, b_mask << 1 & full
    return add(known, unknown, full)


def mul_by_parts(a: Tnum, b: Tnum, full: int = M64) -> Tnum:
    """The product as kernels before 5.14 have it: the values' product, plus all that an unknown bit of either adds."""
    product = (a[0] * b[0] & full, 0)
    product = _plus_multiples(product, a[1], b[0] | b[1], full)
    return _plus_multiples(product, b[1], a[0], full)


def _plus_multiples(total: Tnum, times: int, unknown: int, full: int) -> Tnum:
    """`total` plus, for every bit of `times`, perhaps `unknown` shifted to it."""
    while times:
        if times & 1:
            total = add(total, (0, unknown), full)
        times >>= 1
        unknown = unknown << 1 & full
    return total


def subreg(a: Tnum) -> Tnum:
    """The low 32 bits, the others known to be zero."""
    return a[0] & M32, a[1] & M32


def with_subreg(a: Tnum, low: Tnum) -> Tnum:
    """`a` with its low 32 bits those of `low`."""
    return a[0] & HIGH | low[0] & M32, a[1] & HIGH | low[1] & M32


def cast(a: Tnum, size: int) -> Tnum:
    """The low `size` bytes, the others known to be zero."""
    kept = (1 << size * 8) - 1
    return a[0] & kept, a[1] & kept


def is_aligned(a: Tnum, size: int) -> bool:
    """Whether every number of `a` is a multiple of `size`, a power of two; 0 asks for nothing."""
    return not size or not (a[0] | a[1]) & (size - 1)


def step(a: Tnum, number: int) -> int:
    """The least number of `a` above `number`; the greatest of `a` where there is none."""
    value, mask = a
    if number >= value | mask:
        return value | mask
    if number < value:
        return value
    # Members are `value` plus a submask of `mask`, so count up in the submasks: with every bit outside `mask` filled, a
    # carry ripples through the gaps. Below the highest bit of the distance that is no bit of `mask` the submask starts
    # anew, so those bits are filled, too.
    distance = number - value
    filled = distance | (1 << (distance & ~mask).bit_length()) - 1 | ~mask
    return value | (filled + 1) & mask


def text(a: Tnum) -> str:
    """As the kernel's log prints it."""
    return f"({_hex(a[0])}; {_hex(a[1])})"


def _hex(number: int) -> str:
    return f"{number:#x}"
