"""Lays the stack slots out below r10."""

from __future__ import annotations

from collections.abc import Iterable

from bpflisp.back.machine import BackError
from bpflisp.back.select import alignment
from bpflisp.ir.ssa import Position, Slot
from bpflisp.spec.isa import STACK_SIZE

SPILL = "spill"
"""What the name of a slot for a register starts with."""


def lay_out(slots: Iterable[Slot], position: Position | None) -> tuple[dict[Slot, int], int]:
    """The offset of each slot from r10, and the bytes of stack in all. BackError beyond the kernel's limit."""
    offsets: dict[Slot, int] = {}
    depth = 0
    for slot in sorted(slots, key=lambda slot: -alignment(slot)):
        align = alignment(slot)
        depth = (depth + slot.size + align - 1) // align * align
        offsets[slot] = -depth
    if depth > STACK_SIZE:
        problem = f"the stack holds {STACK_SIZE} bytes, and this function needs {depth}"
        raise BackError(problem, position, _shares(offsets))
    return offsets, depth


def _shares(slots: Iterable[Slot]) -> str:
    """What takes how much: "512 bytes for (struct-alloc 256), 64 for registers"."""
    bytes_of: dict[str, int] = {}
    for slot in slots:
        what = "registers" if slot.name.startswith(SPILL) else slot.name or "memory"
        bytes_of[what] = bytes_of.get(what, 0) + slot.size
    largest = sorted(bytes_of.items(), key=lambda share: (-share[1], share[0]))
    return ", ".join(f"{size} bytes for {what}" for what, size in largest[:6])
