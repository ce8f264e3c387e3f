"""What instructions do to memory: which places a load reads and a store writes, what a call may touch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from bpflisp.ir import ssa
from bpflisp.ir.addresses import Place, Space, overlap, place_of, slots_passed, space
from bpflisp.ir.ssa import Call, CallKind, Instr, Slot
from bpflisp.spec import helpers
from bpflisp.spec.helpers import ArgType


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
