"""Proves an allocation right by executing it symbolically, independently of how it was found.

The code before allocation says what each virtual register holds; the code after it has to have, in the machine
register that each instruction reads, that same value. The state at a point says for each place (machine register or
spill slot) which registers of the code before have their current values there. Where ways meet, a place keeps what it
has on all of them. Two instructions correspond by their number; what allocation added has none, and may only load,
store or make values again; what it left out may only be a copy, or a value that is made again elsewhere.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from bpflisp.back.graph import reverse_postorder
from bpflisp.back.machine import ADD_IMM, FIRST_VIRTUAL, MOV_IMM, MBlock, MFunction, MInsn
from bpflisp.ir.ssa import Slot
from bpflisp.lean import dataclass
from bpflisp.spec.isa import ALU32, ALU_CODES, FRAME_POINTER, LD_IMM64_OPCODE, Kind, Op

Place = int | Slot
State = dict[Place, frozenset[int]]
"""Place -> the registers of the code before whose values are there, of the places that hold any."""

NOTHING: frozenset[int] = frozenset()


class AuditError(Exception):
    """The allocation is wrong: a bug of the compiler. The message says where."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The code before allocation: its blocks' instructions, copied, and the registers whose value can be made again.

    `makers` has for each value that is made which registers have that one alone; `made` has all of these.
    """

    blocks: Mapping[MBlock, list[MInsn]]
    makers: Mapping[Hashable, frozenset[int]]
    made: frozenset[int]


def snapshot(function: MFunction) -> Snapshot:
    """Number the instructions and copy them. To be taken before allocation."""
    number = 0
    blocks: dict[MBlock, list[MInsn]] = {}
    definitions: dict[int, MInsn | None] = {}
    for block in function.blocks:
        blocks[block] = twins = []
        for insn in block.instructions():
            number += 1
            insn.number = number
            twin = insn.copy()
            twins.append(twin)
            for register in twin.defs():
                definitions[register] = None if register in definitions else twin
    makers: dict[Hashable, set[int]] = {}
    for register, only in definitions.items():
        if only and register >= FIRST_VIRTUAL and _is_maker(only):
            makers.setdefault(_what_it_makes(only), set()).add(register)
    same = {what: frozenset(registers) for what, registers in makers.items()}
    return Snapshot(blocks, same, NOTHING.union(*same.values()))


def _is_maker(insn: MInsn) -> bool:
    """Whether the instruction gives the same value wherever it stands."""
    plain = insn.opcode in (MOV_IMM, LD_IMM64_OPCODE, ALU32 | ALU_CODES[Op.MOV])
    return not insn.raw and (plain or (insn.opcode == ADD_IMM and insn.src == FRAME_POINTER))


def audit(before: Snapshot, function: MFunction) -> None:
    """Raise AuditError unless every instruction reads, after allocation, what it read before."""
    order = reverse_postorder(function)
    states: dict[MBlock, State] = {order[0]: {register: frozenset({register}) for register in range(FRAME_POINTER)}}
    waiting = {order[0]}
    while waiting:
        for block in order:
            if block not in waiting:
                continue
            waiting.discard(block)
            state = _Walk(dict(states[block]), before).block(block)
            for target in block.targets:
                old = states.get(target)
                new = state if old is None else _meet(old, state)
                if new != old:
                    states[target] = new
                    waiting.add(target)


def _meet(a: State, b: State) -> State:
    """What both have."""
    return {place: both for place, held in a.items() if place in b and (both := held & b[place])}


class _Walk:
    """One walk over a block, the code before and after side by side."""

    def __init__(self, state: State, before: Snapshot) -> None:
        self.state = state
        self.before = before

    def block(self, block: MBlock) -> State:
        waiting = iter(self.before.blocks[block])
        for insn in block.instructions():
            if insn.number == 0:
                self._added(insn)
                continue
            for old in waiting:
                if old.number == insn.number:
                    self._both(old, insn)
                    break
                self._left_out(old)
            else:
                raise AuditError(f"{insn} stands where it did not before")
        for old in waiting:
            self._left_out(old)
        return self.state

    def _set(self, place: Place, held: frozenset[int]) -> None:
        if held:
            self.state[place] = held
        else:
            self.state.pop(place, None)

    def _forget(self, register: int) -> None:
        """The register of the code before gets a new value: no place has it any more."""
        for place in [place for place, held in self.state.items() if register in held]:
            self._set(place, self.state[place] - {register})

    def _added(self, insn: MInsn) -> None:
        kind = insn.row.kind
        if kind is Kind.STORE and insn.slot is not None and insn.dst == FRAME_POINTER:
            self._set(insn.slot, self.state.get(insn.src, NOTHING))
        elif kind is Kind.LOAD and insn.slot is not None and insn.src == FRAME_POINTER:
            self._set(insn.dst, self.state.get(insn.slot, NOTHING))
        elif _is_maker(insn):
            self._set(insn.dst, self.before.makers.get(_what_it_makes(insn), NOTHING))
        else:
            raise AuditError(f"{insn} was added, and does more than move a value")

    def _left_out(self, old: MInsn) -> None:
        """A copy, or what makes the one value that its register ever has: places that have it already stay right."""
        if old.is_copy:
            self._copied(old)
        elif old.dst not in self.before.made:
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
        reads, writes = _pairs(old.uses(), new.uses()), _pairs(old.defs(), new.defs())
        if any(a != b and a < FIRST_VIRTUAL for a, b in (*reads, *writes)):
            raise AuditError(f"{old} became {new}")
        for register, place in reads:
            if register not in self.state.get(place, NOTHING):
                raise AuditError(f"{new} reads r{place}, which does not hold register {register}: {self.state}")
        if old.is_copy:
            self._set(new.dst, self.state.get(new.src, NOTHING))
            self._copied(old)
            return
        for register, _ in writes:
            self._forget(register)
        for register, place in writes:
            self.state[place] = frozenset({register})


def _pairs(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(zip(before, after, strict=True))


def _corresponds(old: MInsn, new: MInsn) -> bool:
    """Whether the two are one instruction with other registers for the virtual ones."""
    return (
        old.opcode == new.opcode
        and old.off == new.off
        and old.imm == new.imm
        and old.imm_high == new.imm_high
        and old.symbol == new.symbol
        and old.slot == new.slot
        and old.core == new.core
        and old.raw == new.raw
        and (old.dst == new.dst or old.dst >= FIRST_VIRTUAL)
        and (old.src == new.src or old.src >= FIRST_VIRTUAL)
    )


def _what_it_makes(insn: MInsn) -> Hashable:
    """The same for two instructions that make the same value."""
    pseudo = insn.src if insn.opcode == LD_IMM64_OPCODE else 0
    return insn.opcode, pseudo, insn.imm, insn.imm_high, insn.symbol, insn.slot
