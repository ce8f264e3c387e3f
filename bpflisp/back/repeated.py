"""Takes out what puts a value where it is already, after allocation: copies, constants, addresses, reloads of spills.

Contract: at each point it is known of some places (registers, spill slots) that they hold the same value, or the value
that an instruction makes; an instruction that only establishes what is known goes, and a reload of what a register
still holds becomes a copy. What each place holds on all ways to a block is known at its start.
"""

from __future__ import annotations

from collections.abc import Hashable

from bpflisp.back.graph import predecessors, reverse_postorder
from bpflisp.back.machine import MOV_REG, MBlock, MFunction, MInsn
from bpflisp.back.makers import maker_key
from bpflisp.ir.ssa import Slot
from bpflisp.spec.isa import FRAME_POINTER, Kind

_Known = dict[int | Slot, Hashable]
"""Place -> which value it holds: places with the same one hold equal values. A maker's key stands for its value; a
pair of an instruction and a register for what that instruction wrote there when it ran. In a loop it runs again, but
nothing is known in front of it of what it wrote before: on the way there on which it has not run yet, it is not so."""

_ROUNDS = 4
"""So many rounds a block, and a few, are enough by far; a function that needs more is left as it is."""


def drop_repeated(function: MFunction) -> None:
    """Take out what is there already, on every way to there."""
    before = predecessors(function)
    order = reverse_postorder(function)
    after: dict[MBlock, _Known] = {}
    entering: dict[MBlock, _Known] = {}
    waiting = set(order)
    for _ in range(_ROUNDS * len(order) + 8):
        for block in order:
            if block not in waiting:
                continue
            waiting.discard(block)
            known = _meet([after[p] for p in before[block] if p in after])
            if block is function.blocks[0]:
                known = {1: "context"}
            if block not in entering or entering[block] != known:
                entering[block] = known
                after[block] = _walk(block, dict(known), None)
                waiting.update(block.targets)
        if not waiting:
            break
    else:
        return
    for block in order:
        kept: list[MInsn] = []
        _walk(block, dict(entering[block]), kept)
        block.body = kept


def _meet(facts: list[_Known]) -> _Known:
    if not facts:
        return {}
    known, *others = facts
    for other in others:
        if other is not known:
            known = {place: value for place, value in known.items() if other.get(place) == value}
    return known


def _walk(block: MBlock, known: _Known, kept: list[MInsn] | None) -> _Known:
    """What is known after the block, from what is known before it; `kept` gets what of it has to stay."""
    for insn in block.body:
        places = _moved(insn)
        key = maker_key(insn)
        if places is None and key is None:
            for register in insn.defs():
                known[register] = (insn, register)
        else:
            target = places[1] if places else insn.dst
            if places is None:
                value = key
            elif (value := known.get(places[0])) is None:
                value = known[places[0]] = (insn, -1)
            if known.get(target) == value:
                continue
            insn = _cheaper(insn, value, known)
            known[target] = value
        if kept is not None:
            kept.append(insn)
    return known


def _moved(insn: MInsn) -> tuple[int | Slot, int | Slot] | None:
    """From where to where the instruction moves a value: a copy, a spill, a reload; None for any other."""
    if insn.is_copy:
        return insn.src, insn.dst
    if insn.number == 0 and insn.slot is not None:
        if insn.row.kind is Kind.STORE and insn.dst == FRAME_POINTER:
            return insn.src, insn.slot
        if insn.row.kind is Kind.LOAD and insn.src == FRAME_POINTER:
            return insn.slot, insn.dst
    return None


def _cheaper(insn: MInsn, value: Hashable, known: _Known) -> MInsn:
    """A copy in place of a reload of what some register holds."""
    if insn.row.kind is not Kind.LOAD:
        return insn
    holding = [place for place, held in known.items() if held == value and isinstance(place, int)]
    return MInsn(MOV_REG, insn.dst, min(holding), position=insn.position) if holding else insn
