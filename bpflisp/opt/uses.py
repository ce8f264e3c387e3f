"""Who uses a value, and for what: how a simplification knows that it takes nothing from the kernel's verifier.

The verifier bounds a value by the comparisons that the program makes of it. To compare another value instead, or to
compute one anew from what was not compared, can make an access unprovable that the program had made provable.
"""

from __future__ import annotations

from bpflisp.ir import ssa
from bpflisp.ir.dataflow import natural_loops
from bpflisp.ir.ssa import Call, Function, Leaf, Value, operands

_ACCESSES = (ssa.Load, ssa.Store, ssa.Atomic, ssa.Zero)
_TESTS = (ssa.Compare, ssa.Branch)
_COMPUTED = (ssa.Binary, ssa.Extend, ssa.ByteOrder)


def _ends_of_loops(function: Function) -> list[Value]:
    """What the branches compare that leave loops: by its bounds the verifier sees that a loop ends."""
    found: list[Value] = []
    for _, loop in natural_loops(function):
        for block in loop:
            if isinstance(block.end, ssa.Branch) and not loop.issuperset(block.successors()):
                found += block.end.args
    return found


class Uses:
    """The uses of a function's values, as they were when this was made."""

    def __init__(self, function: Function) -> None:
        self._count = count = dict[Value, int]()
        self._tests = tests = dict[Value, int]()
        self._bounded: set[Value] = set()
        self._handed: dict[Value, list[Value]] = {}
        todo: list[Value] = []
        for instr in function.instructions():
            for value in operands(instr):
                if not isinstance(value, Leaf):
                    count[value] = count.get(value, 0) + 1
            if isinstance(instr, _TESTS):
                for value in instr.args:
                    tests[value] = tests.get(value, 0) + 1
            if isinstance(instr, _ACCESSES):
                todo.append(instr.args[0])
            elif isinstance(instr, Call):
                todo += instr.args
            elif isinstance(instr, ssa.Terminator):
                todo += [value for edge in instr.edges() for value in edge.args]
                self._note_handed(instr)
        self._follow(todo + _ends_of_loops(function))

    def _follow(self, todo: list[Value]) -> None:
        while todo:
            value = todo.pop()
            if value not in self._bounded:
                self._bounded.add(value)
                if isinstance(value, _COMPUTED):
                    todo += value.args

    def _note_handed(self, end: ssa.Terminator) -> None:
        for edge in end.edges():
            for param, value in zip(edge.block.params, edge.args, strict=True):
                self._handed.setdefault(param, []).append(value)

    def stands_for(self, value: Value) -> list[Value]:
        """What a block's parameter may be, by what the ways in hand over; any other value is itself."""
        return self._handed.get(value, [value])

    def single(self, value: Value) -> bool:
        """Whether there is one use alone."""
        return self._count.get(value, 0) == 1

    def only_tested(self, value: Value) -> bool:
        """Whether comparisons and branches are all that use it, so that its bounds serve nothing.

        Of a value that is newer than this object nobody knows yet, and the answer is no.
        """
        return value in self._count and self._count[value] == self._tests.get(value, 0)

    def tested(self, value: Value) -> bool:
        """Whether a comparison or a branch uses it."""
        return value in self._tests

    def needs_bounds(self, value: Value) -> bool:
        """Whether it may become part of an address or an argument, or end a loop: the verifier asks for bounds there.

        Of a value that is newer than this object, the answer is yes.
        """
        return value in self._bounded or value not in self._count
