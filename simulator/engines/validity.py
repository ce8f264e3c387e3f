"""Which slots have an instruction that can be executed: engines stop at any other with the fault "illegal"."""

from __future__ import annotations

from collections.abc import Sequence

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import FRAME_POINTER, Kind

_SWAPPED_BITS = (16, 32, 64)


def sound(insn: Insn) -> bool:
    """Whether it is an instruction at all, with its reserved fields zero."""
    if insn.row.kind is Kind.UNKNOWN or insn.reserved() or max(insn.dst, insn.src) > FRAME_POINTER:
        return False
    return insn.row.kind is not Kind.END or insn.imm in _SWAPPED_BITS


def whole(code: Sequence[Insn | None], slot: int) -> bool:
    """Whether all slots of the instruction at `slot` are there: a 64-bit load has two."""
    insn = code[slot]
    return insn is not None and (insn.slots == 1 or list(code[slot + 1 : slot + 2]) == [None])
