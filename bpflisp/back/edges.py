"""Turns the arguments of edges into copies: the way out of static single assignment.

A copy stands at the end of the edge's block where that has one way out, else at the head of its target where that has
one way in; on a critical edge it stands before the branch if nothing sees it on the other way, and else in a new block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from bpflisp.back.liveness import bits, live_in_sets
from bpflisp.back.machine import MOV_REG, MBlock, MFunction, MInsn
from bpflisp.ir.ssa import Leaf, Value

Copies = dict[tuple[MBlock, int], list[tuple[int, Value]]]
"""(block, number of its target) -> (register of the parameter, argument), all of which happen at once."""

Move = Callable[[int, Value], list[MInsn]]


def place_edge_copies(function: MFunction, copies: Copies, move: Move) -> None:
    """Write the copies into the function. `move` gives the instructions that put a value into a register."""
    sequences = {edge: _sequence(function, pairs, move) for edge, pairs in copies.items() if pairs}
    incoming: dict[MBlock, int] = {}
    for block in function.blocks:
        for target in block.targets:
            incoming[target] = incoming.get(target, 0) + 1
    split: list[tuple[MBlock, int]] = []
    for (block, number), sequence in sequences.items():
        target = block.targets[number]
        for insn in sequence:
            insn.position = block.position
        if len(block.targets) == 1:
            block.body += sequence
        elif incoming[target] == 1:
            target.body[:0] = sequence
        else:
            between = MBlock(body=sequence, targets=[target], position=block.position)
            block.targets[number] = between
            function.blocks.insert(function.blocks.index(block) + 1, between)
            split.append((block, number))
    if split:
        _hoist(function, split)


def _hoist(function: MFunction, split: list[tuple[MBlock, int]]) -> None:
    """Move the copies of a split edge before the branch, where neither the branch nor the other way sees them.

    What is alive at blocks' starts stays as it was: the copies read what the branch's block had to keep for them, and
    what they write is dead on the other way. So one look at liveness serves all edges.
    """
    live = live_in_sets(function)
    hoisted: set[MBlock] = set()
    common = Counter(_effects(block.targets[number]) for block, number in split)
    # What most edges set is set early: it may be there already then, from an earlier branch.
    for block, number in sorted(split, key=lambda edge: -common[_effects(edge[0].targets[edge[1]])]):
        between = block.targets[number]
        assert block.end is not None
        seen = bits(block.end.uses()) | live[block.targets[1 - number]]
        written = bits(tuple(register for insn in between.body for register in insn.defs()))
        if block not in hoisted and not written & seen:
            hoisted.add(block)
            block.body += between.body
            block.targets[number] = between.targets[0]
            function.blocks.remove(between)


def _sequence(function: MFunction, pairs: list[tuple[int, Value]], move: Move) -> list[MInsn]:
    """Copies that happen at once, in an order in which none overwrites what a later one reads.

    A circle is broken by saving one register in a new one.
    """
    sources: dict[int, int] = {}
    leaves: list[MInsn] = []
    for register, value in pairs:
        insns = move(register, value)
        if isinstance(value, Leaf):
            leaves += insns
        elif insns[0].src != register:
            sources[register] = insns[0].src
    ordered: list[MInsn] = []
    while sources:
        free = next((r for r in sources if r not in sources.values()), None)
        if free is None:
            broken = next(iter(sources))
            saved = function.register()
            ordered.append(MInsn(MOV_REG, saved, broken))
            sources = {r: saved if s == broken else s for r, s in sources.items()}
        else:
            ordered.append(MInsn(MOV_REG, free, sources.pop(free)))
    return ordered + leaves


def _effects(block: MBlock) -> tuple[tuple[int, int, int, int], ...]:
    """What the copies of an edge do."""
    return tuple((insn.opcode, insn.dst, insn.src, insn.imm) for insn in block.body)
