"""What is known of values: the greatest number that one can be."""

from __future__ import annotations

from bpflisp.ir import ssa
from bpflisp.ir.ssa import Value
from bpflisp.spec.alu import M32, M64
from bpflisp.spec.isa import Op

_DEPTH = 12


def greatest(value: Value, provable: bool = False, depth: int = _DEPTH) -> int:
    """An upper bound of the value as unsigned number. Looks through at most `depth` instructions.

    `provable` counts on nothing that a kernel's verifier does not work out too: it knows nothing of quotients,
    remainders, swapped bytes and shifts by what it does not know, so that a mask or a test after one of these is what
    makes an access legal.
    """
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
            return min((1 << bits) - 1, greatest(value.args[0], provable, depth - 1))
        case ssa.ByteOrder(bits=bits):
            return M64 if provable else (1 << bits) - 1
        case ssa.Binary(op=Op.DIV | Op.MOD) if provable:
            return M64 if value.width == 64 else M32
        case ssa.Binary(op=Op.RSH | Op.LSH) if provable and not isinstance(value.args[1], ssa.Const):
            return M64
        case ssa.Binary():
            return _greatest_of_binary(value, provable, depth - 1)
    return M64


def _greatest_of_binary(value: ssa.Binary, provable: bool, depth: int) -> int:
    limit = M64 if value.width == 64 else M32
    left, right = (min(greatest(arg, provable, depth), limit) for arg in value.args)
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
