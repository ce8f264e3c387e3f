"""Rewrites what the target has no instruction for, in the intermediate form, before selection.

Afterwards: no `Compare` (it became a branch); no sign-extending load, extension or signed division below v4; no 32-bit
arithmetic and comparison below v3; no byte swap but TO_BE below v4; only comparisons that the target branches on.
The function is changed in place.
"""

from __future__ import annotations

from dataclasses import replace

from bpflisp.back.machine import BackError
from bpflisp.back.target import Target
from bpflisp.ir import ssa
from bpflisp.ir.ssa import Binary, Block, Branch, Compare, Edge, Extend, Function, Instr, Param, Value, const
from bpflisp.spec.isa import Op

SIGNED_COMPARISONS = frozenset({Op.SGT, Op.SGE, Op.SLT, Op.SLE})
INVERSE = {
    Op.EQ: Op.NE, Op.NE: Op.EQ, Op.GT: Op.LE, Op.LE: Op.GT, Op.GE: Op.LT, Op.LT: Op.GE,
    Op.SGT: Op.SLE, Op.SLE: Op.SGT, Op.SGE: Op.SLT, Op.SLT: Op.SGE,
}  # fmt: skip
"""A comparison -> the one that holds where it does not. SET has none."""


def legalise(function: Function, target: Target) -> None:
    """See the module's docstring. Raises BackError for what the target cannot express at all."""
    _expand_compares(function)
    replaced: dict[Value, Value] = {}
    for block in function.blocks:
        body: list[Instr] = []
        for instr in block.body:
            ssa.replace_operands(instr, {v: replaced[v] for v in instr.args if v in replaced})
            expansion = _Expansion(body, instr.position, target)
            result = _expand(instr, expansion)
            if result is not instr:
                replaced[instr] = result
        expansion = _Expansion(body, block.terminator.position, target)
        if isinstance(block.end, Branch):
            _legalise_branch(block.end, expansion)
        block.body = body
    ssa.replace_values(function, replaced)


def _expand_compares(function: Function) -> None:
    """`%c = cmp op a, b` becomes a branch to the rest of the block, which takes 1 or 0 as parameter."""
    todo = list(function.blocks)
    for block in todo:
        for index, instr in enumerate(block.body):
            if isinstance(instr, Compare):
                rest = Block(body=block.body[index + 1 :], end=block.end, name=block.name)
                result = Param("truth")
                rest.params = [result]
                block.body = block.body[:index]
                then, other = Edge(rest, [const(1)]), Edge(rest, [const(0)])
                block.end = Branch(
                    args=instr.args, op=instr.op, width=instr.width, then=then, other=other, position=instr.position
                )
                function.blocks.insert(function.blocks.index(block) + 1, rest)
                ssa.replace_values(function, {instr: result})
                todo.append(rest)
                break


class _Expansion:
    """Appends instructions that have the position of the one that they stand for."""

    def __init__(self, body: list[Instr], position: ssa.Position | None, target: Target) -> None:
        self.body = body
        self.position = position
        self.target = target

    def emit(self, instr: Instr) -> Value:
        instr.position = self.position
        self.body.append(instr)
        return instr

    def binary(self, op: Op, left: Value, right: Value) -> Value:
        return self.emit(Binary(args=[left, right], op=op))

    def extend(self, value: Value, bits: int, signed: bool) -> Value:
        """The low bits, extended; by an instruction where the target has one, else by two shifts."""
        if isinstance(value, ssa.Const):
            sign = bits_sign(value.number, bits) if signed else 0
            return const((value.number & ((1 << bits) - 1)) | sign)
        if (signed and self.target.sign_extension) or (not signed and (bits < 32 or self.target.alu32)):
            return self.emit(Extend(args=[value], bits=bits, signed=signed))
        shifted = self.binary(Op.LSH, value, const(64 - bits))
        return self.binary(Op.ARSH if signed else Op.RSH, shifted, const(64 - bits))


def bits_sign(number: int, bits: int) -> int:
    """The bits above `bits` that sign extension sets."""
    return -1 << bits if number >> (bits - 1) & 1 else 0


