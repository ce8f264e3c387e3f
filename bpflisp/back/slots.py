"""Lets stack slots share bytes when they are never needed at the same time.

Contract: two slots of the function become one only if there is no point that lies, for both, between a mention before
it and a mention after it. Slots whose address escapes keep their own bytes. Spill slots, which allocation makes, share
among themselves, before the audit sees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bpflisp.back.machine import MFunction, MInsn
from bpflisp.ir import addresses, ssa
from bpflisp.ir.dataflow import solve
from bpflisp.ir.ssa import Block, Function, Slot
from bpflisp.spec.isa import FRAME_POINTER, Kind

Conflicts = dict[Slot, set[Slot]]


def share_slots(function: Function) -> None:
    """Make slots of the function one where that is allowed; in place."""
    escaped = addresses.escaped_slots(function)
    mentions = {
        block: [addresses.mentioned_slots(instr) - escaped for instr in block.instructions()]
        for block in function.blocks
    }
    every = {slot for sets in mentions.values() for found in sets for slot in found}
    if len(every) < 2:
        return
    conflicts = _conflicts(function, mentions, every)
    # Slots are hashed by where they lie in Python's memory: the order of a set of them is no two times the same.
    ordered = [slot for slot in function.slots() if slot in every]
    chosen = _merge(sorted(ordered, key=lambda slot: -slot.size), conflicts)
    ssa.replace_values(function, {slot: other for slot, other in chosen.items() if slot is not other})


def _conflicts(function: Function, mentions: Mapping[Block, list[frozenset[Slot]]], every: Iterable[Slot]) -> Conflicts:
    """Which slots are both in use at some point."""

    def union(facts: Iterable[frozenset[Slot]]) -> frozenset[Slot]:
        return frozenset().union(*facts)

    def add(block: Block, fact: frozenset[Slot]) -> frozenset[Slot]:
        return fact.union(*mentions[block])

    nothing: frozenset[Slot] = frozenset()
    before = solve(function, nothing, add, union)
    after = solve(function, nothing, add, union, forward=False)
    conflicts: Conflicts = {slot: set() for slot in every}
    for block, sets in mentions.items():
        later = [after.get(block, nothing)]
        for found in reversed(sets):
            later.append(later[-1] | found)
        earlier = before.get(block, nothing)
        for index, found in enumerate(sets):
            earlier |= found
            used = earlier & later[len(sets) - index]
            for slot in used:
                conflicts[slot] |= used
    return conflicts


def _merge(slots: list[Slot], conflicts: Conflicts) -> dict[Slot, Slot]:
    """For each slot the first one, in this order, that it may share bytes with; the larger come first."""
    members: dict[Slot, set[Slot]] = {}
    chosen: dict[Slot, Slot] = {}
    for slot in slots:
        for host, group in members.items():
            if not conflicts[slot] & group and slot.align <= host.align:
                chosen[slot] = host
                group.add(slot)
                break
        else:
            chosen[slot] = slot
            members[slot] = {slot}
    return chosen


def share_spills(function: MFunction, spills: frozenset[Slot]) -> None:
    """The same for spill slots, which are written and read as a whole and by r10 alone."""
    if len(spills) < 2:
        return
    naming = {
        block: [(insn, insn.slot) for insn in reversed(block.body) if insn.slot is not None and insn.slot in spills]
        for block in function.blocks
    }
    live: dict[object, frozenset[Slot]] = {block: frozenset() for block in function.blocks}
    conflicts: Conflicts = {slot: set() for slot in spills}
    progress = True
    while progress:
        progress = False
        for block in reversed(function.blocks):
            alive = frozenset().union(*(live[target] for target in block.targets))
            for insn, slot in naming[block]:
                alive = _step_back(insn, slot, alive, conflicts)
            if alive != live[block]:
                live[block] = alive
                progress = True
    chosen = _merge(sorted(spills, key=lambda slot: slot.name), conflicts)
    for insn in function.instructions():
        if insn.slot is not None:
            insn.slot = chosen.get(insn.slot, insn.slot)


def _step_back(insn: MInsn, slot: Slot, alive: frozenset[Slot], conflicts: Conflicts) -> frozenset[Slot]:
    if insn.row.kind is Kind.STORE and insn.dst == FRAME_POINTER:
        conflicts[slot] |= alive
        for other in alive:
            conflicts[other].add(slot)
        return alive - {slot}
    return alive | {slot}
