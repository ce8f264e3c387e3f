"""Which registers may still be read from an instruction on, without looking at values.

Invariant: a set of registers is a mask, bit n for rn. What an instruction reads is never understated: a register that
is not in the mask may be forgotten when states are compared. Kernels compute this from 6.16 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bpflisp.spec.isa import (
    ALU32,
    ALU64,
    CALL_CODE,
    END_CODE,
    EXIT_CODE,
    FETCH,
    JA_CODE,
    JMP,
    JMP32,
    LD,
    LD_IMM64_OPCODE,
    LDX,
    LOAD_ACQUIRE_IMM,
    MAY_GOTO_CODE,
    MODE_ATOMIC,
    MODE_MEM,
    MODE_MEMSX,
    SRC_REG,
    ST,
    STORE_RELEASE_IMM,
    STX,
)
from simulator.verifier.cfg import CallsAt
from simulator.verifier.slots import CLASS_MASK, MODE_MASK, OP_MASK, Slots

ALL: Final = 0xFFFF
R0: Final = 1
ARGUMENTS: Final = 0x3E
"""r1 to r5."""
CALLER_SAVED: Final = 0x3F
"""r0 to r5, which a call does not keep."""

_MOV_CODE = 0xB0
_CMPXCHG_IMM = 0xF1


def live_registers(slots: Slots, orders: Sequence[Sequence[int]], calls_at: CallsAt) -> list[int]:
    """The registers that may be read at or after each slot, before they are written; `orders` as of `postorder_of`."""
    count = len(slots)
    use_def = _uses_and_defs(slots, calls_at)
    before = [0] * count
    successors = slots.after
    for order in orders:
        changed = True
        while changed:
            changed = False
            for at in order:
                use, define = use_def[at]
                following = successors[at]
                after = before[following[0]] if following else 0
                for slot in following[1:]:
                    after |= before[slot]
                new = after & ~define | use
                if new != before[at]:
                    before[at] = new
                    changed = True
    return before


def _uses_and_defs(slots: Slots, calls_at: CallsAt) -> list[tuple[int, int]]:
    """`use_and_def` of every slot."""
    found = []
    for at, (opcode, source, target) in enumerate(zip(slots.opcode, slots.src, slots.dst, strict=True)):
        shape = _SHAPES.get(opcode)
        if shape is None:
            found.append(use_and_def(slots, at, calls_at))
        else:
            reads_source, reads_target, writes_target = shape
            source, target = 1 << source, 1 << target
            found.append((source & reads_source | target & reads_target, target & writes_target))
    return found


def use_and_def(slots: Slots, at: int, calls_at: CallsAt) -> tuple[int, int]:
    """(registers read, registers written) by the instruction at `at`; what is not understood reads all, writes none."""
    opcode = slots.opcode[at]
    source, target = 1 << slots.src[at], 1 << slots.dst[at]
    kind = opcode & CLASS_MASK
    mode = opcode & MODE_MASK
    if kind in (ALU32, ALU64):
        return _arithmetic(opcode, source, target)
    if kind in (JMP, JMP32):
        return _jump(slots, at, calls_at)
    if kind == LD and opcode == LD_IMM64_OPCODE:
        return 0, target
    if kind == LDX and mode in (MODE_MEM, MODE_MEMSX):
        return source, target
    if kind == ST and mode == MODE_MEM:
        return target, 0
    if kind == STX and mode == MODE_MEM:
        return target | source, 0
    if kind == STX and mode == MODE_ATOMIC:
        return _atomic(slots.imm[at], source, target)
    return ALL, 0


def _arithmetic(opcode: int, source: int, target: int) -> tuple[int, int]:
    operation = opcode & OP_MASK
    if operation == END_CODE:
        return target, target
    operand = source if opcode & SRC_REG else 0
    return (operand if operation == _MOV_CODE else target | operand), target


def _atomic(imm: int, source: int, target: int) -> tuple[int, int]:
    if imm == _CMPXCHG_IMM:
        return R0 | target | source, R0
    if imm == LOAD_ACQUIRE_IMM:
        return source, target
    if imm == STORE_RELEASE_IMM:
        return target | source, 0
    return target | source, source if imm & FETCH else 0


def _jump(slots: Slots, at: int, calls_at: CallsAt) -> tuple[int, int]:
    opcode = slots.opcode[at]
    operation = opcode & OP_MASK
    if operation in (JA_CODE, MAY_GOTO_CODE):
        return 0, 0
    if operation == EXIT_CODE:
        return R0, 0
    if operation == CALL_CODE:
        facts = None if slots.is_subprogram_call(at) else calls_at(at)
        return (ARGUMENTS if facts is None else argument_mask(facts.params)), CALLER_SAVED
    operand = 1 << slots.src[at] if opcode & SRC_REG else 0
    return 1 << slots.dst[at] | operand, 0


def argument_mask(params: int) -> int:
    """r1 to the register of the last of `params` parameters."""
    return (1 << (params + 1)) - 2


def _shapes() -> dict[int, tuple[int, int, int]]:
    """For each opcode whose registers its other fields do not decide: whether it reads its source and its target, and
    whether it writes its target, as masks that keep all or nothing."""
    found = {}
    for opcode in range(256):
        kind, mode = opcode & CLASS_MASK, opcode & MODE_MASK
        if kind in (JMP, JMP32) or (kind == STX and mode != MODE_MEM):
            continue
        reads, writes = use_and_def(Slots((opcode,), (1,), (2,), (0,), (0,)), 0, lambda _: None)
        if reads != ALL:
            found[opcode] = ALL if reads & 4 else 0, ALL if reads & 2 else 0, ALL if writes else 0
    return found


_SHAPES: Final = _shapes()
