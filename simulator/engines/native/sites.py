"""Sites: the places in translated code that leave it, to call Python or because the run cannot go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class Why(IntEnum):
    """Why code leaves."""

    HELPER = 0
    HELPER_BY_REGISTER = 1
    KERNEL_FUNCTION = 2
    TAIL_CALL = 3
    AFTER_TAIL_CALL = 4
    PACKET = 5
    IMMEDIATE = 6
    ACCESS = 7
    FUEL = 8
    FRAMES = 9
    NO_INSTRUCTION = 10
    ILLEGAL = 11
    RESIZED = 12


@dataclass(frozen=True, slots=True)
class Site:
    """One of them. `number` is a helper's, the size of an access in bytes, an opcode, or how many instructions there
    was fuel to be for. `after` is how many instructions were paid for beforehand that come after this one.
    """

    why: Why
    slot: int
    number: int = 0
    write: bool = False
    after: int = 0


NewSite = Callable[[Site], int]
"""Keeps a site and gives its index."""
