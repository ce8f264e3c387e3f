"""A program as x86-64 code: one label a function, one a block, and what its instructions are paid with.

Every stretch of instructions that runs as a whole pays for itself when it begins; what is paid and not run is given
back where a run stops inside.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import CALL_HELPER, STACK_SIZE, Kind
from simulator.engines.native.alu import OPPOSITE
from simulator.engines.native.encode import (
    R15,
    RBP,
    Mem,
)
from simulator.engines.native.frames import lowest_seen
from simulator.engines.native.instructions import Instructions
from simulator.engines.native.registers import FUEL
from simulator.engines.native.sites import Site, Why
from simulator.engines.source.blocks import Block, blocks_of, calls_first_slot, function_starts
from simulator.engines.source.names import NO_CALLBACK
from simulator.engines.source.ranges import State, after, entry, solve
from simulator.engines.validity import sound
from simulator.memory import CONTEXT_BASE, STACK_BASE


class Translator(Instructions):
    """Writes one program's code."""

    def write(self, *also: int) -> None:
        """The program itself, at the label "main", and every function that something calls or names, and `also`.

        At the label "fresh", before "main", what it may see of its frame is zeroed. A function that is called is at the
        label ("enter", its first slot).
        """
        given = self.given
        context = CONTEXT_BASE if given.context_size else None
        first = entry(True, context, STACK_BASE) if given.first else entry(False, None, 0)
        self._context_size = given.context_size if given.first else 0
        self._function("main", 0, first)
        self._context_size = 0
        for start in sorted({*function_starts(given.code), *also}):
            if start or 0 in also or calls_first_slot(given.code):
                self._function(("enter", start), start, entry(False, None, 0))

    def _function(self, label: Hashable, start: int, first: State) -> None:
        out, self._name = self.out, label
        blocks = blocks_of(self.given.code, start)
        states = solve(blocks, start, first, self.given.known)
        out.label("fresh" if label == "main" else label)
        lowest = lowest_seen(blocks, states, self.given.known)
        if lowest:
            for at in range(lowest, STACK_SIZE, 8):
                out.op("store8_imm", Mem(R15, at - STACK_SIZE, RBP), imm=0)
        else:
            out.call("zero frame")
        if label == "main":
            out.label(label)
        if next(iter(blocks)) != start:
            out.jump((label, start))
        order = list(blocks)
        for index, at in enumerate(order):
            following = order[index + 1] if index + 1 < len(order) else None
            self._block(blocks[at], states.get(at), following)
        while self._late:
            self._late.pop()()

    # Blocks.

    def _block(self, block: Block, state: State | None, following: int | None) -> None:
        self.out.label((self._name, block.start))
        if state is None:
            return  # Nothing gets here.
        if block.bad:
            self._nothing_at(block.start)
            return
        if self._is_short_loop(block):
            self._turns(block, state)
        else:
            self._instructions(block.insns, state)
        if block.next and block.next[-1] != following:
            self.out.jump((self._name, block.next[-1]))

    def _instructions(self, insns: Sequence[tuple[int, Insn]], state: State) -> None:
        """Instructions one after the other, each stretch of them paid for when it begins."""
        for index, (at, insn) in enumerate(insns):
            if index == 0 or self._ends_stretch(insns[index - 1][1]):
                length = next((n for n in range(index, len(insns)) if self._ends_stretch(insns[n][1])), len(insns) - 1)
                self._left = length - index + 1
                self._pay(at, self._left)
            state = self._paid(at, insn, state)

    def _paid(self, at: int, insn: Insn, state: State) -> State:
        """One instruction that is paid for; the registers after it."""
        self._left -= 1
        self._one(at, insn, state)
        return after(at, insn, state, self.given.known)

    def _is_short_loop(self, block: Block) -> bool:
        """Whether it is a loop of one block, and of one stretch of a few instructions."""
        insns = block.insns
        return (
            0 < len(insns) <= _SHORT
            and insns[-1][1].row.kind is Kind.BRANCH
            and block.next[0] == block.start != block.next[1]
            and all(sound(insn) and not self._ends_stretch(insn) for _, insn in insns)
        )

    def _turns(self, block: Block, state: State) -> None:
        """Several turns of a loop, paid for at once; what an end before the last one leaves is given back.

        Where there is fuel for fewer turns, each is paid for by itself.
        """
        out, insns, again, on = self.out, block.insns, (self._name, block.start), (self._name, block.next[1])
        count, branch = len(insns), insns[-1][1]

        def few(label: Hashable) -> None:
            out.op_imm("add", FUEL, _TURNS * count)
            one = object()
            out.label(one)
            self._pay(block.start, count)
            self._left, now = count, state
            for at, insn in insns[:-1]:
                now = self._paid(at, insn, now)
            out.branch(self._compare(branch), one)
            out.jump(on)

        def given_back(turns: int) -> Callable[[Hashable], None]:
            def write(label: Hashable) -> None:
                out.op_imm("add", FUEL, turns * count)
                out.jump(on)

            return write

        out.op_imm("sub", FUEL, _TURNS * count)
        out.branch("s", self.later(few))
        self._left = _TURNS * count
        for left in range(_TURNS - 1, -1, -1):
            now = state
            for at, insn in insns[:-1]:
                now = self._paid(at, insn, now)
            self._left -= 1
            condition = self._compare(branch)
            if left:
                out.branch(OPPOSITE[condition], self.later(given_back(left)))
            else:
                out.branch(condition, again)

    @staticmethod
    def _ends_stretch(insn: Insn) -> bool:
        """Whether other instructions may run in this one, or none after it: then what follows pays for itself."""
        kind = insn.row.kind
        plain = kind is Kind.CALL and insn.src == CALL_HELPER and insn.imm in NO_CALLBACK
        return kind in (Kind.CALL, Kind.CALL_REG, Kind.LOAD_PACKET) and not plain

    def _pay(self, at: int, count: int) -> None:
        self.out.op_imm("sub", FUEL, count)
        label = object()
        self.out.branch("s", label)
        self._later(label, lambda: self._leave(Site(Why.FUEL, at, count), "out of fuel"))

    def _nothing_at(self, at: int) -> None:
        code = self.given.code
        insn = code[at] if 0 <= at < len(code) else None
        if insn is None:
            self._leave(Site(Why.NO_INSTRUCTION, at), "call and stop")
        else:
            self._pay(at, 1)
            self._leave(Site(Why.ILLEGAL, at, insn.opcode), "call and stop")


_SHORT, _TURNS = 24, 4
"""Instructions of a loop at most whose turns are paid for together, and how many turns."""
