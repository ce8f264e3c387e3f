"""Takes out stores to the stack that nobody reads, and narrows zeroing to the bytes that are read before written.

Contract: slots whose address is known to others are left alone. A call that takes a slot's address reads all of the
slot, unless it is a helper that fills so many bytes of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from bpflisp.ir import ssa
from bpflisp.ir.addresses import Place, escaped_slots, place_of, slots_passed
from bpflisp.ir.dataflow import solve
from bpflisp.ir.ssa import Block, Call, Function, Instr, Slot, Zero
from bpflisp.opt.effects import places_written

_Live = dict[Slot, int]
"""Slot -> bit set of the bytes that may be read from here on; a slot that is not there has none."""


def drop_dead_stores(function: Function) -> bool:
    """Follow the bytes of slots backwards. Says whether a store went or shrank."""
    escaped = escaped_slots(function)
    after = live_after(function)
    changed = False
    for block in function.blocks:
        changed |= _sweep(block, dict(after.get(block, {})), escaped)
    return changed


def live_after(function: Function) -> dict[Block, _Live]:
    """For each block the bytes of slots that may be read after it."""

    def transfer(block: Block, live: _Live) -> _Live:
        live = dict(live)
        for instr in reversed(block.body):
            _step_back(instr, live)
        return live

    nothing: _Live = {}
    return solve(function, nothing, transfer, _union, forward=False)


def live_before(block: Block, after: dict[Block, _Live]) -> _Live:
    """The bytes of slots that may be read from the block's start on, by what may be after it."""
    live = dict(after.get(block, {}))
    for instr in reversed(block.body):
        _step_back(instr, live)
    return live


def _union(facts: Iterable[_Live]) -> _Live:
    merged: _Live = {}
    for fact in facts:
        for slot, live in fact.items():
            merged[slot] = merged.get(slot, 0) | live
    return merged


def _whole(slot: Slot) -> int:
    return (1 << slot.size) - 1


def bytes_of(place: Place) -> int:
    """The bytes of a slot that a place at a known offset has, as a bit set."""
    assert place.off is not None
    return ((1 << place.size) - 1) << place.off if place.off >= 0 else 0


def _step_back(instr: Instr, live: _Live) -> None:
    place = place_of(instr)
    if place is not None and isinstance(place.base, Slot):
        slot = place.base
        if isinstance(instr, ssa.Store | Zero):
            if place.off is not None:
                live[slot] = live.get(slot, 0) & ~bytes_of(place)
        else:
            live[slot] = live.get(slot, 0) | (_whole(slot) if place.off is None else bytes_of(place))
    elif isinstance(instr, Call):
        _step_back_over_call(instr, live)
    elif isinstance(instr, ssa.Asm):
        for slot in slots_passed(instr):
            live[slot] = _whole(slot)


def _step_back_over_call(call: Call, live: _Live) -> None:
    filled: set[Slot] = set()
    for place, whole in places_written(call):
        if isinstance(place.base, Slot) and whole:
            live[place.base] = live.get(place.base, 0) & ~bytes_of(place)
            filled.add(place.base)
    passed = list(slots_passed(call))
    for slot in passed:
        if slot not in filled or passed.count(slot) > 1:
            live[slot] = _whole(slot)


def _sweep(block: Block, live: _Live, escaped: frozenset[Slot]) -> bool:
    kept: list[Instr] = []
    changed = False
    for instr in reversed(block.body):
        place = place_of(instr)
        if isinstance(instr, ssa.Store | Zero) and place is not None and isinstance(place.base, Slot):
            if place.base not in escaped and place.off is not None:
                needed = live.get(place.base, 0) & bytes_of(place)
                if not needed:
                    changed = True
                    continue
                if isinstance(instr, Zero):
                    changed |= _shrink(instr, needed)
        _step_back(instr, live)
        kept.append(instr)
    block.body = kept[::-1]
    return changed


def _shrink(instr: Zero, needed: int) -> bool:
    """Zero from the first needed byte to the last, in whole groups of eight where the slot has them."""
    first = (needed & -needed).bit_length() - 1
    last = needed.bit_length()
    slot = instr.args[0]
    assert isinstance(slot, Slot)
    unit = 8 if slot.size >= 8 else 4
    start = max(instr.off, first // unit * unit)
    end = min(instr.off + instr.size, -(-last // unit) * unit)
    changed = (start, end - start) != (instr.off, instr.size)
    instr.off, instr.size = start, end - start
    return changed
