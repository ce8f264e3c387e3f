"""Replaces instructions by simpler ones that give the same value: folding, the rules, known bounds, unneeded bits.

Contract: looks at one instruction and its operands at a time, in an order in which operands come first; loads, stores
and calls stay, but for the value that a store takes. An instruction that nobody uses any more is left for `dce`.
"""

from __future__ import annotations

from functools import singledispatch

from bpflisp.ir import ssa
from bpflisp.ir.addresses import points
from bpflisp.ir.dataflow import reverse_postorder
from bpflisp.ir.ssa import Binary, Const, Extend, Function, Instr, Value, const
from bpflisp.opt.comparisons import simplify_branch, simplify_compare
from bpflisp.opt.facts import greatest
from bpflisp.opt.rewriting import rewrite
from bpflisp.opt.uses import Uses
from bpflisp.spec.alu import M32, byte_order, compute, signed
from bpflisp.spec.isa import Op

COMMUTATIVE = frozenset({Op.ADD, Op.MUL, Op.AND, Op.OR, Op.XOR})
_RING = frozenset({Op.ADD, Op.SUB, Op.MUL, Op.AND, Op.OR, Op.XOR})
"""Operations whose low bits depend on the operands' low bits alone."""


class Context:
    """What a simplification may ask (who uses a value) and where it puts new instructions."""

    def __init__(self, uses: Uses) -> None:
        self.uses = uses
        self.before: list[Instr] = []

    def greatest(self, value: Value, result: Value) -> int:
        """A bound of `value`, by which `result`, another form of it, may be replaced by it."""
        provable = self.uses.needs_bounds(result)
        return max(greatest(each, provable) for each in self.uses.stands_for(value))


def simplify(function: Function) -> bool:
    """One walk over the function. Says whether anything changed."""
    context = Context(Uses(function))
    replaced: dict[Value, Value] = {}
    changed = False
    for block in reverse_postorder(function):
        body: list[Instr] = []
        context.before = body
        for instr in block.body:
            ssa.replace_operands(instr, {v: _final(replaced, v) for v in instr.args if v in replaced})
            changed |= _strip_operands(instr)
            result = _simplified(instr, context)
            if result is None:
                body.append(instr)
            else:
                replaced[instr] = result
                changed = True
        end = block.terminator
        ssa.replace_operands(end, {v: _final(replaced, v) for v in ssa.operands(end) if v in replaced})
        changed |= simplify_branch(end, context.uses, body)
        block.body = body
    ssa.replace_values(function, replaced)
    return changed


def _final(replaced: dict[Value, Value], value: Value) -> Value:
    while value in replaced:
        value = replaced[value]
    return value


# Bits that an operand need not have


def strip(value: Value, bits: int) -> Value:
    """A value with the same low `bits` bits, in front of extensions and masks that touch the others alone."""
    mask = (1 << bits) - 1
    while True:
        match value:
            case Extend(bits=kept) if kept >= bits:
                value = value.args[0]
            case Binary(op=Op.AND, args=[inner, Const(number)]) if number & mask == mask and bits <= value.width:
                value = inner
            case Const(number):
                return const(number & mask)
            case _:
                return value


def _strip_operands(instr: Instr) -> bool:
    """Let the instruction take its operands without what it ignores. Says whether anything changed."""
    match instr:
        case ssa.Store(size=size) | ssa.ContextStore(size=size):
            new = [instr.args[0], strip(instr.args[1], size * 8)]
        case ssa.ByteOrder(bits=bits) | Extend(bits=bits):
            new = [strip(instr.args[0], bits)]
        case Binary(width=32):
            new = [strip(arg, 32) for arg in instr.args]
        case _:
            return False
    if new == instr.args:
        return False
    instr.args[:] = new
    return True


# Instructions


@singledispatch
def _simplified(instr: Instr, context: Context) -> Value | None:
    """What stands for the instruction; None where it stays."""
    return None


