"""Loads and stores of the running function's own stack at fixed places, `r10 + off`: a third of what programs execute.

Each step has a common case that looks up what such an access always comes to, by what the slot holds, and a whole one
(`stack`) that the common case leaves everything else to, the first visit among it: that notes what an instruction's
place means for the program (`pointer_kinds`, stack depth, spills around calls), which later visits need not repeat.
Both come to the same state: the common case only keeps what the whole one found. Values and slots never change once
they are made, so what was found may be shared by states.
Source: check_stack_{read,write}_fixed_off of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Kind
from simulator.verifier import access, stack
from simulator.verifier import regs as r
from simulator.verifier.regs import Reg, const_reg
from simulator.verifier.state import ALL_SPILL, DYNPTR_BYTE, EMPTY, Slot

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine, Run

_KEPT: Final = 64
"""How many findings an instruction keeps: a loop may bring ever new ones."""


def make_load(m: Machine, idx: int, insn: Insn, trust_may_differ: bool) -> Run:
    """The step of a load."""
    dst, off, size, then = insn.dst, insn.off, insn.row.size, idx + 1
    signed = insn.row.kind is Kind.LOAD_SIGNED
    kinds = m.pointer_kinds

    def step() -> int:
        frame = m.frame
        stack.reach(m, frame, off)
        stack.read_fixed(m, frame, off, size, dst)
        if size < 8:
            access.narrow(m, dst, size, signed)
        if kinds[idx] != r.PTR_STACK:
            m.note_pointer_kind(r.PTR_STACK, trust_may_differ)
        return then

    return _whole_load(m, idx, insn, step) if size == 8 else _part_load(m, idx, insn, step)


def _whole_load(m: Machine, idx: int, insn: Insn, step: Run) -> Run:
    dst, spi, then = insn.dst, (-insn.off - 1) // 8, idx + 1
    bit, kinds = 1 << spi, m.pointer_kinds

    def fill() -> int:
        """Eight bytes that hold a spilled value."""
        frame = m.frame
        slot = frame.stack[spi] if spi < len(frame.stack) else EMPTY
        if slot.types != ALL_SPILL or kinds[idx] != r.PTR_STACK:
            return step()
        m.scratched_slots |= bit
        m.liveness.read(frame.number, idx, bit)
        frame.regs[dst] = slot.reg
        m.remember_slot(frame.number, spi)
        return then

    return fill


def _part_load(m: Machine, idx: int, insn: Insn, step: Run) -> Run:
    dst, spi, then = insn.dst, (-insn.off - 1) // 8, idx + 1
    bit = 1 << spi
    found: dict[tuple[bytes, Reg], tuple[Reg, bool]] = {}

    def load() -> int:
        """Fewer bytes, as they were read before: the value, and whether it is the spilled number."""
        frame = m.frame
        slot = frame.stack[spi] if spi < len(frame.stack) else EMPTY
        known = found.get((slot.types, slot.reg))
        if known is None:
            return look(slot)
        m.scratched_slots |= bit
        m.liveness.read(frame.number, idx, bit)
        frame.regs[dst], remembered = known
        if remembered:
            m.remember_slot(frame.number, spi)
        return then

    def look(slot: Slot) -> int:
        step()
        if len(found) >= _KEPT:
            found.clear()
        found[slot.types, slot.reg] = m.frame.regs[dst], m.recorded and m.state.history[-1].stack is not None
        return then

    return load


def make_store(m: Machine, idx: int, insn: Insn) -> Run:
    """The step of a store."""
    off, size, then, live = insn.off, insn.row.size, idx + 1, m.liveness
    value = insn.src if insn.row.kind is Kind.STORE else -1

    def step() -> int:
        if value >= 0:
            m.readable(value)
        frame = m.frame
        live.begin(idx)
        stack.reach(m, frame, off)
        stack.write_fixed(m, frame, off, size, value, idx)
        live.commit()
        if m.pointer_kinds[idx] != r.PTR_STACK:
            m.note_pointer_kind(r.PTR_STACK, False)
        return then

    if value > 10 or not (m.ways.spilled_constants and m.ways.spills_get_id):
        return step
    if off % 8:
        return _byte_store(m, idx, insn, value, step)
    return _constant_store(m, idx, insn, step) if value < 0 else _spill(m, idx, insn, step)


def _spill(m: Machine, idx: int, insn: Insn, step: Run) -> Run:
    value, size, spi, then = insn.src, insn.row.size, (-insn.off - 1) // 8, idx + 1
    bit, wrote, kinds = 1 << spi, m.liveness.wrote, m.pointer_kinds
    writes, whole = bit if size == 8 else 0, size == 8
    types_after: dict[bytes, bytes] = {}

    def spill() -> int:
        """A register that keeps its meaning in memory, stored at the low end of a slot."""
        frame = m.frame
        slots = frame.stack
        reg = frame.regs[value]
        if spi >= len(slots) or reg.type == r.NOT_INIT or kinds[idx] != r.PTR_STACK:
            return step()
        old = slots[spi].types
        if old[0] == DYNPTR_BYTE:
            return step()
        if reg.type == r.SCALAR:
            if not whole and reg.num.umax >> 8 * size:
                return step()
            if reg.id & r.ADD_CONST or (not reg.id and reg.num.mask):
                reg = stack.give_id(m, frame, value)
        elif not whole or not r.is_spillable(reg.type):
            return step()
        m.scratched_slots |= bit
        wrote(frame.number, idx, writes)
        types = ALL_SPILL if whole else types_after.get(old)
        if types is None:
            types = types_after[old] = stack.spilled_over(old, size)
        slots[spi] = Slot(types, reg)
        m.remember_slot(frame.number, spi)
        return then

    return spill


def _constant_store(m: Machine, idx: int, insn: Insn, step: Run) -> Run:
    size, spi, then = insn.row.size, (-insn.off - 1) // 8, idx + 1
    bit, wrote, kinds = 1 << spi, m.liveness.wrote, m.pointer_kinds
    writes, reg = bit if size == 8 else 0, const_reg(insn.imm)
    made: dict[bytes, Slot] = {}

    def store() -> int:
        """A constant, stored at the low end of a slot."""
        frame = m.frame
        slots = frame.stack
        if spi >= len(slots) or kinds[idx] != r.PTR_STACK:
            return step()
        old = slots[spi].types
        slot = made.get(old)
        if slot is None:
            if old[0] == DYNPTR_BYTE:
                return step()
            slot = made[old] = Slot(stack.spilled_over(old, size), reg)
        m.scratched_slots |= bit
        wrote(frame.number, idx, writes)
        slots[spi] = slot
        m.remember_slot(frame.number, spi)
        return then

    return store


def _byte_store(m: Machine, idx: int, insn: Insn, value: int, step: Run) -> Run:
    spi, then = (-insn.off - 1) // 8, idx + 1
    bit, wrote, kinds, zero_imm = 1 << spi, m.liveness.wrote, m.pointer_kinds, value < 0 and not insn.imm
    made: dict[tuple[bytes, bool], Slot] = {}

    def store() -> int:
        """Bytes inside a slot, where no value can be spilled."""
        frame = m.frame
        slots = frame.stack
        zero = zero_imm
        if value >= 0:
            reg = frame.regs[value]
            if reg.type != r.SCALAR:
                return step()
            zero = r.is_null(reg)
        if spi >= len(slots) or kinds[idx] != r.PTR_STACK:
            return step()
        old = slots[spi].types
        slot = made.get((old, zero))
        if slot is None:
            step()
            if DYNPTR_BYTE not in old:
                made[old, zero] = slots[spi]
            return then
        m.scratched_slots |= bit
        wrote(frame.number, idx, 0)
        if zero and value >= 0:
            m.mark_precise(value)
        slots[spi] = slot
        return then

    return store
