"""Reads scalars as the kernel's log prints them; the inverse of `simulator.verifier.scalar.describe`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from simulator.verifier.scalar import Scalar, const, intern_fields
from simulator.verifier.scalar.value import UNBOUNDED, signed32, signed64
from simulator.verifier.tnum import M32, M64

NAMES = ("smin", "smax", "umin", "umax", "smin32", "smax32", "umin32", "umax32")
_VAR_OFF = re.compile(r",?var_off=\((0x[0-9a-f]+); (0x[0-9a-f]+)\)")
_ID = re.compile(r"^id=(\d+)([+-]\d+)?,?")
_REGISTER = re.compile(r"R(\d+)=(P?(?:scalar\((?:[^()]|\([^()]*\))*\)|-?0x[0-9a-f]+|-?\d+))(?= |$)")


@dataclass(frozen=True, slots=True)
class Printed:
    """A register of the log: what is known of its number, and the identity that links it to others, "" for none."""

    scalar: Scalar
    link: str = ""


def scalar_of(text: str) -> Scalar:
    """The scalar that the log prints so."""
    return printed(text).scalar


def printed(text: str) -> Printed:
    """The register that the log prints so."""
    text = text.removeprefix("P")
    if not text.startswith("scalar("):
        return Printed(const(int(text, 0)))
    body = text.removeprefix("scalar(").removesuffix(")")
    link = ""
    if match := _ID.match(body):
        link, body = match[1], body[match.end() :]
    value, mask = 0, M64
    if match := _VAR_OFF.search(body):
        value, mask, body = int(match[1], 16), int(match[2], 16), body[: match.start()]
    bounds = list(UNBOUNDED)
    for part in filter(None, body.split(",")):
        *names, number = part.split("=")
        for name in names:
            bounds[NAMES.index(name)] = _bound(name, int(number, 0))
    return Printed(intern_fields((value, mask, *bounds)), link)  # type: ignore[arg-type]


def _bound(name: str, number: int) -> int:
    """A printed number as the bound of this name: hexadecimal ones are the bits of a signed number."""
    if name[0] == "u":
        return number
    return signed32(number & M32) if name.endswith("32") else signed64(number & M64)


def registers_of(text: str) -> dict[int, Printed]:
    """The scalar registers in the log's print of a state."""
    return {int(match[1]): printed(match[2]) for match in _REGISTER.finditer(text)}
