"""Takes out stores to packets, map values, records and other memory that are overwritten before anybody reads them.

Contract: on every way on from the store, all its bytes are written again, through the same address, before a load that
may see them, an atomic instruction, a call that may (any but of helpers that always say the same), raw code, or the end
of the function. What another CPU sees of a map value in between is not looked for, as in C. What the stack holds, `dse`
follows farther: there it is known who else may read.
"""

from __future__ import annotations

from collections.abc import Iterable

from bpflisp.ir import ssa
from bpflisp.ir.addresses import Place, escaped_slots, overlap, place_of
from bpflisp.ir.dataflow import solve
from bpflisp.ir.ssa import Block, Function, Instr, Slot, Value
from bpflisp.opt.effects import is_stable_call

_Bytes = dict[Value, frozenset[int]]
"""Address -> the bytes, counted from there, that will be written before anybody reads them."""


def drop_overwritten(function: Function) -> bool:
    """Follow what will be written backwards, over all blocks. Says whether a store went."""
    if not _has_two_at_one_address(function):
        return False
    escaped = escaped_slots(function)

    def transfer(block: Block, written: _Bytes) -> _Bytes:
        written = dict(written)
        for instr in reversed(block.body):
            _step_back(instr, written, escaped)
        for param in block.params:
            written.pop(param, None)
        return written

    nothing: _Bytes = {}
    after = solve(function, nothing, transfer, _intersection, forward=False)
    changed = False
    for block in function.blocks:
        changed |= _sweep(block, dict(after.get(block, nothing)), escaped)
    return changed


def _has_two_at_one_address(function: Function) -> bool:
    """Whether there is anything to look for."""
    seen: set[Value] = set()
    for block in function.blocks:
        for instr in block.body:
            if isinstance(instr, ssa.Store):
                place = place_of(instr)
                if place is not None and not isinstance(place.base, Slot):
                    if place.base in seen:
                        return True
                    seen.add(place.base)
    return False


def _intersection(facts: Iterable[_Bytes]) -> _Bytes:
    first, *others = facts
    common = {base: bytes.intersection(*(fact.get(base, ()) for fact in others)) for base, bytes in first.items()}
    return {base: bytes for base, bytes in common.items() if bytes}


def _bytes_of(instr: Instr) -> tuple[Value, frozenset[int]] | None:
    """The bytes that a store or zeroing writes, if it is known which."""
    place = place_of(instr) if isinstance(instr, ssa.Store | ssa.Zero) else None
    if place is None or place.off is None:
        return None
    return place.base, frozenset(range(place.off, place.off + place.size))


def _step_back(instr: Instr, written: _Bytes, escaped: frozenset[Slot]) -> None:
    match instr:
        case ssa.Store() | ssa.Zero():
            if (own := _bytes_of(instr)) is not None:
                written[own[0]] = written.get(own[0], frozenset()) | own[1]
        case ssa.Load():
            _read(instr, written, escaped)
        case ssa.Atomic() | ssa.Asm() | ssa.Call():
            if not (isinstance(instr, ssa.Call) and is_stable_call(instr)):
                written.clear()
    # Before its definition the same value was another, in an earlier round of a loop.
    written.pop(instr, None)


def _read(load: Instr, written: _Bytes, escaped: frozenset[Slot]) -> None:
    """Leave what the load does not see."""
    place = place_of(load)
    assert place is not None
    for base, bytes in list(written.items()):
        if place.base == base and place.off is not None:
            left = bytes.difference(range(place.off, place.off + place.size))
        else:
            left = frozenset() if overlap(place, Place(base, None, 1), escaped) else bytes
        if left:
            written[base] = left
        else:
            del written[base]


def _sweep(block: Block, written: _Bytes, escaped: frozenset[Slot]) -> bool:
    kept: list[Instr] = []
    for instr in reversed(block.body):
        own = _bytes_of(instr) if isinstance(instr, ssa.Store) else None
        if own is not None and own[1] <= written.get(own[0], frozenset()):
            continue
        _step_back(instr, written, escaped)
        kept.append(instr)
    changed = len(kept) < len(block.body)
    block.body = kept[::-1]
    return changed
