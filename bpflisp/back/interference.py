"""Which registers may not share a machine register, and which would like to."""

from __future__ import annotations

from bpflisp.back.liveness import before, bits, live_in_sets, live_out, members
from bpflisp.back.machine import ALLOCATABLE, MFunction, MInsn
from bpflisp.lean import dataclass, field

MACHINE = bits(ALLOCATABLE)


@dataclass(slots=True)
class Interference:
    """`conflicts[r]` is the set of registers that are alive where r is written; `copies` are the moves of virtual ones.

    `weight[r]` counts reads and writes of r, one inside a loop ten times over.
    """

    conflicts: dict[int, int] = field(default_factory=dict)
    copies: list[tuple[int, int, float]] = field(default_factory=list)
    weight: dict[int, float] = field(default_factory=dict)


def build(function: MFunction) -> Interference:
    """Walk each block backwards. A copy's source does not conflict with its target by the copy alone."""
    graph = Interference()
    live = live_in_sets(function)
    for block in function.blocks:
        alive = live_out(block, live)
        frequency = 10.0 ** min(block.depth, 6)
        for insn in reversed(list(block.instructions())):
            _record(graph, insn, alive, frequency)
            alive = before(insn, alive)
    _make_symmetric(graph)
    return graph


def _record(graph: Interference, insn: MInsn, alive: int, frequency: float) -> None:
    defs, uses = insn.defs(), insn.uses()
    conflicting = alive
    if insn.is_copy:
        conflicting &= ~bits((insn.src,))
        graph.copies.append((insn.dst, insn.src, frequency))
    conflicting |= bits(defs)
    for register in defs:
        graph.conflicts[register] = graph.conflicts.get(register, 0) | (conflicting & ~(1 << register))
    for register in (*defs, *uses):
        graph.weight[register] = graph.weight.get(register, 0.0) + frequency
        graph.conflicts.setdefault(register, 0)


def _make_symmetric(graph: Interference) -> None:
    for register in list(graph.conflicts):
        for other in members(graph.conflicts[register]):
            graph.conflicts[other] = graph.conflicts.get(other, 0) | 1 << register
    for machine in ALLOCATABLE:
        graph.conflicts[machine] = graph.conflicts.get(machine, 0) | (MACHINE & ~(1 << machine))
