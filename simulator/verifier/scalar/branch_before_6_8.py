"""Comparisons as kernels before 6.8 reason: against a known number only, but for the equality of two registers.

The narrowed operand's other width is computed anew from the one that was compared.
"""

from __future__ import annotations

from bpflisp.spec.isa import Op
from simulator.verifier import tnum
from simulator.verifier.scalar import branch
from simulator.verifier.scalar.bounds import low_from_whole, sync, zero_extend32
from simulator.verifier.scalar.branch import FLIPPED, OPPOSITE, Refined
from simulator.verifier.scalar.rules import Rules
from simulator.verifier.scalar.value import S64_MAX, S64_MIN, UNBOUNDED, Fields, Scalar, const, signed32
from simulator.verifier.tnum import HIGH, M32, M64


def taken(op: Op, width: int, a: Scalar, b: Scalar) -> bool | None:
    """Whether the branch is always or never taken: decided only where `b` is known, and equality where `a` is, too."""
    known = b.const32 if width == 32 else b.const
    if known is None:
        return None
    if op in (Op.EQ, Op.NE) and (a.const32 if width == 32 else a.const) is None:
        return None
    # The number as the comparison sees it: `b` may be known in its low half only, or have contradicting bounds.
    return branch.taken(op, width, a, const(known))


def refine(rules: Rules, op: Op, width: int, a: Scalar, b: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """(a, b) where the branch is taken, then (a, b) where it is not."""
    if b.is_const or (width == 32 and b.const32 is not None):
        first, second = _both_ways(rules, op, width, a, b.value)
        return first, b, second, b
    if a.is_const or (width == 32 and a.const32 is not None):
        first, second = _both_ways(rules, FLIPPED[op], width, b, a.value)
        return a, first, a, second
    if width == 64 and op is Op.EQ:
        return *_equal(rules, a, b), a, b
    if width == 64 and op is Op.NE:
        return a, b, *_equal(rules, a, b)
    return a, b, a, b


def refine_same(rules: Rules, op: Op, width: int, a: Scalar) -> Refined:
    """A register compared with itself: nothing new, but its equality is deduced from again."""
    again = sync(sync(a.fields, rules).fields, rules)
    if width == 32 or a.is_const:
        return a, a
    return (again, a) if op is Op.EQ else (a, again) if op is Op.NE else (a, a)


def _equal(rules: Rules, a: Scalar, b: Scalar) -> Refined:
    """Two 64-bit numbers that are equal: ranges and bits of both. The 32-bit ranges stay each its own."""
    value, mask = tnum.intersect((a.value, a.mask), (b.value, b.mask))
    smin, smax = max(a.smin, b.smin), min(a.smax, b.smax)
    umin, umax = max(a.umin, b.umin), min(a.umax, b.umax)

    def narrowed(x: Scalar) -> Scalar:
        low = (x.smin32, x.smax32, x.umin32, x.umax32)
        return sync((value, mask, smin, smax, umin, umax, *low), rules)

    return narrowed(a), narrowed(b)


def _both_ways(rules: Rules, op: Op, width: int, a: Scalar, number: int) -> Refined:
    """`a` where `a op number` holds, and where it does not."""
    ways = (_narrowed(op, width, a, number), _narrowed(OPPOSITE[op], width, a, number))
    if width == 64:
        first, second = (sync(low_from_whole(fields), rules) for fields in ways)
    else:
        first, second = (sync(_whole_from_low(fields), rules) for fields in ways)
    return first, second


def _narrowed(op: Op | str, width: int, a: Scalar, number: int) -> Fields:
    """`a` with what the comparison says of the width that it compares."""
    value, mask, *bounds = a.fields
    low = number & M32
    if op is Op.EQ:
        if width == 64:
            return const(number).fields
        ends = (signed32(low), signed32(low), low, low)
        return value & HIGH | low, mask & HIGH, a.smin, a.smax, a.umin, a.umax, *ends
    if op is Op.NE:
        return a.fields
    tested = low if width == 32 else number
    if op is Op.SET:
        if tested and not tested & (tested - 1):
            value, mask = value | tested, mask & ~tested
        smin, smax, umin, umax, smin32, smax32, umin32, umax32 = bounds
        return value, mask, smin, smax, umin, umax, smin32, smax32, umin32, umax32
    if op == branch.NOT_SET:
        return value & ~tested, mask & ~tested, *UNBOUNDED
    known = list(const(number if width == 64 else low).fields)
    return branch.ordered(Op(op), width, a, known)


def _whole_from_low(fields: Fields) -> Fields:
    """The 64-bit bounds after a 32-bit comparison: the low ones where the upper half is zero, else none."""
    value, mask, _, _, _, _, smin32, smax32, umin32, umax32 = fields
    if not (value | mask) & HIGH:
        return zero_extend32(fields)
    return value, mask, S64_MIN, S64_MAX, 0, M64, smin32, smax32, umin32, umax32
