"""Replaces a load by the value that is known to be there: stored, zeroed or loaded before, on every way to here.

A store of what is known to be there goes.

Contract: a value is forgotten at whatever may change its bytes (`effects`). Context loads are handled alike; they are
forgotten at calls that may move the packet. What another CPU does to a map value in between is not looked for, as in C.
"""

from __future__ import annotations

from collections.abc import Iterable

from bpflisp.ir import ssa
from bpflisp.ir.addresses import Place, escaped_slots, place_of
from bpflisp.ir.dataflow import reverse_postorder, solve
from bpflisp.ir.ssa import Block, Extend, Function, Instr, Slot, Value, const
from bpflisp.opt.effects import kills, kills_context

_Key = tuple[Place | tuple[Value, int, int], bool]
"""A place in memory (or of the context), and whether the value is what a sign-extending load gives."""

_Known = dict[_Key, Value]

_TOUCHING = (
    ssa.Load, ssa.ContextLoad, ssa.Store, ssa.ContextStore, ssa.Zero, ssa.Atomic, ssa.Call, ssa.Asm,
)  # fmt: skip
"""Instructions that read or change memory: all others leave what is known as it is."""

_READING = (ssa.Load, ssa.ContextLoad)


def forward_values(function: Function) -> bool:
    """Solve what is known at each block's start, then walk each block. Says whether a load was replaced."""
    escaped = escaped_slots(function)

    def transfer(block: Block, known: _Known) -> _Known:
        known = dict(known)
        for instr in block.body:
            _update(instr, known, escaped)
        return known

    nothing: _Known = {}
    facts = solve(function, nothing, transfer, _intersection)
    replaced: dict[Value, Value] = {}
    for block in reverse_postorder(function):
        _walk(block, dict(facts[block]), escaped, replaced)
    ssa.replace_values(function, replaced)
    return bool(replaced)


def _intersection(facts: Iterable[_Known]) -> _Known:
    first, *others = facts
    if not others:
        return first
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def _walk(block: Block, known: _Known, escaped: frozenset[Slot], replaced: dict[Value, Value]) -> None:
    body: list[Instr] = []
    for instr in block.body:
        if _stores_again(instr, known):
            replaced[instr] = const(0)
            continue
        found = _found(instr, known)
        if found is None:
            _update(instr, known, escaped)
            body.append(instr)
            continue
        value = _as_loaded(instr, found, body)
        replaced[instr] = value
        key = _key(instr)
        if key is not None:
            known[key] = found if value is found else value
    block.body = body


def _key(instr: Instr) -> _Key | None:
    match instr:
        case ssa.Load(core=None):
            place = place_of(instr)
            return None if place is None or place.off is None else (place, instr.signed)
        case ssa.ContextLoad(core=None):
            return (instr.args[0], instr.off, instr.size), instr.signed
    return None


def _found(instr: Instr, known: _Known) -> Value | None:
    key = _key(instr)
    return None if key is None else known.get(key)


def _stores_again(instr: Instr, known: _Known) -> bool:
    """Whether a store writes what is there already."""
    place = place_of(instr)
    if not isinstance(instr, ssa.Store) or instr.core is not None or place is None or place.off is None:
        return False
    return known.get((place, False)) == instr.args[1]


def _as_loaded(instr: Instr, value: Value, body: list[Instr]) -> Value:
    """The value as the load would give it: what a store wrote has bits that the load would not see."""
    if not isinstance(instr, ssa.Load) or instr.size == 8:
        return value
    if isinstance(value, ssa.Load) and (value.size, value.signed) == (instr.size, instr.signed):
        return value
    if value == const(0):
        return value
    extended = Extend(args=[value], bits=instr.size * 8, signed=instr.signed, position=instr.position)
    body.append(extended)
    return extended


def _update(instr: Instr, known: _Known, escaped: frozenset[Slot]) -> None:
    """Forget what the instruction may change, and learn what it loads or stores."""
    if not isinstance(instr, _TOUCHING):
        return
    if not isinstance(instr, _READING):
        for key in [key for key in known if _forgets(instr, key, escaped)]:
            del known[key]
    place = place_of(instr)
    match instr:
        case ssa.Load() | ssa.ContextLoad():
            if (own := _key(instr)) is not None:
                known[own] = instr
        case ssa.Store(core=None) if place is not None and place.off is not None:
            known[place, False] = known[place, True] = instr.args[1]
        case ssa.Zero() if place is not None and place.off is not None:
            for size in (1, 2, 4, 8):
                for off in range(place.off, place.off + place.size - size + 1, size):
                    part = Place(place.base, off, size)
                    known[part, False] = known[part, True] = const(0)


def _forgets(instr: Instr, key: _Key, escaped: frozenset[Slot]) -> bool:
    place = key[0]
    return kills(instr, place, escaped) if isinstance(place, Place) else kills_context(instr)
