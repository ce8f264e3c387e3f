"""What is known of values: the greatest number that one can be, and what kind of memory an address points into."""

from __future__ import annotations

from enum import StrEnum

from bpflisp.ir import ssa
from bpflisp.ir.ssa import Call, CallKind, Leaf, Slot, Value
from bpflisp.spec import helpers
from bpflisp.spec.alu import M32, M64
from bpflisp.spec.helpers import RetType
from bpflisp.spec.isa import Op

_DEPTH = 12


def greatest(value: Value, depth: int = _DEPTH) -> int:
    """An upper bound of the value as unsigned number. Looks through at most `depth` instructions."""
    if depth == 0:
        return M64
    match value:
        case ssa.Const(number):
            return number
        case ssa.Compare():
            return 1
        case ssa.Load(signed=False, size=size) | ssa.ContextLoad(signed=False, scalar=True, size=size):
            return (1 << size * 8) - 1
        case ssa.Atomic(size=4):
            return M32
        case ssa.Extend(signed=False, bits=bits):
            return min((1 << bits) - 1, greatest(value.args[0], depth - 1))
        case ssa.ByteOrder(bits=bits):
            return (1 << bits) - 1
        case ssa.Binary():
            return _greatest_of_binary(value, depth - 1)
    return M64


def _greatest_of_binary(value: ssa.Binary, depth: int) -> int:
    limit = M64 if value.width == 64 else M32
    left, right = (min(greatest(arg, depth), limit) for arg in value.args)
    # At 32 bits an operand's low half may be anything when the operand itself may be above 32 bits: `limit` covers it.
    match value.op:
        case Op.AND:
            return min(left, right)
        case Op.OR | Op.XOR:
            return (1 << max(left.bit_length(), right.bit_length())) - 1
        case Op.ADD:
            return left + right if left + right <= limit else limit
        case Op.MUL:
            return left * right if left * right <= limit else limit
        case Op.DIV:
            divisor = value.args[1]
            return left // divisor.number if isinstance(divisor, ssa.Const) and 0 < divisor.number <= limit else left
        case Op.MOD:
            return min(left, right - 1) if isinstance(value.args[1], ssa.Const) and right > 0 else left
        case Op.RSH:
            count = value.args[1]
            return left >> (count.number & (value.width - 1)) if isinstance(count, ssa.Const) else left
        case Op.LSH:
            count = value.args[1]
            shifted = left << (count.number & (value.width - 1)) if isinstance(count, ssa.Const) else limit
            return min(shifted, limit)
    return limit


class Space(StrEnum):
    """What an address points into, as far as the value tells."""

    STACK = "stack"
    CONTEXT = "context"
    PACKET = "packet"
    OBJECT = "object"  # a map value, a ring-buffer record
    DATA = "data"
    UNKNOWN = "unknown"


_OBJECTS = frozenset({RetType.PTR_TO_MAP_VALUE, RetType.PTR_TO_MEM})


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