@_simplified.register
def _(instr: Binary, context: Context) -> Value | None:
    left, right = instr.args
    if isinstance(left, Const):
        if isinstance(right, Const):
            return const(compute(instr.op, instr.width, left.number, right.number))
        if instr.op in COMMUTATIVE:
            instr.args[:] = [right, left]
    if found := rewrite(instr, context.before, context.uses):
        return found[0]
    return _and_to_extension(instr, context)


def _and_to_extension(instr: Binary, context: Context) -> Value | None:
    """A mask of the low bits is an extension, and none where the operand has no others."""
    if instr.op is not Op.AND or not isinstance(instr.args[1], Const):
        return None
    mask = instr.args[1].number & ((1 << instr.width) - 1)
    value = instr.args[0]
    if mask & (mask + 1) == 0 and context.greatest(value, instr) <= mask:
        return value
    if (inverted := _masked_inversion(instr, value, mask, context)) is not None:
        return inverted
    if mask in (0xFF, 0xFFFF, M32):
        extended = Extend(args=[value], bits=mask.bit_length(), position=instr.position)
        context.before.append(extended)
        return extended
    return None


def _masked_inversion(instr: Binary, value: Value, mask: int, context: Context) -> Value | None:
    """`(x ^ a) & m` is `x ^ (a & m)` where x has no bits outside m: a complement of so many bits."""
    fitting = isinstance(value, Binary) and value.op is Op.XOR and value.width == instr.width
    if not fitting or not isinstance(value, Binary) or context.uses.needs_bounds(instr) or mask >> 31:
        return None
    inner, flipped = value.args
    bits = (1 << greatest(inner).bit_length()) - 1
    if not isinstance(flipped, Const) or bits & ~mask or not context.uses.single(value):
        return None
    inverted = Binary(args=[inner, const(flipped.number & mask)], op=Op.XOR, width=instr.width, position=instr.position)
    context.before.append(inverted)
    return inverted


@_simplified.register
def _(instr: Extend, context: Context) -> Value | None:
    value = instr.args[0]
    if isinstance(value, Const):
        number = value.number & ((1 << instr.bits) - 1)
        return const(signed(number, instr.bits) if instr.signed else number)
    limit = (1 << (instr.bits - instr.signed)) - 1
    if context.greatest(value, instr) <= limit:
        return value
    if isinstance(value, Extend) and value.signed and instr.signed and value.bits <= instr.bits:
        return value
    return _narrowed(instr, value, context)


def _narrowed(instr: Extend, value: Value, context: Context) -> Value | None:
    """The low half of 64-bit arithmetic is 32-bit arithmetic, which zero-extends by itself. Not on addresses: the
    kernel refuses narrow arithmetic on them.
    """
    fitting = instr.bits == 32 and not instr.signed and isinstance(value, Binary) and context.uses.single(value)
    if not fitting or not isinstance(value, Binary) or value.width != 64 or value.op not in _RING:
        return None
    if any(points(arg) for arg in value.args):
        return None
    narrow = Binary(args=list(value.args), op=value.op, width=32, position=instr.position)
    context.before.append(narrow)
    return narrow


@_simplified.register
def _(instr: ssa.ByteOrder, context: Context) -> Value | None:
    value = instr.args[0]
    if isinstance(value, Const):
        return const(byte_order(instr.op, instr.bits, value.number))
    if instr.op is Op.TO_LE or (
        isinstance(value, ssa.ByteOrder) and value.bits == instr.bits and value.op is not Op.TO_LE
    ):
        inner = value if instr.op is Op.TO_LE else value.args[0] if isinstance(value, ssa.ByteOrder) else value
        if instr.bits == 64:
            return inner
        if instr.bits == 32 or instr.bits == 16:
            extended = Extend(args=[inner], bits=instr.bits, position=instr.position)
            context.before.append(extended)
            return extended
    return None


@_simplified.register
def _(instr: ssa.Compare, context: Context) -> Value | None:
    return simplify_compare(instr, context.uses, context.before)
