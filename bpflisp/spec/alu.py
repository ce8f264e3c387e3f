"""What each operation and comparison does to numbers. Operands and results are unsigned, of the width in bits.

One meaning for constant folding, engines and tests. Source: RFC 9669, sections 4.1 to 4.3: shifts use the low bits of
the count, division by zero gives 0, a remainder by zero the dividend; the quotient of the least number by -1 is itself.
"""

from __future__ import annotations

from bpflisp.spec.isa import Op

M32, M64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


def signed(number: int, bits: int) -> int:
    """The two's complement meaning of the low `bits` bits."""
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> (bits - 1) else number


def _truncated_quotient(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return -quotient if (a < 0) != (b < 0) else quotient


def _divide(op: Op, bits: int, a: int, b: int) -> int:
    if b == 0:
        return 0 if op in (Op.DIV, Op.SDIV) else a
    if op is Op.DIV:
        return a // b
    if op is Op.MOD:
        return a % b
    dividend, divisor = signed(a, bits), signed(b, bits)
    quotient = _truncated_quotient(dividend, divisor)
    return quotient if op is Op.SDIV else dividend - quotient * divisor


_SIGN_EXTENDED_BITS = {Op.MOVSX8: 8, Op.MOVSX16: 16, Op.MOVSX32: 32}


def compute(op: Op, bits: int, a: int, b: int) -> int:
    """`a op b` at `bits` bits; `a` is the destination's old value. Of other widths than 32 and 64, for tests."""
    mask = (1 << bits) - 1
    a, b = a & mask, b & mask
    match op:
        case Op.ADD:
            result = a + b
        case Op.SUB:
            result = a - b
        case Op.MUL:
            result = a * b
        case Op.DIV | Op.SDIV | Op.MOD | Op.SMOD:
            result = _divide(op, bits, a, b)
        case Op.OR:
            result = a | b
        case Op.AND:
            result = a & b
        case Op.XOR:
            result = a ^ b
        case Op.LSH:
            result = a << (b & (bits - 1))
        case Op.RSH:
            result = a >> (b & (bits - 1))
        case Op.ARSH:
            result = signed(a, bits) >> (b & (bits - 1))
        case Op.MOV | Op.XCHG:
            result = b
        case Op.MOVSX8 | Op.MOVSX16 | Op.MOVSX32:
            result = signed(b, _SIGN_EXTENDED_BITS[op])
        case Op.NEG:
            result = -a
        case _:
            raise ValueError(f"{op!r} is not arithmetic")
    return result & mask


def byte_order(op: Op, bits: int, a: int) -> int:
    """What an END instruction leaves in a 64-bit register: the low `bits` bits, swapped or not, zero-extended.

    The machine is little-endian, as every object that we take is.
    """
    low = a & ((1 << bits) - 1)
    if op is Op.TO_LE:
        return low
    return int.from_bytes(low.to_bytes(bits // 8, "little"), "big")


def compare(op: Op, bits: int, a: int, b: int) -> bool:
    """Whether the branch is taken."""
    mask = (1 << bits) - 1
    a, b = a & mask, b & mask
    if op in (Op.SGT, Op.SGE, Op.SLT, Op.SLE):
        a, b = signed(a, bits), signed(b, bits)
    match op:
        case Op.EQ:
            return a == b
        case Op.NE:
            return a != b
        case Op.SET:
            return bool(a & b)
        case Op.GT | Op.SGT:
            return a > b
        case Op.GE | Op.SGE:
            return a >= b
        case Op.LT | Op.SLT:
            return a < b
        case Op.LE | Op.SLE:
            return a <= b
        case _:
            raise ValueError(f"{op!r} is not a comparison")
