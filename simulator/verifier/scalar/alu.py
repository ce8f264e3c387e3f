"""What arithmetic leaves known: the kernel's `adjust_scalar_min_max_vals`, operation by operation.

Each operation computes the tnum and both widths' ranges from the operands'; a range that might wrap is given up. Then a
32-bit operation is zero-extended, and `bounds.sync` lets tnum and ranges tighten each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from bpflisp.spec.isa import Op
from simulator.verifier import tnum
from simulator.verifier.scalar.bounds import SINGLE, Half, settle, truncate, update, update32, zero_extend32
from simulator.verifier.scalar.rules import Rules
from simulator.verifier.scalar.value import (
    S32_MAX,
    S32_MIN,
    S64_MAX,
    S64_MIN,
    UNBOUNDED,
    UNKNOWN,
    Fields,
    Scalar,
    const,
    intern_fields,
    signed32,
    signed64,
)
from simulator.verifier.tnum import HIGH, M32, M64

Transfer: TypeAlias = Callable[[Rules, Scalar, Scalar], Fields]

_NOTHING32: Final[Half] = (S32_MIN, S32_MAX, 0, M32)
_NOTHING64: Final[Half] = (S64_MIN, S64_MAX, 0, M64)


def _whole(scalar: Scalar) -> Half:
    return scalar.smin, scalar.smax, scalar.umin, scalar.umax


def _low(scalar: Scalar) -> Half:
    return scalar.smin32, scalar.smax32, scalar.umin32, scalar.umax32


def _joined(bits: tnum.Tnum, whole: Half, low: Half) -> Fields:
    return bits[0], bits[1], *whole, *low


def _unsigned_range(low: int, high: int, full: int, both_may_wrap: bool) -> tuple[int, int]:
    """The range of a sum or difference whose true ends are `low` and `high`.

    Where neither end leaves the width it stands. Where both do, they leave it on the same side and once, so the wrapped
    ends are a range again: later kernels keep that.
    """
    if low >= 0 and high <= full:
        return low, high
    if both_may_wrap and (low > full or high < 0):
        return low & full, high & full
    return 0, full


def _add_half(a: Half, b: Half, smallest: int, full: int, both: bool) -> Half:
    smin, smax = a[0] + b[0], a[1] + b[1]
    # Each end must fit: with contradicting bounds the minimum may pass the greatest number, too.
    if not (smallest <= smin <= ~smallest and smallest <= smax <= ~smallest):
        smin, smax = smallest, ~smallest
    return smin, smax, *_unsigned_range(a[2] + b[2], a[3] + b[3], full, both)


def _sub_half(a: Half, b: Half, smallest: int, full: int, both: bool) -> Half:
    smin, smax = a[0] - b[1], a[1] - b[0]
    if not (smallest <= smin <= ~smallest and smallest <= smax <= ~smallest):
        smin, smax = smallest, ~smallest
    return smin, smax, *_unsigned_range(a[2] - b[3], a[3] - b[2], full, both)


def _add(rules: Rules, a: Scalar, b: Scalar) -> Fields:
    both = "add-sub-both-overflow" in rules
    return _joined(
        tnum.add((a.value, a.mask), (b.value, b.mask)),
        _add_half(_whole(a), _whole(b), S64_MIN, M64, both),
        _add_half(_low(a), _low(b), S32_MIN, M32, both),
    )


def unsettled_sum(rules: Rules, a: Scalar, b: Scalar) -> Scalar:
    """A sum of 64 bits whose bounds are not deduced from each other."""
    return intern_fields(_add(rules, a, b))


def _sub(rules: Rules, a: Scalar, b: Scalar) -> Fields:
    both = "add-sub-both-overflow" in rules
    return _joined(
        tnum.sub((a.value, a.mask), (b.value, b.mask)),
        _sub_half(_whole(a), _whole(b), S64_MIN, M64, both),
        _sub_half(_low(a), _low(b), S32_MIN, M32, both),
    )


def _mul_half(a: Half, b: Half, smallest: int, full: int) -> Half:
    """Signed and unsigned products apart; the ends of a signed product are among the products of the ends."""
    umin, umax = a[2] * b[2], a[3] * b[3]
    if umin > full or umax > full:
        umin, umax = 0, full
    products = (a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1])
    smin, smax = min(products), max(products)
    if smin < smallest or smax > ~smallest:
        smin, smax = smallest, ~smallest
    return smin, smax, umin, umax


def _mul_half_of_positive(a: Half, b: Half, smallest: int, full: int) -> Half:
    """The rule before 6.14: nothing where an operand may be negative, or too large for any product to fit."""
    half_of_bits = (1 << full.bit_length() // 2) - 1
    if a[0] < 0 or b[0] < 0 or a[3] > half_of_bits or b[3] > half_of_bits:
        return smallest, ~smallest, 0, full
    umin, umax = a[2] * b[2], a[3] * b[3]
    smin, smax = (umin, umax) if umax <= ~smallest else (smallest, ~smallest)
    return smin, smax, umin, umax


def _mul(rules: Rules, a: Scalar, b: Scalar) -> Fields:
    product = tnum.mul if "mul-union" in rules else tnum.mul_of_masks if "mul-of-masks" in rules else tnum.mul_by_parts
    half = _mul_half if "mul-signed-bounds" in rules else _mul_half_of_positive
    return _joined(
        product((a.value, a.mask), (b.value, b.mask)),
        half(_whole(a), _whole(b), S64_MIN, M64),
        half(_low(a), _low(b), S32_MIN, M32),
    )


def _bitwise(rules: Rules, b: Scalar, bits: tnum.Tnum, whole: tuple[int, int], low: tuple[int, int]) -> Fields:
    """The result of these bits and unsigned ranges; signed ranges where the unsigned one does not cross the sign."""
    value, mask = bits
    if not (mask or b.mask):
        return const(value).fields
    umin32, umax32 = low
    if not (mask & M32 or b.mask & M32):
        number = value & M32
        low_half: Half = (signed32(number), signed32(number), number, number)
    elif signed32(umin32) <= signed32(umax32):
        low_half = signed32(umin32), signed32(umax32), umin32, umax32
    else:
        low_half = S32_MIN, S32_MAX, umin32, umax32
    umin, umax = whole
    smin, smax = signed64(umin), signed64(umax)
    if smin > smax:
        smin, smax = S64_MIN, S64_MAX
    return update(bits, (smin, smax, umin, umax), low_half, SINGLE in rules)


def _and(rules: Rules, a: Scalar, b: Scalar) -> Fields:
    """The least is in the bits; the greatest is the lesser of the operands' greatest."""
    bits = tnum.and_((a.value, a.mask), (b.value, b.mask))
    return _bitwise(rules, b, bits, (bits[0], min(a.umax, b.umax)), (bits[0] & M32, min(a.umax32, b.umax32)))


