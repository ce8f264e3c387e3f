"""What the tnum and the bounds of a scalar tell about each other, and the changes of size that rest on it.

`sync` is the kernel's `reg_bounds_sync`. Each step only intersects with what is implied, so it keeps every number that
was allowed. Bounds may contradict each other on a branch that cannot be taken and was not predicted: the steps then
compute as the kernel does, and `checked` forgets the bounds as the kernel does.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from simulator.verifier import tnum
from simulator.verifier.scalar.rules import Rules
from simulator.verifier.scalar.value import (
    S32_MAX,
    S32_MIN,
    S64_MAX,
    S64_MIN,
    UNBOUNDED,
    Fields,
    Scalar,
    const,
    emptied_with_interned,
    intern_fields,
    signed32,
    signed64,
)
from simulator.verifier.tnum import HIGH, M32, M64

Half: TypeAlias = tuple[int, int, int, int]
"""(smin, smax, umin, umax) of one width."""

ACROSS: Final = "ranges-across-widths"
LOW_BITS: Final = "low-bits-from-whole-range"
SINGLE: Final = "tnum-single-number"
_SIGN32, _SIGN64 = 1 << 31, 1 << 63
_REST32, _REST64 = S32_MAX, S64_MAX


def update32(value: int, mask: int, low: Half) -> Half:
    """The 32-bit bounds, tightened by what the tnum's low half allows at most and at least."""
    smin, smax, umin, umax = low
    value &= M32
    mask &= M32
    most = value | mask
    # The least signed number takes an unknown sign bit as set and all else as clear, the greatest the other way.
    least, greatest = value | (mask & _SIGN32), value | (mask & _REST32)
    if least >> 31:
        least -= 1 << 32
    if greatest >> 31:
        greatest -= 1 << 32
    return (
        least if least > smin else smin,
        greatest if greatest < smax else smax,
        value if value > umin else umin,
        most if most < umax else umax,
    )


def update64(value: int, mask: int, whole: Half) -> Half:
    """The same for the 64-bit bounds and the whole tnum."""
    smin, smax, umin, umax = whole
    most = value | mask
    least, greatest = value | (mask & _SIGN64), value | (mask & _REST64)
    if least >> 63:
        least -= 1 << 64
    if greatest >> 63:
        greatest -= 1 << 64
    return (
        least if least > smin else smin,
        greatest if greatest < smax else smax,
        value if value > umin else umin,
        most if most < umax else umax,
    )


def only_number(value: int, mask: int, umin: int, umax: int) -> int | None:
    """The one number of the tnum that lies in the range, where there is but one."""
    if umin == value:
        # The number after the least differs from it in the lowest unknown bit. Without such a bit the range is empty
        # where this holds, and the kernel makes it the tnum's number.
        return value if value + (mask & -mask) > umax else None
    bits = value, mask
    after = tnum.step(bits, umin)
    if umin & ~mask == value:
        return umin if after > umax else None
    # The kernel takes the tnum's greatest without asking whether it is in the range.
    if after == value | mask or (after <= umax and tnum.step(bits, after) > umax):
        return after
    return None


def update(bits: tnum.Tnum, whole: Half, low: Half, single: bool) -> Fields:
    """The bounds of both widths, tightened by the tnum; `single` is the rule of `only_number`."""
    value, mask = bits
    whole = update64(value, mask, whole)
    if single and (number := only_number(value, mask, whole[2], whole[3])) is not None:
        return const(number).fields
    return value, mask, *whole, *update32(value, mask, low)


def _low_of_64(whole: Half, low: Half) -> Half:
    """The 32-bit bounds, tightened by the 64-bit ones where the upper half is the same all through, or steps once."""
    smin, smax, umin, umax = whole
    if umin >> 32 == umax >> 32:
        low = _within_unsigned(_within_signed(low, umin & M32, umax & M32), umin & M32, umax & M32)
    if smin >> 32 == smax >> 32:
        low = _within_unsigned(_within_signed(low, smin & M32, smax & M32), smin & M32, smax & M32)
    # From ...ffffffff'80000000 up over the step to ...00000000'7fffffff the low half is a signed range.
    if ((umin >> 32) + 1) & M32 == umax >> 32 and umin & _SIGN32 and not umax & _SIGN32:
        low = _within_signed(low, umin & M32, umax & M32)
    if ((smin >> 32) + 1) & M32 == (smax >> 32) & M32 and smin & _SIGN32 and not smax & _SIGN32:
        low = _within_signed(low, smin & M32, smax & M32)
    return low


