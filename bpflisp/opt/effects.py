"""What instructions do to memory: which places a load reads and a store writes, what a call may touch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from bpflisp.ir import ssa
from bpflisp.ir.dataflow import reverse_postorder
from bpflisp.ir.ssa import Call, CallKind, Function, Instr, Slot, Value
from bpflisp.opt.facts import Space, root, space
from bpflisp.spec import helpers
from bpflisp.spec.helpers import ArgType
from bpflisp.spec.isa import Op


@dataclass(frozen=True, slots=True)
class Place:
    """`size` bytes at `base + off`; `off` None: somewhere in what `base` points into."""

    base: Value
    off: int | None
    size: int


def place_of(instr: Instr) -> Place | None:
    """The bytes that a load, store, zeroing or atomic touches; None for any other instruction."""
    if not isinstance(instr, ssa.Load | ssa.Store | ssa.Zero | ssa.Atomic):
        return None
    base, distance = root(instr.args[0])
    return Place(base, None if distance is None else distance + instr.off, instr.size)


_APART = frozenset({Space.STACK, Space.PACKET, Space.OBJECT})
"""Spaces of which two never overlap."""


def overlap(a: Place, b: Place, escaped: frozenset[Slot]) -> bool:
    """Whether the two may share a byte. `escaped` are the slots whose address others may know."""
    if a.base == b.base:
        if a.off is None or b.off is None:
            return True
        return a.off < b.off + b.size and b.off < a.off + a.size
    first, second = space(a.base), space(b.base)
    if first is Space.STACK and second is Space.STACK:
        return False
    for slot, other in ((a.base, second), (b.base, first)):
        if isinstance(slot, Slot):
            return other is Space.UNKNOWN and slot in escaped
    return not (first in _APART and second in _APART and first is not second)


def escaped_slots(function: Function) -> frozenset[Slot]:
    """Slots whose address is stored, handed to a block, compared, or computed with in other ways than an addition.

    The address of a slot that a call takes does not escape by it: no helper keeps one.
    """
    derived: dict[Value, Slot] = {}
    escaped: set[Slot] = set()
    for instr in (instr for block in reverse_postorder(function) for instr in block.instructions()):
        for index, value in enumerate(ssa.operands(instr)):
            slot = value if isinstance(value, Slot) else derived.get(value)
            if slot is None:
                continue
            if isinstance(instr, ssa.Binary) and instr.op is Op.ADD and instr.width == 64:
                derived[instr] = slot
                base, _ = root(instr)
                if base != slot:
                    escaped.add(slot)
            elif not _keeps_apart(instr, index):
                escaped.add(slot)
    return frozenset(escaped)


def _keeps_apart(instr: Instr, index: int) -> bool:
    """Whether the operand at `index` is an address to be used here and now."""
    if isinstance(instr, ssa.Load | ssa.Store | ssa.Zero | ssa.Atomic):
        return index == 0
    return isinstance(instr, Call)


@dataclass(frozen=True, slots=True)
class CallEffect:
    """What a call may do: `writes` the spaces whose contents change, `context` whether fields of the context do."""

    writes: frozenset[Space]
    context: bool
    pure: bool = False


_EVERYTHING = CallEffect(frozenset(Space), context=True)
_NOTHING = CallEffect(frozenset(), context=False)
_MEMORY_ARGS = frozenset(ArgType) - {
    ArgType.ANYTHING,
    ArgType.SCALAR,
    ArgType.CONST_MAP_PTR,
    ArgType.CONST_SIZE,
    ArgType.CONST_SIZE_OR_ZERO,
    ArgType.CONST_ALLOC_SIZE_OR_ZERO,
    ArgType.PTR_TO_MAP_KEY,
}
_LOOKUPS = frozenset({"bpf_map_lookup_elem", "bpf_map_lookup_percpu_elem"})


@cache
def _helper_effect(number: int) -> CallEffect:
    """By the prototypes: a helper that takes no memory but keys, and no context, changes nothing that is loaded.

    Helpers that change maps (update, delete, push) take memory, or keys of maps whose elements may move: only look-ups
    count as harmless among those that take a key. What takes a context may change packet and context.
    """
    helper = helpers.by_id(number)
    if helper is None or not helper.protos:
        return _EVERYTHING
    args = [arg for proto in helper.protos for arg in proto.args]
    if helper.name in _LOOKUPS:
        return CallEffect(frozenset(), context=False, pure=helper.name == "bpf_map_lookup_elem")
    if any(arg.type in _MEMORY_ARGS or arg.type is ArgType.PTR_TO_MAP_KEY for arg in args):
        return _EVERYTHING
    return _NOTHING


def effect_of(call: Call) -> CallEffect:
    """What this call may do."""
    return _helper_effect(call.number) if call.kind is CallKind.HELPER else _EVERYTHING


def is_pure_call(call: Call) -> bool:
    """Whether the call may go when its result is not used. A look-up may not in an LRU map: it marks the entry."""
    return False


def slots_passed(call: Instr) -> Iterator[Slot]:
    """The stack slots whose addresses the call (or asm) takes."""
    for arg in call.args:
        base, _ = root(arg)
        if isinstance(base, Slot):
            yield base


def kills(instr: Instr, place: Place, escaped: frozenset[Slot]) -> bool:
    """Whether the instruction may change the bytes of a place."""
    if isinstance(instr, ssa.Store | ssa.Zero | ssa.Atomic):
        written = place_of(instr)
        return written is not None and overlap(written, place, escaped)
    if isinstance(instr, ssa.Asm):
        return True
    if not isinstance(instr, Call):
        return False
    effect = effect_of(instr)
    if isinstance(place.base, Slot):
        known = place.base in escaped or place.base in set(slots_passed(instr))
        return known and bool(effect.writes)
    return space(place.base) in effect.writes


def kills_context(instr: Instr) -> bool:
    """Whether the instruction may change a field of the context, or make a loaded pointer invalid."""
    if isinstance(instr, ssa.ContextStore | ssa.Asm):
        return True
    return isinstance(instr, Call) and effect_of(instr).context
