"""Takes out what only makes bits that nobody asks for, and shortens numbers by such bits.

Contract: an operand may be taken from in front of an extension, a mask, or arithmetic with a number, that changes none
of the bits which are asked for in the end: through arithmetic, shifts by numbers, byte swaps, what edges hand over, and
the sizes of stores. A number of 64 bits becomes one that an instruction can have. Comparisons and what may become part
of an address keep their operands where a test bounds these: see `Uses`.
"""

from __future__ import annotations

from collections.abc import Iterator

from bpflisp.ir import ssa
from bpflisp.ir.ssa import (
    Binary,
    Branch,
    ByteOrder,
    Compare,
    Const,
    Edge,
    Extend,
    Function,
    Instr,
    Leaf,
    Param,
    Value,
    const,
)
from bpflisp.opt.rules import RING
from bpflisp.opt.uses import Uses
from bpflisp.spec.alu import M32, M64, byte_order, signed
from bpflisp.spec.isa import Op

COMPUTED = (Binary, Extend, ByteOrder)
_LOOKING = (*COMPUTED, ssa.Store, ssa.ContextStore, ssa.Atomic, Compare, Branch)
_BITWISE = frozenset({Op.AND, Op.OR, Op.XOR})
_CHANGING = _BITWISE | {Op.ADD}
"""Operations that, with a number, may change only bits that nobody asks for."""


def drop_unneeded(function: Function) -> bool:
    """Ask for bits from the ends, then look at each operand that may change. Says whether one did."""
    found, handed = list(_candidates(function)), list(_handed_candidates(function))
    if not found and not handed:
        return False
    asked = asked_bits(function)
    uses = Uses(function)
    changed = False
    for instr, index in found:
        changed |= _drop_from(instr, index, asked, uses)
    for edge, index in handed:
        changed |= _drop_from_edge(edge, index, asked, uses)
    return changed


def _candidates(function: Function) -> Iterator[tuple[Instr, int]]:
    """Operands of what does not look at all bits, that have what can be taken out, or shortened."""
    for instr in function.instructions():
        if not isinstance(instr, _LOOKING):
            continue
        if isinstance(instr, Compare | Branch) and instr.width == 64:
            continue
        for index, value in enumerate(instr.args):
            if _is_long(instr, value) if isinstance(value, Const) else _may_go(value):
                yield instr, index


def _handed_candidates(function: Function) -> Iterator[tuple[Edge, int]]:
    """The same among what edges hand over."""
    for block in function.blocks:
        for edge in block.terminator.edges():
            for index, value in enumerate(edge.args):
                if not _fits(value.number) if isinstance(value, Const) else _may_go(value):
                    yield edge, index


def _may_go(value: Value) -> bool:
    """Whether it is of the kind that is taken out where others are asked for than the bits that it changes."""
    if isinstance(value, Binary):
        number = value.args[1]
        return value.op in _CHANGING and isinstance(number, Const) and not (value.op is Op.ADD and number.number & 1)
    return isinstance(value, Extend)


def _is_long(instr: Instr, value: Const) -> bool:
    if isinstance(instr, ssa.Store | ssa.ContextStore):
        return value.number >> 8 * instr.size > 0
    return isinstance(instr, Binary) and (value.number > M32 if instr.width == 32 else not _fits(value.number))


# What is asked for


def asked_bits(function: Function) -> dict[Value, int]:
    """The bits of each value that some store, test, call or return may see; none of a value that is not there."""
    asked: dict[Value, int] = {}
    handed: dict[Value, list[Value]] = {}
    todo: list[Value] = []

    def ask(value: Value, bits: int) -> None:
        if isinstance(value, Leaf):
            return
        before = asked.get(value, 0)
        if bits & ~before:
            asked[value] = before | bits
            todo.append(value)

    for block in function.blocks:
        for instr in block.instructions():
            if not isinstance(instr, COMPUTED):
                for index, value in enumerate(instr.args):
                    ask(value, bits_seen(instr, index, M64))
        for edge in block.terminator.edges():
            for param, value in zip(edge.block.params, edge.args, strict=True):
                handed.setdefault(param, []).append(value)
    while todo:
        value = todo.pop()
        bits = asked[value]
        if isinstance(value, COMPUTED):
            for index, arg in enumerate(value.args):
                ask(arg, bits_seen(value, index, bits))
        elif isinstance(value, Param):
            for arg in handed.get(value, ()):
                ask(arg, bits)
    return asked


def _up_to(bits: int) -> int:
    """The highest of the bits, and all below."""
    return (1 << bits.bit_length()) - 1


