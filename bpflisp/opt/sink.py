"""Moves writing numbers to the stack to the one way on which they are read.

Contract: a store of a number, or zeroing, of a slot whose address nobody else knows moves over the branch at the end of
its block, if its bytes are read on one of the two ways alone, and that way is reached from there alone. So a program
that leaves early does not write what nobody reads.
"""

from __future__ import annotations

from bpflisp.ir import ssa
from bpflisp.ir.addresses import Place, escaped_slots, mentioned_slots, place_of
from bpflisp.ir.ssa import Block, Branch, Const, Function, Instr, Slot, incoming_edges
from bpflisp.opt.dse import bytes_of, live_after, live_before


def sink_stores(function: Function) -> bool:
    """Every branch once, the earlier ones first, so that a store goes as far as it can. Says whether one moved."""
    escaped = escaped_slots(function)
    live = live_after(function)
    incoming = incoming_edges(function)
    changed = False
    for block in function.blocks:
        end = block.end
        if not isinstance(end, Branch) or end.then.block is end.other.block:
            continue
        ways = [end.then.block, end.other.block]
        alive = [live_before(way, live) for way in ways]
        staying: set[Slot] = set()
        for instr, place in _last_writes(block, escaped):
            slot = place.base
            assert isinstance(slot, Slot)
            wanted = [bool(bytes.get(slot, 0) & bytes_of(place)) for bytes in alive]
            alone = wanted.count(True) == 1 and len(incoming[ways[wanted.index(True)]]) == 1
            if alone and slot not in staying:
                block.body = [each for each in block.body if each is not instr]
                ways[wanted.index(True)].body.insert(0, instr)
                changed = True
            else:
                # What is written before it may be the same bytes, and must not overtake it.
                staying.add(slot)
    return changed


def _last_writes(block: Block, escaped: frozenset[Slot]) -> list[tuple[Instr, Place]]:
    """Writes of numbers to slots that nothing behind them in the block mentions, the last first."""
    found: list[tuple[Instr, Place]] = []
    mentioned = set(mentioned_slots(block.terminator))
    for instr in reversed(block.body):
        place = place_of(instr)
        number = isinstance(instr, ssa.Zero) or (isinstance(instr, ssa.Store) and isinstance(instr.args[1], Const))
        if number and place is not None and isinstance(place.base, Slot) and place.off is not None:
            if place.base not in mentioned and place.base not in escaped and getattr(instr, "core", None) is None:
                found.append((instr, place))
                continue
        mentioned |= mentioned_slots(instr)
    return found