def _or(rules: Rules, a: Scalar, b: Scalar) -> Fields:
    """The greatest is in the bits; the least is the greater of the operands' least."""
    bits = tnum.or_((a.value, a.mask), (b.value, b.mask))
    most = bits[0] | bits[1]
    return _bitwise(rules, b, bits, (max(a.umin, b.umin), most), (max(a.umin32, b.umin32), most & M32))


def _xor(rules: Rules, a: Scalar, b: Scalar) -> Fields:
    """Both ends are in the bits."""
    bits = tnum.xor((a.value, a.mask), (b.value, b.mask))
    most = bits[0] | bits[1]
    return _bitwise(rules, b, bits, (bits[0], most), (bits[0] & M32, most & M32))


def _lsh_low(a: Scalar, least: int, greatest: int) -> Half:
    """The low half's range: none where a set bit might leave it, and no sign but what the bits tell."""
    if greatest > 31 or a.umax32 > 1 << (31 - greatest):
        return _NOTHING32
    return S32_MIN, S32_MAX, a.umin32 << least, a.umax32 << greatest


def _lsh32(_: Rules, a: Scalar, b: Scalar) -> Fields:
    least, greatest = b.umin32, b.umax32
    value, mask = (a.value << least) & M32, (a.mask << least) & M32
    return _joined((value, mask), _NOTHING64, update32(value, mask, _lsh_low(a, least, greatest)))


def _lsh64(rules: Rules, a: Scalar, b: Scalar) -> Fields:
    least, greatest = b.umin, b.umax
    smin, smax = S64_MIN, S64_MAX
    if least == greatest == 32:
        # The first half of compilers' sign extension: the low half's sign becomes the whole's.
        smin, smax = a.smin32 << 32, a.smax32 << 32
    umin, umax = (0, M64) if a.umax > 1 << (63 - greatest) else (a.umin << least, a.umax << greatest)
    bits = tnum.shift_left((a.value, a.mask), least)
    return update(bits, (smin, smax, umin, umax), _lsh_low(a, least, greatest), SINGLE in rules)


def _rsh32(_: Rules, a: Scalar, b: Scalar) -> Fields:
    least, greatest = b.umin32, b.umax32
    value, mask = (a.value & M32) >> least, (a.mask & M32) >> least
    low = update32(value, mask, (S32_MIN, S32_MAX, a.umin32 >> greatest, a.umax32 >> least))
    return _joined((value, mask), _NOTHING64, low)


def _rsh64(rules: Rules, a: Scalar, b: Scalar) -> Fields:
    """The low half takes bits from the upper one, so its range is what the bits tell."""
    least, greatest = b.umin, b.umax
    bits = a.value >> least, a.mask >> least
    return update(bits, (S64_MIN, S64_MAX, a.umin >> greatest, a.umax >> least), _NOTHING32, SINGLE in rules)


def _arsh32(_: Rules, a: Scalar, b: Scalar) -> Fields:
    """The unsigned range is what the bits tell."""
    count = b.umin32
    value, mask = tnum.shift_right_signed((a.value & M32, a.mask & M32), count, M32)
    low = update32(value, mask, (a.smin32 >> count, a.smax32 >> count, 0, M32))
    return _joined((value, mask), _NOTHING64, low)


