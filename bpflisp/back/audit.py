"""Proves an allocation right by executing it symbolically, independently of how it was found.

The code before allocation says what each virtual register holds; the code after it has to have, in the machine
register that each instruction reads, that same value. The state at a point says for each place (machine register or
spill slot) which registers of the code before have their current values there. Where ways meet, a place keeps what it
has on all of them. Two instructions correspond by their number; what allocation added has none, and may only load,
store or make values again; what it left out may only be a copy, or a value that is made again elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from bpflisp.back.machine import ADD_IMM, FIRST_VIRTUAL, MOV_IMM, MBlock, MFunction, MInsn
from bpflisp.ir.ssa import Slot
from bpflisp.lean import dataclass, replace
from bpflisp.spec.isa import ALU32, ALU_CODES, FRAME_POINTER, LD_IMM64_OPCODE, Kind, Op

Place = int | Slot
State = dict[Place, frozenset[int]]
"""Place -> the registers of the code before whose values are there."""


class AuditError(Exception):
    """The allocation is wrong: a bug of the compiler. The message says where."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The code before allocation: its blocks' instructions, copied, and how each value is made that can be again."""

    blocks: Mapping[MBlock, list[MInsn]]
    makers: Mapping[int, MInsn]


def snapshot(function: MFunction) -> Snapshot:
    """Number the instructions and copy them. To be taken before allocation."""
    number = 0
    blocks: dict[MBlock, list[MInsn]] = {}
    definitions: dict[int, list[MInsn]] = {}
    for block in function.blocks:
        blocks[block] = []
        for insn in block.instructions():
            number += 1
            insn.number = number
            twin = replace(insn)
            blocks[block].append(twin)
            for register in twin.defs():
                definitions.setdefault(register, []).append(twin)
    makers = {r: found[0] for r, found in definitions.items() if len(found) == 1 and _is_maker(found[0])}
    return Snapshot(blocks, {r: maker for r, maker in makers.items() if r >= FIRST_VIRTUAL})


def _is_maker(insn: MInsn) -> bool:
    """Whether the instruction gives the same value wherever it stands."""
    plain = insn.opcode in (MOV_IMM, LD_IMM64_OPCODE, ALU32 | ALU_CODES[Op.MOV])
    return not insn.raw and (plain or (insn.opcode == ADD_IMM and insn.src == FRAME_POINTER))


def audit(before: Snapshot, function: MFunction) -> None:
    """Raise AuditError unless every instruction reads, after allocation, what it read before."""
    states: dict[MBlock, State | None] = dict.fromkeys(function.blocks)
    entry = function.blocks[0]
    states[entry] = {register: frozenset({register}) for register in range(FRAME_POINTER)}
    todo = [entry]
    while todo:
        block = todo.pop()
        known = states[block]
        assert known is not None
        state = _Walk(dict(known), before).block(block)
        for target in block.targets:
            old = states[target]
            new = state if old is None else _meet(old, state)
            if new != old:
                states[target] = new
                todo.append(target)


def _meet(a: State, b: State) -> State:
    return {place: both for place in a if (both := a[place] & b.get(place, frozenset()))}


class _Walk:
    """One walk over a block, the code before and after side by side."""

    def __init__(self, state: State, before: Snapshot) -> None:
        self.state = state
        self.before = before

    def block(self, block: MBlock) -> State:
        waiting = list(self.before.blocks[block])
        for insn in block.instructions():
            if insn.number == 0:
                self._added(insn)
                continue
            while waiting and waiting[0].number != insn.number:
                self._left_out(waiting.pop(0))
            if not waiting:
                raise AuditError(f"{insn} stands where it did not before")
            self._both(waiting.pop(0), insn)
        for old in waiting:
            self._left_out(old)
        return self.state

    def _holds(self, place: Place, register: int) -> bool:
        return register in self.state.get(place, frozenset())

    def _forget(self, register: int) -> None:
        """The register of the code before gets a new value: no place has it any more."""
        gone = {register}
        self.state = {place: held - gone if register in held else held for place, held in self.state.items()}

    def _added(self, insn: MInsn) -> None:
        kind = insn.row.kind
        if kind is Kind.STORE and insn.slot is not None and insn.dst == FRAME_POINTER:
            self.state[insn.slot] = self.state.get(insn.src, frozenset())
        elif kind is Kind.LOAD and insn.slot is not None and insn.src == FRAME_POINTER:
            self.state[insn.dst] = self.state.get(insn.slot, frozenset())
        elif _is_maker(insn):
            same = (r for r, maker in self.before.makers.items() if _same_value(maker, insn))
            self.state[insn.dst] = frozenset(same)
        else:
            raise AuditError(f"{insn} was added, and does more than move a value")

    def _left_out(self, old: MInsn) -> None:
        """A copy, or what makes the one value that its register ever has: places that have it already stay right."""
        if old.is_copy:
            self._copied(old)
        elif old.dst not in self.before.makers:
            raise AuditError(f"{old} was left out")

    def _copied(self, old: MInsn) -> None:
        """After `d = s`, d is wherever s is."""
        holding = [place for place, held in self.state.items() if old.src in held]
        if old.dst != old.src:
            self._forget(old.dst)
            for place in holding:
                self.state[place] |= {old.dst}

    def _both(self, old: MInsn, new: MInsn) -> None:
        if not _corresponds(old, new):
            raise AuditError(f"{old} became {new}")
        for register, place in _reads(old, new):
            if not self._holds(place, register):
                raise AuditError(f"{new} reads r{place}, which does not hold register {register}: {self.state}")
        if old.is_copy:
            self.state[new.dst] = self.state.get(new.src, frozenset())
            self._copied(old)
            return
        writes = list(zip(old.defs(), new.defs(), strict=True))
        for register, _ in writes:
            self._forget(register)
        for register, place in writes:
            self.state[place] = frozenset({register})


def _reads(old: MInsn, new: MInsn) -> list[tuple[int, int]]:
    return list(zip(old.uses(), new.uses(), strict=True))


def _corresponds(old: MInsn, new: MInsn) -> bool:
    """Whether the two are one instruction with other registers."""
    fields = ("opcode", "off", "imm", "imm_high", "symbol", "slot", "core", "raw")
    same = all(getattr(old, name) == getattr(new, name) for name in fields)
    pairs = [(old.dst, new.dst), (old.src, new.src), *_reads(old, new), *zip(old.defs(), new.defs(), strict=True)]
    return same and all(a == b for a, b in pairs if a < FIRST_VIRTUAL)


def _same_value(a: MInsn, b: MInsn) -> bool:
    fields = ("opcode", "imm", "imm_high", "symbol", "slot")
    same = all(getattr(a, name) == getattr(b, name) for name in fields)
    return same and (a.opcode != LD_IMM64_OPCODE or a.src == b.src)