def _expand(instr: Instr, to: _Expansion) -> Value:
    """Append what stands for the instruction; gives the value that stands for its result."""
    target = to.target
    match instr:
        case ssa.Load(signed=True) | ssa.ContextLoad(signed=True) if instr.size == 8 or not target.sign_extension:
            # A new load: the old one's uses are to become uses of the extension, and the extension's own must not.
            plain = to.emit(replace(instr, signed=False, args=list(instr.args)))
            return to.extend(plain, instr.size * 8, signed=True) if instr.size < 8 else plain
        case Extend():
            return to.extend(instr.args[0], instr.bits, instr.signed)
        case ssa.ByteOrder(op=Op.TO_LE):
            return to.extend(instr.args[0], instr.bits, signed=False) if instr.bits < 64 else instr.args[0]
        case ssa.ByteOrder(op=Op.SWAP) if not target.sign_extension:
            instr.op = Op.TO_BE
        case Binary(args=[left, ssa.Const(number)]) if _is_refused(instr, number):
            return _without_constant(instr, left, number, to)
        case Binary(op=Op.SDIV | Op.SMOD) if not target.sign_extension:
            return _divide_signed(instr, to)
        case Binary(width=32) if not target.alu32:
            return _widen(instr, to)
        case ssa.Atomic() if target.version < 3 and (instr.op is not Op.ADD or instr.fetch):
            raise BackError("an atomic instruction other than a plain addition needs --mcpu v3", instr.position)
    to.body.append(instr)
    return instr


_DIVISIONS = frozenset({Op.DIV, Op.MOD, Op.SDIV, Op.SMOD})
_SHIFTS = frozenset({Op.LSH, Op.RSH, Op.ARSH})


def _is_refused(instr: Binary, number: int) -> bool:
    """Whether the kernel refuses this constant: a zero divisor, a shift by the width or more."""
    low = number & ((1 << instr.width) - 1)
    return (instr.op in _DIVISIONS and low == 0) or (instr.op in _SHIFTS and low >= instr.width)


def _without_constant(instr: Binary, left: Value, number: int, to: _Expansion) -> Value:
    """What the operation means with it: a quotient is 0, a remainder the dividend, a shift count has its low bits."""
    if instr.op in (Op.DIV, Op.SDIV):
        return const(0)
    if instr.op in (Op.MOD, Op.SMOD):
        return left if instr.width == 64 else to.extend(left, 32, signed=False)
    shifted = replace(instr, args=[left, const(number & (instr.width - 1))])
    return _expand(shifted, to)


def _widen(instr: Binary, to: _Expansion) -> Value:
    """32-bit arithmetic by 64-bit instructions; the operands are made fit where their high halves would matter."""
    left, right = instr.args
    op = instr.op
    if op in (Op.LSH, Op.RSH, Op.ARSH):
        right = const(right.number & 31) if isinstance(right, ssa.Const) else to.binary(Op.AND, right, const(31))
    if op in (Op.RSH, Op.DIV, Op.MOD):
        left = to.extend(left, 32, signed=False)
    if op in (Op.DIV, Op.MOD):
        right = to.extend(right, 32, signed=False)
    if op is Op.ARSH:
        left = to.extend(left, 32, signed=True)
    return to.extend(to.binary(op, left, right), 32, signed=False)


def _divide_signed(instr: Binary, to: _Expansion) -> Value:
    """Divide the magnitudes, then give the result its sign: `(x ^ s) - s` negates x where s is -1.

    Division by zero and of the least number by -1 come out as the instruction has them: 0/|b| keeps its zero, a
    remainder by zero is the dividend, and the magnitude of the least number is itself, as an unsigned number.
    """
    left, right = instr.args
    if instr.width == 32:
        left, right = to.extend(left, 32, signed=True), to.extend(right, 32, signed=True)
    left_sign, left_size = _magnitude(left, to)
    right_sign, right_size = _magnitude(right, to)
    if instr.op is Op.SDIV:
        sign = to.binary(Op.XOR, left_sign, right_sign)
        size = to.binary(Op.DIV, left_size, right_size)
    else:
        sign, size = left_sign, to.binary(Op.MOD, left_size, right_size)
    result = to.binary(Op.SUB, to.binary(Op.XOR, size, sign), sign)
    return to.extend(result, 32, signed=False) if instr.width == 32 else result


def _magnitude(value: Value, to: _Expansion) -> tuple[Value, Value]:
    sign = to.binary(Op.ARSH, value, const(63))
    return sign, to.binary(Op.SUB, to.binary(Op.XOR, value, sign), sign)


def _legalise_branch(branch: Branch, to: _Expansion) -> None:
    """Make the comparison one that the target has: widened, its outcome inverted."""
    if branch.width == 32 and not to.target.alu32:
        signed = branch.op in SIGNED_COMPARISONS
        branch.args = [to.extend(value, 32, signed) for value in branch.args]
        branch.width = 64
    if not to.target.compares(branch.op, branch.width):
        branch.op = INVERSE[branch.op]
        branch.then, branch.other = branch.other, branch.then
