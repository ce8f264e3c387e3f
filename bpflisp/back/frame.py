"""Lays the stack slots out below r10."""

from __future__ import annotations

from collections.abc import Iterable

from bpflisp.back.machine import BackError
from bpflisp.back.select import alignment
from bpflisp.ir.ssa import Position, Slot
from bpflisp.spec.isa import STACK_SIZE


def lay_out(slots: Iterable[Slot], position: Position | None) -> tuple[dict[Slot, int], int]:
    """The offset of each slot from r10, and the bytes of stack in all. BackError beyond the kernel's limit."""
    offsets: dict[Slot, int] = {}
    depth = 0
    for slot in sorted(slots, key=lambda slot: -alignment(slot)):
        align = alignment(slot)
        depth = (depth + slot.size + align - 1) // align * align
        offsets[slot] = -depth
    if depth > STACK_SIZE:
        raise BackError(f"the stack holds {STACK_SIZE} bytes, and this function needs {depth}", position)
    return offsets, depth