def _within_signed(low: Half, first: int, last: int) -> Half:
    """The 32-bit bounds, within two ends where these, read as signed, are a range."""
    smin, smax, umin, umax = low
    first, last = signed32(first), signed32(last)
    if first > last:
        return low
    return first if first > smin else smin, last if last < smax else smax, umin, umax


def _within_unsigned(low: Half, first: int, last: int) -> Half:
    """The 32-bit bounds, within two ends where these are a range."""
    smin, smax, umin, umax = low
    if first > last:
        return low
    return smin, smax, first if first > umin else umin, last if last < umax else umax


def deduce(half: Half, sign: int) -> Half:
    """Signed and unsigned bounds of one width, each tightened by the other; `sign` is the width's sign bit."""
    smin, smax, umin, umax = half
    least = umin - sign - sign if umin >= sign else umin
    greatest = umax - sign - sign if umax >= sign else umax
    if least <= greatest:
        if least > smin:
            smin = least
        if greatest < smax:
            smax = greatest
    first = smin + sign + sign if smin < 0 else smin
    last = smax + sign + sign if smax < 0 else smax
    if first <= last:
        return smin, smax, first if first > umin else umin, last if last < umax else umax
    # The signed range crosses zero, so unsigned it lies at both ends. Where the unsigned range meets one end only:
    if umax < first:
        return least, smax, umin, last if last < umax else umax
    if last < umin:
        return smin, greatest, first if first > umin else umin, umax
    return smin, smax, umin, umax


def deduce64_from_32(whole: Half, low: Half) -> Half:
    """The 64-bit bounds, tightened by putting the low half's bounds in their low 32 bits."""
    smin32, smax32, umin32, umax32 = low
    whole = _with_low(whole, umin32, umax32)
    first, last = smin32 & M32, smax32 & M32
    return _with_low(whole, first, last) if first <= last else whole


def _with_low(whole: Half, first: int, last: int) -> Half:
    """The 64-bit bounds, no minimum's low half below `first`, no maximum's above `last`."""
    smin, smax, umin, umax = whole
    if umin & M32 < first:
        umin = umin & HIGH | first
    if umax & M32 > last:
        umax = umax & HIGH | last
    if smin & M32 < first:
        smin += first - (smin & M32)
    if smax & M32 > last:
        smax -= (smax & M32) - last
    return smin, smax, umin, umax


def sync_fields(fields: Fields, rules: Rules) -> Fields:
    """What `sync` makes of the fields, as these rules have it."""
    if ACROSS not in rules:
        return sync_before_6_8(fields, LOW_BITS in rules)
    return _sync_across_widths(fields, SINGLE in rules)


def _sync_across_widths(fields: Fields, single: bool) -> Fields:
    """The bounds and the bits, each tightened by what the others imply."""
    bits, whole, low = _parts(update(*_parts(fields), single))
    for _ in range(3):
        before = bits, whole, low
        low = deduce(_low_of_64(whole, low), _SIGN32)
        whole = deduce64_from_32(deduce(whole, _SIGN64), low)
        if low[0] >= 0 and whole[0] >= S32_MIN and whole[1] <= S32_MAX:
            # A sign-extended 32-bit number whose low half is not negative: it is its low half.
            least, greatest = low[0], low[1]
            whole = least, greatest, least & M64, greatest & M64
            bits = _intersect_span(*bits, whole[2], whole[3])
        if before == (bits, whole, low):
            break
    return update(_bits_from_bounds(*bits, whole, low), whole, low, single)


def as_fields(numbers: list[int]) -> Fields:
    """The ten numbers as fields."""
    value, mask, smin, smax, umin, umax, smin32, smax32, umin32, umax32 = numbers
    return value, mask, smin, smax, umin, umax, smin32, smax32, umin32, umax32


