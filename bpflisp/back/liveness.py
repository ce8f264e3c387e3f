"""Which registers are alive where, as bit sets: bit r of a set stands for register r."""

from __future__ import annotations

from bpflisp.back.machine import MBlock, MFunction, MInsn


def live_in_sets(function: MFunction) -> dict[MBlock, int]:
    """For each block the registers that are read, on some way from its start, before they are written."""
    uses: dict[MBlock, int] = {}
    kills: dict[MBlock, int] = {}
    predecessors: dict[MBlock, list[MBlock]] = {block: [] for block in function.blocks}
    for block in function.blocks:
        uses[block], kills[block] = _summary(block)
        for target in block.targets:
            predecessors[target].append(block)
    live = dict.fromkeys(function.blocks, 0)
    todo = set(function.blocks)
    order = list(reversed(function.blocks))
    while todo:
        for block in order:
            if block in todo:
                todo.discard(block)
                before = uses[block] | (live_out(block, live) & ~kills[block])
                if before != live[block]:
                    live[block] = before
                    todo.update(predecessors[block])
    return live


def live_out(block: MBlock, live_in: dict[MBlock, int]) -> int:
    """What is alive at the block's end, after its branch."""
    alive = 0
    for target in block.targets:
        alive |= live_in[target]
    return alive


def _summary(block: MBlock) -> tuple[int, int]:
    used = killed = 0
    for insn in block.instructions():
        used |= bits(insn.uses()) & ~killed
        killed |= bits(insn.defs())
    return used, killed


def before(insn: MInsn, alive: int) -> int:
    """What is alive before an instruction, from what is alive after it."""
    return alive & ~bits(insn.defs()) | bits(insn.uses())


def bits(registers: tuple[int, ...]) -> int:
    """The set of these registers."""
    found = 0
    for register in registers:
        found |= 1 << register
    return found


def members(registers: int) -> list[int]:
    """The registers of a set, in ascending order."""
    found = []
    while registers:
        low = registers & -registers
        found.append(low.bit_length() - 1)
        registers ^= low
    return found
