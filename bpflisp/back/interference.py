"""Which registers may not share a machine register, and which would like to."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from bpflisp.back.liveness import Step, bits, live_in_sets, live_out, members, steps_of
from bpflisp.back.machine import ALLOCATABLE, MBlock, MFunction
from bpflisp.lean import dataclass

MACHINE = bits(ALLOCATABLE)

Copy = tuple[int, int, float]
"""Target and source of a move of virtual registers, and how often it runs."""


@dataclass(slots=True)
class Interference:
    """`conflicts[r]` is the set of registers that are alive where r is written; `weight[r]` counts reads and writes of
    r, one inside a loop ten times over.

    `steps`, `live_in` and `copies_of` (the moves of virtual registers, from the end) have every block.
    """

    steps: dict[MBlock, list[Step]]
    live_in: dict[MBlock, int]
    conflicts: dict[int, int]
    weight: dict[int, float]
    copies_of: dict[MBlock, list[Copy]]

    @property
    def copies(self) -> list[Copy]:
        """The moves of virtual registers, block by block, each from its end."""
        return [copy for found in self.copies_of.values() for copy in found]


def build(function: MFunction) -> Interference:
    """The conflicts of the function's registers."""
    steps = {block: steps_of(block) for block in function.blocks}
    graph = Interference(steps, live_in_sets(function, steps), {}, {}, {})
    _record(graph, function.blocks, -1)
    for machine in ALLOCATABLE:
        graph.conflicts[machine] = graph.conflicts.get(machine, 0) | (MACHINE & ~(1 << machine))
    return graph


def update(graph: Interference, changed: Collection[MBlock], gone: Iterable[int], new: Iterable[int]) -> None:
    """What has changed after a spill: registers that are gone, new ones, and the blocks that mention either.

    A new register lives inside one block. So what is alive between blocks changes by what is gone alone, and so do the
    conflicts of all that stay, and how often these are used.
    """
    left = ~bits(gone)
    for register in gone:
        del graph.conflicts[register], graph.weight[register]
    for register, others in graph.conflicts.items():
        graph.conflicts[register] = others & left
    for block, alive in graph.live_in.items():
        graph.live_in[block] = alive & left
    for block in changed:
        graph.steps[block] = steps_of(block)
    _record(graph, changed, bits(new))


def _record(graph: Interference, blocks: Iterable[MBlock], counted: int) -> None:
    """Walk blocks backwards, and count what they do with the registers of a set."""
    found: dict[int, int] = {}
    for block in blocks:
        _walk(graph, block, counted, found)
    conflicts = graph.conflicts
    for register, others in found.items():
        conflicts[register] = conflicts.get(register, 0) | others
        bit = 1 << register
        for other in members(others):
            conflicts[other] = conflicts.get(other, 0) | bit


def _walk(graph: Interference, block: MBlock, counted: int, conflicts: dict[int, int]) -> None:
    """What is alive where something is written; a copy's source does not conflict with its target by the copy alone."""
    alive = live_out(block, graph.live_in)
    frequency = 10.0 ** min(block.depth, 6)
    graph.copies_of[block] = copies = []
    weight = graph.weight
    for insn, uses, defs, read, written in reversed(graph.steps[block]):
        conflicting = alive | written
        if insn.is_copy:
            conflicting = alive & ~read | written
            copies.append((insn.dst, insn.src, frequency))
        for register in defs:
            conflicts[register] = conflicts.get(register, 0) | conflicting & ~(1 << register)
        for register in uses:
            conflicts.setdefault(register, 0)
        if (read | written) & counted:
            for register in (*defs, *uses):
                if counted >> register & 1:
                    weight[register] = weight.get(register, 0.0) + frequency
        alive = alive & ~written | read