def _parts(fields: Fields) -> tuple[tnum.Tnum, Half, Half]:
    value, mask, smin, smax, umin, umax, smin32, smax32, umin32, umax32 = fields
    return (value, mask), (smin, smax, umin, umax), (smin32, smax32, umin32, umax32)


def _intersect_span(value: int, mask: int, low: int, high: int) -> tuple[int, int]:
    """The tnum, with the bits that all of `low` to `high` have in common."""
    unknown = (1 << (low ^ high).bit_length()) - 1
    mask_of_both = mask & unknown
    return (value | low & ~unknown) & ~mask_of_both, mask_of_both


def _bits_from_bounds(value: int, mask: int, whole: Half, low: Half) -> tuple[int, int]:
    """The tnum, with the bits that the unsigned bounds of either width fix."""
    value, mask = _intersect_span(value, mask, whole[2], whole[3])
    low_value, low_mask = _intersect_span(value & M32, mask & M32, low[2], low[3])
    return value & HIGH | low_value, mask & HIGH | low_mask


def sync(fields: Fields, rules: Rules) -> Scalar:
    """The scalar of these fields after the deductions."""
    known = _synced[(LOW_BITS in rules) + (ACROSS in rules) + (SINGLE in rules)]
    scalar = known.get(fields)
    if scalar is None:
        scalar = known[fields] = intern_fields(sync_fields(fields, rules))
    return scalar


# What was computed by the rules that `sync_fields` asks for, each of which began after the one before.
_synced: tuple[dict[Fields, Scalar], ...] = {}, {}, {}, {}
emptied_with_interned.extend(_synced)


def _deduce_before_6_8(half: Half, sign: int) -> Half:
    """Signed and unsigned bounds of one width, where one of them does not cross the sign; `sign` is the sign bit."""
    smin, smax, umin, umax = half
    if smin >= 0 or smax < 0:
        umin, umax = max(smin % (2 * sign), umin), min(smax % (2 * sign), umax)
        return _as_signed(umin, sign), _as_signed(umax, sign), umin, umax
    if umax < sign:
        greatest = min(smax, umax)
        return _as_signed(umin, sign), greatest, umin, greatest
    if umin >= sign:
        umin = max(smin % (2 * sign), umin)
        return _as_signed(umin, sign), _as_signed(umax, sign), umin, umax
    return half


def _as_signed(number: int, sign: int) -> int:
    return number - sign - sign if number >= sign else number


def sync_before_6_8(fields: Fields, low_bits_from_whole: bool) -> Fields:
    """The deductions of kernels before 6.8: each width by itself, once."""
    bits, whole, low = _parts(update(*_parts(fields), single=False))
    low, whole = _deduce_before_6_8(low, _SIGN32), _deduce_before_6_8(whole, _SIGN64)
    learned = _bits_from_bounds(*bits, whole, low)
    if not low_bits_from_whole:
        learned = tnum.with_subreg(learned, _intersect_span(*tnum.subreg(bits), low[2], low[3]))
    return update(learned, whole, low, single=False)


def low_from_whole(fields: Fields) -> Fields:
    """The 32-bit bounds anew, from 64-bit bounds that fit: `__reg_combine_64_into_32` before 6.8, no `sync`."""
    value, mask, smin, smax, umin, umax, smin32, smax32, umin32, umax32 = fields
    smin32, smax32, umin32, umax32 = S32_MIN, S32_MAX, 0, M32
    if S32_MIN <= smin <= S32_MAX and S32_MIN <= smax <= S32_MAX:
        smin32, smax32 = smin, smax
    if umin <= M32 and umax <= M32:
        umin32, umax32 = umin, umax
    return value, mask, smin, smax, umin, umax, smin32, smax32, umin32, umax32


def is_consistent(fields: Fields) -> bool:
    """Whether no range is empty, and known bits and ranges of one number agree."""
    value, mask, smin, smax, umin, umax, smin32, smax32, umin32, umax32 = fields
    if umin > umax or smin > smax or umin32 > umax32 or smin32 > smax32:
        return False
    if not mask and not (umin == umax == value and smin == smax == signed64(value)):
        return False
    if not mask & M32:
        low = value & M32
        return umin32 == umax32 == low and smin32 == smax32 == signed32(low)
    return True


