"""Which slots have an instruction that can be executed: engines stop at any other with the fault "illegal"."""

from __future__ import annotations

from collections.abc import Sequence

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import FRAME_POINTER, Kind
from simulator.program import Program

ADDRESS_CASTS = (1, 1 << 16)
_MOVE = 0xBF
_SWAPPED_BITS = (16, 32, 64)


def sound(insn: Insn) -> bool:
    """Whether it is an instruction at all, with its reserved fields zero."""
    reserved = insn.reserved()
    if insn.row.kind is Kind.EXIT and reserved == ["off"]:
        reserved = []  # no kernel looks at it: such a program is accepted, and runs
    if insn.row.kind is Kind.UNKNOWN or reserved or max(insn.dst, insn.src) > FRAME_POINTER:
        return False
    return insn.row.kind is not Kind.END or insn.imm in _SWAPPED_BITS


def is_address_cast(insn: Insn) -> bool:
    """Whether it makes an address of an arena one of the other space: to the kernel's (1), or to user space's."""
    return insn.opcode == _MOVE and insn.off == 1 and insn.imm in ADDRESS_CASTS


def needs_steps(program: Program) -> bool:
    """Whether only the reference engine runs it: a program with an arena, for its accesses do not fault."""
    return any(made.type == "arena" for made in program.maps)


def whole(code: Sequence[Insn | None], slot: int) -> bool:
    """Whether all slots of the instruction at `slot` are there: a 64-bit load has two."""
    insn = code[slot]
    return insn is not None and (insn.slots == 1 or list(code[slot + 1 : slot + 2]) == [None])
