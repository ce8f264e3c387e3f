"""Blocks: the instructions of each function of a program, and which follow which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import CALL_SUBPROGRAM, PSEUDO_FUNC, Kind
from simulator.engines.validity import sound, whole

_ENDS = frozenset({Kind.JUMP, Kind.BRANCH, Kind.MAY_GOTO, Kind.EXIT})


@dataclass(slots=True)
class Block:
    """Instructions that run one after the other. `next` are the slots that may follow: of a branch, taken first.

    `bad` says that there is no instruction at `start`: getting there is a fault.
    """

    start: int
    insns: list[tuple[int, Insn]] = field(default_factory=list)
    next: list[int] = field(default_factory=list)
    bad: bool = False

    @property
    def last(self) -> tuple[int, Insn] | None:
        """The jump, branch or exit that ends it; None where it runs on into the next block."""
        if self.insns and self.insns[-1][1].row.kind in _ENDS:
            return self.insns[-1]
        return None


def function_starts(code: Sequence[Insn | None]) -> list[int]:
    """The slots where functions start: the program itself, what is called, what is given to helpers to call."""
    starts = {0}
    for slot, insn in enumerate(code):
        if insn is None:
            continue
        called = insn.row.kind is Kind.CALL and insn.src == CALL_SUBPROGRAM
        if called or (insn.row.kind is Kind.LOAD_IMM64 and insn.src == PSEUDO_FUNC):
            starts.add(slot + 1 + insn.imm)
    return sorted(starts)


def calls_first_slot(code: Sequence[Insn | None]) -> bool:
    """Whether the slot where the program begins is a function that it calls or names, too."""
    return any(
        slot + 1 + insn.imm == 0
        for slot, insn in enumerate(code)
        if insn is not None
        and (
            (insn.row.kind is Kind.CALL and insn.src == CALL_SUBPROGRAM)
            or (insn.row.kind is Kind.LOAD_IMM64 and insn.src == PSEUDO_FUNC)
        )
    )


def targets(slot: int, insn: Insn) -> list[int]:
    """The slots that may follow this instruction; of one that is none, no slot."""
    if not sound(insn):
        return []
    following = slot + insn.slots
    match insn.row.kind:
        case Kind.EXIT:
            return []
        case Kind.JUMP:
            return [slot + 1 + (insn.off if insn.row.width == 16 else insn.imm)]
        case Kind.BRANCH | Kind.MAY_GOTO:
            return [slot + 1 + insn.off, following]
        case _:
            return [following]


def blocks_of(code: Sequence[Insn | None], start: int) -> dict[int, Block]:
    """The blocks of the function at `start`, by their first slot, in the order of slots."""
    leaders, seen, work = {start}, set[int](), [start]
    while work:
        slot = work.pop()
        if slot in seen:
            continue
        seen.add(slot)
        insn = _at(code, slot)
        if insn is None:
            leaders.add(slot)
            continue
        after = targets(slot, insn)
        if insn.row.kind in _ENDS:
            leaders.update(after)
        work += after
    return {leader: _block(code, leader, leaders) for leader in sorted(leaders)}


def _at(code: Sequence[Insn | None], slot: int) -> Insn | None:
    return code[slot] if 0 <= slot < len(code) and whole(code, slot) else None


def _block(code: Sequence[Insn | None], start: int, leaders: set[int]) -> Block:
    block, slot = Block(start), start
    while True:
        insn = _at(code, slot)
        if insn is None:
            block.bad = True  # Such a slot is a leader, so this is the block's first.
            return block
        block.insns.append((slot, insn))
        block.next = targets(slot, insn)
        if insn.row.kind in _ENDS or not block.next or block.next[0] in leaders:
            return block
        slot = block.next[0]