def checked(scalar: Scalar) -> Scalar:
    """The scalar, its bounds forgotten where they contradict each other: the kernel's `reg_bounds_sanity_check`."""
    fields = scalar.fields
    return scalar if is_consistent(fields) else intern_fields((fields[0], fields[1], *UNBOUNDED))


def settle(fields: Fields, rules: Rules) -> Scalar:
    """The scalar of these fields after the deductions, and after the check where the kernel has it."""
    scalar = sync(fields, rules)
    return checked(scalar) if ACROSS in rules else scalar


def zero_extend32(fields: Fields) -> Fields:
    """What a 32-bit result makes of the whole register, before `sync`."""
    value, mask, _, _, _, _, smin32, smax32, umin32, umax32 = fields
    smin, smax = (smin32, smax32) if smin32 >= 0 and smax32 >= 0 else (0, M32)
    return value & M32, mask & M32, smin, smax, umin32, umax32, smin32, smax32, umin32, umax32


def truncate(scalar: Scalar, size: int, rules: Rules) -> Scalar:
    """The low `size` bytes (1, 2 or 4), zero-extended: the kernel's `coerce_reg_to_size`."""
    bits, (_, _, umin, umax), low = _parts(scalar.fields)
    value, mask = bits
    kept = (1 << size * 8) - 1
    if umin & ~kept == umax & ~kept:
        umin, umax = umin & kept, umax & kept
    else:
        umin, umax = 0, kept
    if size < 4:
        low = S32_MIN, S32_MAX, 0, M32
    if ACROSS not in rules:
        fields: Fields = (value & kept, mask & kept, umin, umax, umin, umax, *low)
        return intern_fields(fields) if size == 4 else sync(low_from_whole(fields), rules)
    return sync((value & kept, mask & kept, umin, umax, umin, umax, *low), rules)


def _sign_extended(number: int, bits: int) -> int:
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> (bits - 1) else number


def _extended_range(smin: int, smax: int, bits: int) -> tuple[int, int] | None:
    """The signed range of the low bits, where the upper ones are the same all through and the sign is known."""
    if smin >> bits != smax >> bits:
        return None
    ends = sorted((_sign_extended(smin, bits), _sign_extended(smax, bits)))
    return (ends[0], ends[1]) if (ends[0] >= 0) == (ends[1] >= 0) else None


def sign_extend64(scalar: Scalar, bits: int) -> Scalar:
    """The low `bits` bits (8, 16 or 32) extended to 64 by their sign: the kernel's `coerce_reg_to_size_sx`.

    It sets the bounds without deducing more from them, as the kernel does.
    """
    if scalar.is_const:
        return const(_sign_extended(scalar.value, bits))
    ends = _extended_range(scalar.smin, scalar.smax, bits)
    if ends is None:
        least, greatest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        return intern_fields((0, M64, least, greatest, 0, M64, least, greatest, 0, M32))
    least, greatest = ends
    umin, umax = least & M64, greatest & M64
    value, mask = _intersect_span(0, M64, umin, umax)
    return intern_fields((value, mask, least, greatest, umin, umax, *ends_of_low(least, greatest)))


def ends_of_low(least: int, greatest: int) -> Half:
    """The 32-bit bounds that two ends give when each is cut to 32 bits."""
    first, last = least & M32, greatest & M32
    return signed32(first), signed32(last), first, last


def sign_extend32(scalar: Scalar, bits: int, rules: Rules) -> Scalar:
    """The low `bits` bits (8 or 16) extended to 32 by their sign, then with zeroes: `coerce_subreg_to_size_sx`."""
    if scalar.is_const:
        return const(_sign_extended(scalar.value, bits) & M32)
    ends = _extended_range(scalar.smin32, scalar.smax32, bits)
    if ends is None:
        least, greatest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        fields: Fields = (0, M32, S64_MIN, S64_MAX, 0, M64, least, greatest, 0, M32)
    else:
        smin32, smax32, umin32, umax32 = ends_of_low(*ends)
        # The span is over the numbers as 64 bits, and only then cut.
        value, mask = _intersect_span(0, M64, ends[0] & M64, ends[1] & M64)
        fields = (value & M32, mask & M32, S64_MIN, S64_MAX, 0, M64, smin32, smax32, umin32, umax32)
    return sync(zero_extend32(fields), rules)
