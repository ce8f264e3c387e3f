"""What a comparison of two scalars decides, and what each outcome adds to what is known of them.

The kernel's `is_scalar_branch_taken` and `reg_set_min_max`.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from bpflisp.spec.isa import Op
from simulator.verifier import tnum
from simulator.verifier.scalar.bounds import as_fields, settle, sync
from simulator.verifier.scalar.rules import Rules
from simulator.verifier.scalar.value import (
    MASK,
    SMAX,
    SMAX32,
    SMIN,
    SMIN32,
    UMAX,
    UMAX32,
    UMIN,
    UMIN32,
    UNBOUNDED,
    VALUE,
    Fields,
    Scalar,
    signed32,
    signed64,
)
from simulator.verifier.tnum import HIGH, M32, M64

Refined: TypeAlias = tuple[Scalar, Scalar]
"""Both operands after one outcome."""

NOT_SET: Final = "not_set"
"""The outcome that `SET` has no opposite operation for: no bit in common."""

# a OP b is the same as b FLIPPED[OP] a.
FLIPPED: Final = {
    Op.EQ: Op.EQ, Op.NE: Op.NE, Op.SET: Op.SET, Op.GE: Op.LE, Op.GT: Op.LT, Op.LE: Op.GE, Op.LT: Op.GT,
    Op.SGE: Op.SLE, Op.SGT: Op.SLT, Op.SLE: Op.SGE, Op.SLT: Op.SGT,
}  # fmt: skip

# a OP b does not hold just where a OPPOSITE[OP] b does.
OPPOSITE: Final[dict[Op, Op | str]] = {
    Op.EQ: Op.NE, Op.NE: Op.EQ, Op.SET: NOT_SET, Op.GE: Op.LT, Op.GT: Op.LE, Op.LE: Op.GT, Op.LT: Op.GE,
    Op.SGE: Op.SLT, Op.SGT: Op.SLE, Op.SLE: Op.SGT, Op.SLT: Op.SGE,
}  # fmt: skip

_LOW: Final = (SMIN32, SMAX32, UMIN32, UMAX32)
_WHOLE: Final = (SMIN, SMAX, UMIN, UMAX)


def _halves(width: int, scalar: Scalar) -> tuple[int, int, int, int]:
    if width == 32:
        return scalar.smin32, scalar.smax32, scalar.umin32, scalar.umax32
    return scalar.smin, scalar.smax, scalar.umin, scalar.umax


def _ordered(low1: int, high1: int, low2: int, high2: int, op: Op) -> bool | None:
    """Whether a number of the first range always, or never, compares so with one of the second."""
    if op in (Op.LT, Op.SLT):
        return True if high1 < low2 else False if low1 >= high2 else None
    if op in (Op.LE, Op.SLE):
        return True if high1 <= low2 else False if low1 > high2 else None
    if op in (Op.GT, Op.SGT):
        return True if low1 > high2 else False if high1 <= low2 else None
    return True if low1 >= high2 else False if high1 < low2 else None


def _may_be_equal(width: int, a: Scalar, b: Scalar) -> bool:
    """Whether bits and ranges, of both widths where 64 bits are compared, leave room for equality."""
    bits_a, bits_b = (a.value, a.mask), (b.value, b.mask)
    if width == 32:
        bits_a, bits_b = tnum.subreg(bits_a), tnum.subreg(bits_b)
    elif a.umin > b.umax or a.umax < b.umin or a.smin > b.smax or a.smax < b.smin:
        return False
    return (
        tnum.overlap(bits_a, bits_b)
        and a.umin32 <= b.umax32
        and a.umax32 >= b.umin32
        and a.smin32 <= b.smax32
        and a.smax32 >= b.smin32
    )


def _equal(width: int, a: Scalar, b: Scalar) -> bool | None:
    known_a, known_b = (a.const32, b.const32) if width == 32 else (a.const, b.const)
    if known_a is not None and known_b is not None:
        return known_a == known_b
    return None if _may_be_equal(width, a, b) else False


def _shares_bit(width: int, a: Scalar, b: Scalar) -> bool | None:
    """`a & b` as a test; decided only where one of them is known."""
    known = b.const32 if width == 32 else b.const
    if known is None:
        a, known = b, a.const32 if width == 32 else a.const
        if known is None:
            return None
    if a.value & known:
        return True
    return None if (a.value | a.mask) & known else False


def taken(op: Op, width: int, a: Scalar, b: Scalar) -> bool | None:
    """Whether the branch is always (True) or never (False) taken; None where both may be."""
    if op is Op.EQ:
        return _equal(width, a, b)
    if op is Op.NE:
        equal = _equal(width, a, b)
        return None if equal is None else not equal
    if op is Op.SET:
        return _shares_bit(width, a, b)
    smin1, smax1, umin1, umax1 = _halves(width, a)
    smin2, smax2, umin2, umax2 = _halves(width, b)
    if op in (Op.SGT, Op.SGE, Op.SLT, Op.SLE):
        return _ordered(smin1, smax1, smin2, smax2, op)
    return _ordered(umin1, umax1, umin2, umax2, op)


def _assume_equal(width: int, a: list[int], b: list[int]) -> None:
    """Both get the intersection of ranges and bits."""
    for low, high in ((SMIN32, SMAX32), (UMIN32, UMAX32)) if width == 32 else ((SMIN, SMAX), (UMIN, UMAX)):
        a[low] = b[low] = max(a[low], b[low])
        a[high] = b[high] = min(a[high], b[high])
    if width == 64:
        a[VALUE], a[MASK] = b[VALUE], b[MASK] = tnum.intersect((a[VALUE], a[MASK]), (b[VALUE], b[MASK]))
        return
    value, mask = tnum.intersect((a[VALUE] & M32, a[MASK] & M32), (b[VALUE] & M32, b[MASK] & M32))
    for each in (a, b):
        each[VALUE], each[MASK] = each[VALUE] & HIGH | value, each[MASK] & HIGH | mask


def _known(width: int, fields: list[int]) -> int | None:
    if width == 32:
        return None if fields[MASK] & M32 else fields[VALUE] & M32
    return None if fields[MASK] else fields[VALUE]


def _unknown_and_known(width: int, a: list[int], b: list[int]) -> tuple[list[int], int | None]:
    """The operand to refine and the number that the other is; the second operand is asked first."""
    number = _known(width, b)
    return (b, _known(width, a)) if number is None else (a, number)


def _assume_unequal(width: int, a: list[int], b: list[int]) -> None:
    """A known number that is an end of the other's range moves that end by one."""
    fields, number = _unknown_and_known(width, a, b)
    if number is None:
        return
    smin, smax, umin, umax = _LOW if width == 32 else _WHOLE
    signed = signed32(number) if width == 32 else signed64(number)
    full = M32 if width == 32 else M64
    # An end that would wrap belongs to a known number, and two of those are decided without refining. See `_wrap`.
    if fields[umin] == number:
        fields[umin] = (number + 1) & full
    if fields[umax] == number:
        fields[umax] = (number - 1) & full
    if fields[smin] == signed:
        fields[smin] = _wrap(signed + 1, width)
    if fields[smax] == signed:
        fields[smax] = _wrap(signed - 1, width)


