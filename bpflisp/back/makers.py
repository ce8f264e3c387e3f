"""Instructions that make a value out of nothing (a constant, a map, an address): made less often.

Before allocation, one that takes two slots is made once for itself and two or more that it dominates, and copied.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from bpflisp.back.graph import Dominators, reverse_postorder
from bpflisp.back.machine import MOV_REG, MBlock, MFunction, MInsn
from bpflisp.spec.isa import LD_IMM64_OPCODE, Kind

_WORTH = 3
"""Made once and copied costs two slots and one a use, made again two a use: from three uses on that is less."""


def maker_key(insn: MInsn) -> Hashable | None:
    """What it makes; None where it is no such instruction."""
    if insn.raw or insn.uses() or insn.row.kind not in (Kind.ALU, Kind.LOAD_IMM64):
        return None
    pseudo = insn.src if insn.opcode == LD_IMM64_OPCODE or insn.is_lea else 0
    return insn.opcode, pseudo, insn.off, insn.imm, insn.imm_high, insn.symbol, insn.slot


def share_makers(function: MFunction) -> None:
    """Make what is made at three places or more once. Before allocation."""
    places: dict[Hashable, _Places] = {}
    for block in reverse_postorder(function):
        for insn in block.body:
            key = maker_key(insn)
            if key is not None and (insn.opcode == LD_IMM64_OPCODE or insn.is_lea):
                places.setdefault(key, []).append((block, insn))
    worth = [found for found in places.values() if len(found) >= _WORTH]
    if not worth:
        return
    dominators = Dominators(function)
    for found in worth:
        while (group := _largest_group(found, dominators)) is not None:
            _share(function, group)
            found = [each for each in found if each not in group]


_Places = list[tuple[MBlock, MInsn]]


def _largest_group(found: _Places, dominators: Dominators) -> _Places | None:
    """The most that one of them can serve: itself and those of blocks that its own dominates; None below the worth.

    What is shared is made where it was made anyway: no way through the function becomes longer by it but by a copy.
    """
    groups = [[each for each in found if dominators.dominates(block, each[0])] for block in dict(found)]
    best = max(groups, key=len, default=[])
    return best if len(best) >= _WORTH else None


def _share(function: MFunction, group: _Places) -> None:
    """Make it in front of the first, and copy it for all. The first of the list stands in the dominating block."""
    home, first = group[0]
    shared = function.register()
    at = next(index for index, insn in enumerate(home.body) if insn is first)
    home.body.insert(at, replace(first, dst=shared))
    for _, insn in group:
        insn.opcode, insn.src, insn.off = MOV_REG, shared, 0
        insn.imm = insn.imm_high = 0
        insn.symbol = insn.slot = None
