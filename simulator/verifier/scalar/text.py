"""Scalars as the kernel's log prints them."""

from __future__ import annotations

from typing import Final

from simulator.verifier import tnum
from simulator.verifier.scalar.value import S32_MAX, S32_MIN, S64_MAX, S64_MIN, Scalar, signed64
from simulator.verifier.tnum import M32, M64

_U16_MAX, _S16_MIN, _S16_MAX = 0xFFFF, -0x8000, 0x7FFF

_NAMES: Final = ("smin", "smax", "umin", "umax", "smin32", "smax32", "umin32", "umax32")
_SAYS_NOTHING: Final = (S64_MIN, S64_MAX, 0, M64, S32_MIN, S32_MAX, 0, M32)


def number_text(number: int, is_signed: bool) -> str:
    """A number as the log has it: decimal where that is short, else hexadecimal of its 64 bits."""
    if is_signed:
        return str(number) if _S16_MIN <= number <= _S16_MAX else f"{number & M64:#x}"
    return str(number) if number <= _U16_MAX else f"{number:#x}"


def _printed(bounds: tuple[int, ...]) -> list[int]:
    """The bounds as 64 printed bits: 32-bit ones that go to hexadecimal are not sign-extended."""
    numbers = list(bounds)
    for at in (4, 5):
        if not _S16_MIN <= numbers[at] <= _S16_MAX:
            numbers[at] &= M32
    return numbers


def bounds_text(scalar: Scalar) -> list[str]:
    """What the log says of an unknown scalar's bounds and bits: "smin=0", "smax=umax=0xff", "var_off=(0x0; 0xff)".

    Bounds that say nothing are left out; equal ones of the same kind (a minimum or a maximum) are named together.
    """
    numbers = _printed(scalar.fields[2:])
    omitted = [number == nothing for number, nothing in zip(scalar.fields[2:], _SAYS_NOTHING, strict=True)]
    parts = []
    for at, name in enumerate(_NAMES):
        if omitted[at]:
            continue
        names, number, is_signed = [name], numbers[at], name[0] == "s"
        for other in range(at + 2, 8, 2):
            if not omitted[other] and numbers[other] == number:
                omitted[other] = True
                names.append(_NAMES[other])
        parts.append(f"{'='.join(names)}={number_text(number, is_signed)}")
    if (scalar.value, scalar.mask) != tnum.UNKNOWN:
        parts.append(f"var_off={tnum.text((scalar.value, scalar.mask))}")
    return parts


def const_text(scalar: Scalar) -> str:
    """A known number as the log has it: signed, decimal where short."""
    return number_text(signed64(scalar.value), True)


def describe(scalar: Scalar) -> str:
    """The whole as the log has it, without the id and precision that a state adds."""
    return const_text(scalar) if scalar.is_const else f"scalar({','.join(bounds_text(scalar))})"