def _wrap(number: int, width: int) -> int:
    """A signed number after the wrap that the kernel's arithmetic has."""
    return signed32(number & M32) if width == 32 else signed64(number & M64)


def _assume_set(width: int, a: list[int], b: list[int]) -> None:
    """Of a single bit that is tested we know then that it is set."""
    fields, number = _unknown_and_known(width, a, b)
    if number and not number & (number - 1):
        fields[VALUE] |= number
        fields[MASK] &= ~number


def _assume_not_set(width: int, a: list[int], b: list[int]) -> None:
    """All bits that are tested are clear. The ranges are learned anew from the bits, as the kernel does."""
    fields, number = _unknown_and_known(width, a, b)
    if number is not None:
        fields[2:] = UNBOUNDED
        fields[VALUE] &= ~number
        fields[MASK] &= ~number


def _assume_ordered(op: Op, width: int, a: list[int], b: list[int]) -> None:
    """`a < b` or `a <= b`: a's greatest is below b's, b's least above a's."""
    smin, smax, umin, umax = _LOW if width == 32 else _WHOLE
    is_signed = op in (Op.SLT, Op.SLE)
    low, high = (smin, smax) if is_signed else (umin, umax)
    greatest, least = b[high], a[low]
    if op in (Op.LT, Op.SLT):
        greatest, least = greatest - 1, least + 1
        if is_signed:
            greatest, least = _wrap(greatest, width), _wrap(least, width)
        else:
            greatest, least = (greatest & M32, least & M32) if width == 32 else (greatest & M64, least & M64)
    a[high] = min(a[high], greatest)
    b[low] = max(b[low], least)


def _assume(op: Op | str, width: int, a: list[int], b: list[int]) -> None:
    """Adds to both lists of fields what `a op b` tells, without the deductions that follow from it."""
    if op is Op.EQ:
        _assume_equal(width, a, b)
    elif op is Op.NE:
        _assume_unequal(width, a, b)
    elif op is Op.SET:
        _assume_set(width, a, b)
    elif op is NOT_SET:
        _assume_not_set(width, a, b)
    elif op in (Op.GE, Op.GT, Op.SGE, Op.SGT):
        _assume_ordered(FLIPPED[Op(op)], width, b, a)
    else:
        _assume_ordered(Op(op), width, a, b)


def ordered(op: Op, width: int, a: Scalar, known: list[int]) -> Fields:
    """`a` where it compares so with a known number, without the deductions that follow from it."""
    fields = list(a.fields)
    _assume(op, width, fields, known)
    return as_fields(fields)


def assume(rules: Rules, op: Op | str, width: int, a: Scalar, b: Scalar) -> Refined:
    """Both operands where `a op b` holds."""
    fields_a, fields_b = list(a.fields), list(b.fields)
    _assume(op, width, fields_a, fields_b)
    return settle(as_fields(fields_a), rules), settle(as_fields(fields_b), rules)


def refine(rules: Rules, op: Op, width: int, a: Scalar, b: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """(a, b) where the branch is taken, then (a, b) where it is not."""
    return (*assume(rules, op, width, a, b), *assume(rules, OPPOSITE[op], width, a, b))


def refine_same(rules: Rules, op: Op, width: int, a: Scalar) -> Refined:
    """A register compared with itself: as it is where the branch is taken, and where it is not.

    The kernel narrows the one register as both operands, so `a < a` moves both its ends.
    """
    return _assume_of_itself(rules, op, width, a), _assume_of_itself(rules, OPPOSITE[op], width, a)


def _assume_of_itself(rules: Rules, op: Op | str, width: int, a: Scalar) -> Scalar:
    fields = list(a.fields)
    _assume(op, width, fields, fields)
    # Each operand gets its deductions, so the register gets them twice.
    return settle(sync(as_fields(fields), rules).fields, rules)
