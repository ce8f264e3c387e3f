"""`Scalar`: what is known of a number in a register. One object for each distinct knowledge, so equality is identity.

The knowledge is a tnum over 64 bits and four ranges: signed and unsigned, of the whole register and of its low half.
"""

from __future__ import annotations

from sys import getrefcount
from typing import Final, TypeAlias

from simulator.verifier.tnum import M32, M64

S64_MIN, S64_MAX = -(1 << 63), (1 << 63) - 1
S32_MIN, S32_MAX = -(1 << 31), (1 << 31) - 1

Fields: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int]
"""(value, mask, smin, smax, umin, umax, smin32, smax32, umin32, umax32); signed bounds are signed ints."""

# Where each is in `Fields`.
VALUE, MASK, SMIN, SMAX, UMIN, UMAX, SMIN32, SMAX32, UMIN32, UMAX32 = range(10)


class Scalar:
    """What is known of a 64-bit number. Immutable; made by `intern_fields` alone, so that equal ones are one object.

    `value` and `mask` are the tnum; `smin` to `umax` bound the 64 bits, `smin32` to `umax32` the low 32. `is_const`
    says that all 64 bits are known, `const` is then the number, unsigned, and None otherwise; `const32` the same for
    the low 32 bits. `fields` is all ten in the order of `Fields`.
    """

    __slots__ = (
        "const",
        "const32",
        "fields",
        "is_const",
        "mask",
        "smax",
        "smax32",
        "smin",
        "smin32",
        "umax",
        "umax32",
        "umin",
        "umin32",
        "value",
    )

    def __init__(self, fields: Fields) -> None:
        self.fields: Final = fields
        self.value: Final = fields[VALUE]
        self.mask: Final = fields[MASK]
        self.smin: Final = fields[SMIN]
        self.smax: Final = fields[SMAX]
        self.umin: Final = fields[UMIN]
        self.umax: Final = fields[UMAX]
        self.smin32: Final = fields[SMIN32]
        self.smax32: Final = fields[SMAX32]
        self.umin32: Final = fields[UMIN32]
        self.umax32: Final = fields[UMAX32]
        self.is_const: Final = not self.mask
        self.const: Final = None if self.mask else self.value
        self.const32: Final = None if self.mask & M32 else self.value & M32

    def __repr__(self) -> str:
        from simulator.verifier.scalar.text import describe

        return describe(self)

    def __contains__(self, number: int) -> bool:
        """Whether the register may hold `number`, given unsigned."""
        low = number & M32
        return (
            number & ~self.mask == self.value
            and self.umin <= number <= self.umax
            and self.smin <= signed64(number) <= self.smax
            and self.umin32 <= low <= self.umax32
            and self.smin32 <= signed32(low) <= self.smax32
        )


def signed64(number: int) -> int:
    """The two's complement meaning of 64 bits, given unsigned."""
    return number - (1 << 64) if number >> 63 else number


def signed32(number: int) -> int:
    """The two's complement meaning of 32 bits, given unsigned."""
    return number - (1 << 32) if number >> 31 else number


_interned: dict[Fields, Scalar] = {}
_consts: dict[int, Scalar] = {}
emptied_with_interned: list[dict[Fields, Scalar]] = []
"""What other modules keep of interned scalars; `drop_unused` empties these, too."""

_HELD_BY_US: Final = 2
"""The references to an object that a dictionary alone holds, as `getrefcount` counts them: it adds its own."""


def intern_fields(fields: Fields) -> Scalar:
    """The one scalar with these fields."""
    scalar = _interned.get(fields)
    if scalar is None:
        scalar = _interned[fields] = Scalar(fields)
    return scalar


def const(number: int) -> Scalar:
    """The scalar of one known number, given signed or unsigned."""
    scalar = _consts.get(number)
    if scalar is None:
        whole = number & M64
        low = whole & M32
        whole_signed, low_signed = signed64(whole), signed32(low)
        scalar = intern_fields(
            (whole, 0, whole_signed, whole_signed, whole, whole, low_signed, low_signed, low, low),
        )
        _consts[number] = scalar
    return scalar


UNBOUNDED: Final = (S64_MIN, S64_MAX, 0, M64, S32_MIN, S32_MAX, 0, M32)
"""The eight bounds that say nothing."""

UNKNOWN: Final = intern_fields((0, M64, *UNBOUNDED))
"""A scalar of which nothing is known."""


def drop_unused() -> None:
    """Forget the scalars that nothing but this module refers to, to give memory back.

    Those that something holds stay the one object with their fields. To be called while no program is explored, since
    what is being computed is held by nothing yet.
    """
    _consts.clear()
    for kept in emptied_with_interned:
        kept.clear()
    for fields in list(_interned):
        if getrefcount(_interned[fields]) <= _HELD_BY_US:
            del _interned[fields]


def interned_count() -> int:
    """How many scalars are held."""
    return len(_interned)


def within(old: Scalar, cur: Scalar) -> bool:
    """Whether every number of `cur` is allowed by `old`: the kernel's `range_within` and `tnum_in`."""
    return old is cur or (
        old.umin <= cur.umin
        and old.umax >= cur.umax
        and old.smin <= cur.smin
        and old.smax >= cur.smax
        and old.umin32 <= cur.umin32
        and old.umax32 >= cur.umax32
        and old.smin32 <= cur.smin32
        and old.smax32 >= cur.smax32
        and not cur.mask & ~old.mask
        and cur.value & ~old.mask == old.value
    )
