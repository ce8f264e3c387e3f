"""Replaces a load by the value that is known to be there: stored, zeroed or loaded before, on every way to here.

A store of what is known to be there goes.

Contract: a value is forgotten at whatever may change its bytes (`effects`). Context loads are handled alike; they are
forgotten at calls that may move the packet. What another CPU does to a map value in between is not looked for, as in C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bpflisp.ir import ssa
from bpflisp.ir.addresses import Place, escaped_slots, place_of
from bpflisp.ir.dataflow import reverse_postorder, solve
from bpflisp.ir.ssa import Block, Extend, Function, Instr, Slot, Value, const
from bpflisp.lean import dataclass
from bpflisp.opt.effects import killing, kills_context

_Key = tuple[Place | tuple[Value, int, int], bool]
"""A place in memory (or of the context), and whether the value is what a sign-extending load gives."""

_Known = dict[_Key, Value]

_READING = (ssa.Load, ssa.ContextLoad)


@dataclass(frozen=True, slots=True)
class _Step:
    """What an instruction does to what is known: which keys it makes unsure (None: none), and what it tells."""

    forgets: Callable[[_Key], bool] | None
    told: _Known


_STILL = _Step(None, {})
"""Of an instruction that neither reads nor changes memory."""


def forward_values(function: Function) -> bool:
    """Solve what is known at each block's start, then walk each block. Says whether a load was replaced."""
    steps = _steps(function)

    def transfer(block: Block, known: _Known) -> _Known:
        known = dict(known)
        for instr in block.body:
            if (step := steps.get(instr)) is not None:
                _take(step, known)
        return known

    nothing: _Known = {}
    facts = solve(function, nothing, transfer, _intersection)
    replaced: dict[Value, Value] = {}
    for block in reverse_postorder(function):
        _walk(block, dict(facts[block]), steps, replaced)
    ssa.replace_values(function, replaced)
    return bool(replaced)


def _intersection(facts: Iterable[_Known]) -> _Known:
    common, *others = facts
    for other in others:
        get = other.get
        common = {key: value for key, value in common.items() if get(key) == value}
    return common


def _walk(block: Block, known: _Known, steps: dict[Instr, _Step], replaced: dict[Value, Value]) -> None:
    body: list[Instr] = []
    for instr in block.body:
        if _stores_again(instr, known):
            replaced[instr] = const(0)
            continue
        found = _found(instr, known)
        if found is None:
            _take(steps.get(instr, _STILL), known)
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


def _take(step: _Step, known: _Known) -> None:
    """Go past the instruction: forget what it may change, and learn what it tells."""
    if (forgets := step.forgets) is not None:
        for key in [key for key in known if forgets(key)]:
            del known[key]
    known.update(step.told)


def _steps(function: Function) -> dict[Instr, _Step]:
    """Of each instruction that touches memory or the context, made once, since blocks are gone through again."""
    escaped = escaped_slots(function)
    steps: dict[Instr, _Step] = {}
    for block in function.blocks:
        for instr in block.body:
            forgets = None if isinstance(instr, _READING) else _forgetting(instr, escaped)
            told = _told(instr)
            if told or forgets is not None:
                steps[instr] = _Step(forgets, told)
    return steps


def _forgetting(instr: Instr, escaped: frozenset[Slot]) -> Callable[[_Key], bool] | None:
    """The keys whose value the instruction may change."""
    killed = killing(instr, escaped)
    context = kills_context(instr)
    if killed is None and not context:
        return None

    def forgets(key: _Key) -> bool:
        place = key[0]
        return killed is not None and killed(place) if isinstance(place, Place) else context

    return forgets


def _told(instr: Instr) -> _Known:
    """What is known by the instruction alone: what it loads, stores or zeroes."""
    match instr:
        case ssa.Load() | ssa.ContextLoad():
            own = _key(instr)
            return {} if own is None else {own: instr}
        case ssa.Store(core=None):
            place = place_of(instr)
            value = instr.args[1]
            return {} if place is None or place.off is None else {(place, False): value, (place, True): value}
        case ssa.Zero():
            return _zeroed(place_of(instr))
    return {}


def _zeroed(place: Place | None) -> _Known:
    """Every aligned part of a place that was zeroed is 0, whatever size it is read by."""
    known: _Known = {}
    if place is not None and place.off is not None:
        for size in (1, 2, 4, 8):
            for off in range(place.off, place.off + place.size - size + 1, size):
                part = Place(place.base, off, size)
                known[part, False] = known[part, True] = const(0)
    return known
