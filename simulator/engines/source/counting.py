"""The variant of a program's source that counts: how often each instruction ran, and which way each branch went.

A point is a place of the source whose passing means that a run of slots runs: the start of a block, and what follows a
call, which need not come back. What a program does is the same as without.

    n                  passes, by number of the point
    t(slot, c) f(slot, c)   give c back, noted as the outcome of the branch at `slot`, or as its opposite
    o                  outcomes: at 2 * slot how often the branch fell through, then how often it was taken
"""

from __future__ import annotations

from bpflisp.spec.isa import Kind
from simulator.engines.source.blocks import Block
from simulator.engines.source.compiler import Compiled, Function, assembled, functions_of
from simulator.engines.source.text import Surroundings

_MAY_END = frozenset({Kind.CALL, Kind.CALL_REG, Kind.LOAD_PACKET})
"""After these a run need not go on with the next slot."""


def compile_counting(around: Surroundings) -> Compiled:
    """Translates every function of a program, with counts."""
    points: list[tuple[int, ...]] = []
    texts = [_Counting(around, start, main, points).write() for start, main in functions_of(around)]
    return assembled(texts, points)


class _Counting(Function):
    """One function on its way to text that counts."""

    def __init__(self, around: Surroundings, start: int, main: bool, points: list[tuple[int, ...]]) -> None:
        super().__init__(around, start, main)
        self._points = points
        self._numbers: dict[int, int] = {}
        """The numbers of this function's points by their first slots: a block may be written several times."""

    def enter(self, block: Block) -> None:
        """The block's first point."""
        self._text.slot = block.start
        self._pass(block, 0)

    def passed(self, block: Block, index: int) -> None:
        """A new point after what need not come back."""
        if block.insns[index][1].row.kind in _MAY_END and index + 1 < len(block.insns):
            self._pass(block, index + 1)

    def _pass(self, block: Block, index: int) -> None:
        first = block.insns[index][0]
        if first not in self._numbers:
            self._numbers[first] = len(self._points)
            self._points.append(tuple(_run_of_slots(block, index)))
        self._text.line(f"{self._text.need('n')}[{self._numbers[first]}] += 1")

    def finish(self, block: Block) -> None:
        """The outcome of a branch whose condition nothing asks for: one side is never reached, or both are one."""
        last = block.last
        if last is None or last[1].row.kind is not Kind.BRANCH:
            return
        slot = last[0]
        taken, fall = block.next
        if taken == fall and taken in self._states:
            self._text.line(self.condition(block.start, negated=False))
        elif taken not in self._states or fall not in self._states:
            self._text.line(f"{self._text.need('o')}[{2 * slot + (taken in self._states)}] += 1")

    def condition(self, at: int, negated: bool) -> str:
        """The condition of the branch that ends a block, which notes how it came out."""
        text = super().condition(at, negated)
        slot, insn = self._blocks[at].insns[-1]
        if insn.row.kind is not Kind.BRANCH:
            return text
        return f"{self._text.need('f' if negated else 't')}({slot}, {text})"


def _run_of_slots(block: Block, index: int) -> list[int]:
    """The slots from an instruction of the block to the next one that need not come back, or to the block's end."""
    slots = []
    for slot, insn in block.insns[index:]:
        slots.append(slot)
        if insn.row.kind in _MAY_END:
            break
    return slots
