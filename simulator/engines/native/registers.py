"""Which register of the host has which of the program, and how code names the numbers that it shares with Python.

rcx and rdx are free between instructions, r11 counts the instructions that the run may still take, r15 is the arena's
address.
"""

from __future__ import annotations

from typing import Final

from simulator.engines.native.encode import R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBP, RBX, RDI, RSI, Mem
from simulator.engines.native.layout import control

X: Final = (RAX, RDI, RSI, R8, R9, R10, RBX, R12, R13, R14, RBP)
"""r0 to r10."""

FUEL: Final = R11
ARENA: Final = R15


def slot(number: int) -> Mem:
    """A number of `layout.Slot` as an operand."""
    return Mem(ARENA, control(number))
