"""Which registers are alive where, as bit sets: bit r of a set stands for register r."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bpflisp.back.machine import MBlock, MFunction, MInsn

Step = tuple[MInsn, tuple[int, ...], tuple[int, ...], int, int]
"""An instruction, the registers that it reads and writes, and these as sets: what every walk over a block asks for."""

Steps = Mapping[MBlock, list[Step]]


def steps_of(block: MBlock) -> list[Step]:
    """The block's instructions, its end included, with what they read and write."""
    found: list[Step] = []
    for insn in block.instructions():
        uses, defs = insn.uses(), insn.defs()
        found.append((insn, uses, defs, bits(uses), bits(defs)))
    return found


def live_in_sets(function: MFunction, steps: Steps | None = None) -> dict[MBlock, int]:
    """For each block the registers that are read, on some way from its start, before they are written."""
    summaries: list[tuple[MBlock, int, int]] = []
    predecessors: dict[MBlock, list[MBlock]] = {block: [] for block in function.blocks}
    for block in function.blocks:
        summaries.append((block, *_summary(steps[block] if steps is not None else steps_of(block))))
        for target in block.targets:
            predecessors[target].append(block)
    summaries.reverse()
    live = dict.fromkeys(function.blocks, 0)
    todo = set(function.blocks)
    while todo:
        for block, used, killed in summaries:
            if block in todo:
                todo.discard(block)
                before = used | (live_out(block, live) & ~killed)
                if before != live[block]:
                    live[block] = before
                    todo.update(predecessors[block])
    return live


def live_out(block: MBlock, live_in: Mapping[MBlock, int]) -> int:
    """What is alive at the block's end, after its branch."""
    alive = 0
    for target in block.targets:
        alive |= live_in[target]
    return alive


def _summary(steps: list[Step]) -> tuple[int, int]:
    used = killed = 0
    for _, _, _, read, written in steps:
        used |= read & ~killed
        killed |= written
    return used, killed


def bits(registers: Iterable[int]) -> int:
    """The set of these registers."""
    found = 0
    for register in registers:
        found |= 1 << register
    return found


def members(registers: int) -> list[int]:
    """The registers of a set, the highest first."""
    found = []
    while registers:
        highest = registers.bit_length() - 1
        found.append(highest)
        registers ^= 1 << highest
    return found