def bits_seen(instr: Instr, index: int, asked: int) -> int:
    """The bits of an operand that the asked bits of the result depend on."""
    match instr:
        case Binary():
            return _seen_by_binary(instr, index, asked)
        case Extend(bits=bits):
            sign = 1 << bits - 1 if instr.signed and asked >> bits else 0
            return asked & ((1 << bits) - 1) | sign
        case ByteOrder(op=op, bits=bits):
            return byte_order(op, bits, asked)
        case Compare(width=32) | Branch(width=32):
            return M32
        case ssa.Store(size=size) | ssa.ContextStore(size=size) | ssa.Atomic(size=size) if index:
            return (1 << 8 * size) - 1
    return M64


def _seen_by_binary(instr: Binary, index: int, asked: int) -> int:
    all_bits = M64 if instr.width == 64 else M32
    asked &= all_bits
    other = instr.args[1 - index]
    if instr.op in _BITWISE:
        number = other.number if isinstance(other, Const) else None
        if number is None or instr.op is Op.XOR:
            return asked
        return asked & (number if instr.op is Op.AND else ~number)
    if instr.op in RING:
        return _up_to(asked)
    if index == 0 and isinstance(other, Const):
        count = other.number & (instr.width - 1)
        if instr.op is Op.LSH:
            return asked >> count
        if instr.op is Op.RSH:
            return asked << count & all_bits
        if instr.op is Op.ARSH:
            sign = 1 << instr.width - 1 if asked >> instr.width - 1 - count else 0
            return asked << count & all_bits | sign
    return all_bits


# What is taken out


def _drop_from(instr: Instr, index: int, asked: dict[Value, int], uses: Uses) -> bool:
    value, bits = instr.args[index], asked.get(instr, 0)
    if isinstance(instr, COMPUTED) and not bits:
        return False
    if isinstance(value, Const):
        return _shorten(instr, index, value, bits, uses)
    new = _stripped(value, bits_seen(instr, index, bits))
    if new is value or not _may_take(instr, value, uses):
        return False
    instr.args[index] = new
    return True


def _drop_from_edge(edge: Edge, index: int, asked: dict[Value, int], uses: Uses) -> bool:
    value, param = edge.args[index], edge.block.params[index]
    bits = asked.get(param, 0)
    if not bits or uses.needs_bounds(param):
        return False
    if isinstance(value, Const):
        edge.args[index] = const(_fitting((value.number & bits, value.number | ~bits & M64), value.number))
    else:
        edge.args[index] = _stripped(value, bits)
    return edge.args[index] != value


def _may_take(instr: Instr, value: Value, uses: Uses) -> bool:
    """Whether the verifier loses nothing when `instr` takes another value than this operand."""
    if isinstance(instr, Compare | Branch):
        return uses.only_tested(value)
    return not (isinstance(instr, COMPUTED) and uses.needs_bounds(instr) and uses.tested(value))


def _stripped(value: Value, bits: int) -> Value:
    """A value with the same bits, in front of what changes others alone."""
    while True:
        match value:
            case Extend(bits=kept) if not bits >> kept:
                value = value.args[0]
            case Binary(args=[inner, Const(number)], width=width) if not bits >> width and _keeps(value, number, bits):
                value = inner
            case _:
                return value


def _keeps(instr: Binary, number: int, bits: int) -> bool:
    """Whether the operation with this number changes none of the bits."""
    match instr.op:
        case Op.AND:
            return not bits & ~number
        case Op.OR | Op.XOR:
            return not bits & number
        case Op.ADD:
            return not _up_to(bits) & number
    return False


# Numbers


def _shorten(instr: Instr, index: int, value: Const, asked: int, uses: Uses) -> bool:
    """Give the instruction a number that it can have in itself, or that has no bits beyond what is stored."""
    number = value.number
    match instr:
        case ssa.Store(size=size) | ssa.ContextStore(size=size) if index == 1:
            new = number & ((1 << 8 * size) - 1)
        case Binary(width=32):
            new = number & M32
        case Binary(op=op) if not _fits(number) and (op in _BITWISE or op in RING):
            seen = asked if op in _BITWISE else _up_to(asked)
            choices = (number & seen,) if uses.needs_bounds(instr) else (number & seen, number | ~seen & M64)
            new = _fitting(choices, number)
        case _:
            return False
    if new == number:
        return False
    instr.args[index] = const(new)
    return True


def _fits(number: int) -> bool:
    return -(1 << 31) <= signed(number, 64) < 1 << 31


def _fitting(choices: tuple[int, ...], number: int) -> int:
    """The first choice that fits into an instruction; the number itself where none does."""
    return next((each for each in choices if _fits(each)), number)
