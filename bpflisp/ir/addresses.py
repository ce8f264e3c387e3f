"""Where addresses point: the value that one was computed from, the kind of memory, which slots' addresses escape."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from bpflisp.ir import ssa
from bpflisp.ir.dataflow import reverse_postorder
from bpflisp.ir.ssa import Call, CallKind, Function, Instr, Leaf, Slot, Value
from bpflisp.lean import dataclass
from bpflisp.spec import helpers
from bpflisp.spec.alu import M64
from bpflisp.spec.helpers import RetType
from bpflisp.spec.isa import Op

REACH = 0xFFFF
"""So far from its start, in bytes, may a packet pointer be; within that no address wraps around."""


class Space(StrEnum):
    """What an address points into, as far as the value tells."""

    STACK = "stack"
    CONTEXT = "context"
    PACKET = "packet"
    OBJECT = "object"  # a map value, a ring-buffer record
    DATA = "data"
    UNKNOWN = "unknown"


def returns_object(call: Call) -> bool:
    """Whether the call gives the address of a map value or of a ring-buffer record (or null)."""
    if call.kind is not CallKind.HELPER:
        return False
    helper = helpers.by_id(call.number)
    if helper is None or not helper.protos:
        return False
    return all(
        proto.ret.type is RetType.PTR_TO_MAP_VALUE
        or (proto.ret.type is RetType.PTR_TO_MEM and "MEM_RINGBUF" in proto.ret.flags)
        for proto in helper.protos
    )


def space(value: Value) -> Space:
    """The space of a value that is taken as an address, without looking through arithmetic."""
    match value:
        case Slot():
            return Space.STACK
        case ssa.DataRef():
            return Space.DATA
        case ssa.ContextLoad(size=4, scalar=False):
            return Space.PACKET
        case Call() if returns_object(value):
            return Space.OBJECT
    return Space.UNKNOWN


def root(value: Value) -> tuple[Value, int | None]:
    """The value that an address was computed from, and its distance if that is constant.

    Of a sum of two values the one that is known to be an address is taken; where neither is, the sum is its own root.
    """
    distance: int | None = 0
    while isinstance(value, ssa.Binary) and value.width == 64 and value.op in (Op.ADD, Op.SUB):
        left, right = value.args
        if isinstance(right, ssa.Const):
            step = right.number if value.op is Op.ADD else -right.number
            distance = None if distance is None else distance + step
            value = left
            continue
        if isinstance(left, ssa.Const) and value.op is Op.ADD:
            left, right = right, left
            distance = None if distance is None else distance + right.number if isinstance(right, ssa.Const) else None
            value = left
            continue
        into = [arg for arg in (left, right if value.op is Op.ADD else left) if points(arg)]
        if not into:
            return value, distance
        value, distance = into[0], None
    return value, None if distance is None else signed_distance(distance)


def signed_distance(distance: int) -> int:
    """The distance modulo 2**64, nearest to zero."""
    distance &= M64
    return distance - (1 << 64) if distance >> 63 else distance


def points(value: Value) -> bool:
    """Whether the value is known to be an address, or one plus something."""
    while isinstance(value, ssa.Binary) and value.width == 64 and value.op in (Op.ADD, Op.SUB):
        left, right = value.args
        if points_itself(right):
            return True
        value = left
    return points_itself(value)


def points_itself(value: Value) -> bool:
    """Whether the value is an address by its own nature."""
    return (isinstance(value, Leaf) and not isinstance(value, ssa.Const)) or space(value) is not Space.UNKNOWN


@dataclass(frozen=True, slots=True)
class Place:
    """`size` bytes at `base + off`; `off` None: somewhere in what `base` points into."""

    base: Value
    off: int | None
    size: int


_SINGLE = (ssa.Load, ssa.Store)


def place_of(instr: Instr) -> Place | None:
    """The bytes that a load, store, zeroing or atomic touches; None for any other instruction.

    Where a loader moves the offset, they are somewhere behind the base.
    """
    if not isinstance(instr, ssa.MEMORY):
        return None
    base, distance = root(instr.args[0])
    if isinstance(instr, _SINGLE) and instr.core is not None:
        distance = None
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
    for instr in [instr for block in reverse_postorder(function) for instr in (*block.body, block.terminator)]:
        for index, value in enumerate(ssa.operands(instr)):
            slot = value if isinstance(value, Slot) else derived.get(value) if derived else None
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
    if isinstance(instr, ssa.MEMORY):
        return index == 0
    return isinstance(instr, Call)


def slots_passed(call: Instr) -> Iterator[Slot]:
    """The stack slots whose addresses the call (or asm) takes."""
    for arg in call.args:
        base, _ = root(arg)
        if isinstance(base, Slot):
            yield base


def mentioned_slots(instr: Instr) -> frozenset[Slot]:
    """The stack slots whose addresses, or addresses inside, the instruction takes."""
    roots = (root(value)[0] for value in ssa.operands(instr))
    return frozenset(base for base in roots if isinstance(base, Slot))