def _arsh64(rules: Rules, a: Scalar, b: Scalar) -> Fields:
    count = b.umin
    bits = tnum.shift_right_signed((a.value, a.mask), count)
    return update(bits, (a.smin >> count, a.smax >> count, 0, M64), _NOTHING32, SINGLE in rules)


_EITHER_WIDTH: Final[dict[Op, Transfer]] = {
    Op.ADD: _add, Op.SUB: _sub, Op.MUL: _mul, Op.AND: _and, Op.OR: _or, Op.XOR: _xor,
}  # fmt: skip
_SHIFTS: Final[dict[tuple[Op, int], Transfer]] = {
    (Op.LSH, 32): _lsh32, (Op.LSH, 64): _lsh64, (Op.RSH, 32): _rsh32, (Op.RSH, 64): _rsh64,
    (Op.ARSH, 32): _arsh32, (Op.ARSH, 64): _arsh64,
}  # fmt: skip


_COUNTED: Final = frozenset({Op.LSH, Op.RSH, Op.ARSH})


def _is_known_count(width: int, b: Scalar) -> bool:
    """Whether a shift's count is one number, below the width: of other counts the kernel computes nothing."""
    if b.umax >= width:
        return False
    if width == 32:
        return not b.mask & M32 and b.smin32 == b.smax32 and b.umin32 == b.umax32
    return not b.mask and b.smin == b.smax and b.umin == b.umax


def transfer(rules: Rules, op: Op, width: int, a: Scalar, b: Scalar) -> Scalar:
    """What `a op b` leaves known. What is not tracked (division, remainder, shifts by an unknown count) is unknown."""
    if "unknown-operands" not in rules:
        return _transfer_before_6_10(rules, op, width, a, b)
    compute = _EITHER_WIDTH.get(op)
    if compute is None:
        compute = _SHIFTS.get((op, width))
        if compute is None or not _is_known_count(width, b):
            return UNKNOWN
    fields = compute(rules, a, b)
    return settle(zero_extend32(fields) if width == 32 else fields, rules)


def _transfer_before_6_10(rules: Rules, op: Op, width: int, a: Scalar, b: Scalar) -> Scalar:
    """The same for kernels that compute little of an unknown `b`, and nothing of one whose bounds contradict."""
    smin, smax, umin, umax = _low(b) if width == 32 else _whole(b)
    known = (b.const if width == 64 else b.const32) is not None
    contradicts = smin > smax or umin > umax or (known and (smin != smax or umin != umax))
    if contradicts or (not known and op not in (Op.ADD, Op.SUB, Op.AND)):
        return UNKNOWN
    compute = _EITHER_WIDTH.get(op) or _SHIFTS.get((op, width))
    # What is not computed is unknown, but a 32-bit result is still zero-extended.
    unknown = compute is None or (op in _COUNTED and b.umax >= width)
    fields = UNKNOWN.fields if compute is None or unknown else compute(rules, a, b)
    return settle(zero_extend32(fields) if width == 32 else fields, rules)


def negate(rules: Rules, width: int, a: Scalar) -> Scalar:
    """What `-a` leaves known: zero minus `a`, where the kernel tracks it."""
    return transfer(rules, Op.SUB, width, const(0), a) if "neg-bounds" in rules else UNKNOWN


def byte_swap(rules: Rules, op: Op, bits: int, a: Scalar) -> Scalar:
    """What a change of byte order leaves known: the bits, swapped, and of shorter ones that the rest is zero."""
    if "byte-swap-bits" not in rules:
        return UNKNOWN
    size = bits // 8
    if op is not Op.TO_LE:
        value, mask = _swapped(a.value, size), _swapped(a.mask, size)
        # The ranges say nothing of the swapped number: only what the bits tell is kept.
        a = intern_fields((value, mask, *UNBOUNDED))
    swapped = a if size == 8 else truncate(a, size, rules)
    return settle(swapped.fields, rules)


def _swapped(number: int, size: int) -> int:
    """The low `size` bytes in the other order."""
    return int.from_bytes((number & (1 << size * 8) - 1).to_bytes(size, "little"), "big")


def fork(rules: Rules, op: Op, a: Scalar, b: Scalar) -> tuple[Scalar, Scalar] | None:
    """The two numbers to go on with apart where `a` is -1 or 0 and is masked by a known number; else None.

    It is how compilers turn a comparison into a mask, and two paths keep what either number leads to. The first is -1,
    to go on with; the second 0, with which the kernel explores the same instruction again later.
    """
    if "fork-on-mask" not in rules or op not in (Op.AND, Op.OR) or b.mask:
        return None
    if a.smin == -1 and a.smax == 0:
        return const(-1), const(0)
    if a.smin32 == -1 and a.smax32 == 0:
        return _with_known_low(a, M32), _with_known_low(a, 0)
    return None


def _with_known_low(a: Scalar, number: int) -> Scalar:
    """`a` with its low half known; the whole's bounds stay as they were."""
    ends = (signed32(number), signed32(number), number, number)
    return intern_fields((a.value & HIGH | number, a.mask & HIGH, a.smin, a.smax, a.umin, a.umax, *ends))
