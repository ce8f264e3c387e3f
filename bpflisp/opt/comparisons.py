"""Simplifies comparisons, as values and as what a branch tests.

Contract: the new comparison holds exactly where the old one does. Comparisons of two addresses keep their operands,
since the kernel learns the packet's length from them; and so do those of a value that is used besides, whose bounds the
kernel learns from them.
"""

from __future__ import annotations

from bpflisp.ir import ssa
from bpflisp.ir.addresses import REACH, Space, points, root, space
from bpflisp.ir.ssa import Binary, Branch, ByteOrder, Compare, Const, Edge, Extend, Instr, Jump, Leaf, Value, const
from bpflisp.opt.facts import greatest
from bpflisp.opt.rewriting import Bindings, constants_of, evaluate, match
from bpflisp.opt.rules import TEST_RULES, VARIABLES, Constants, Pattern
from bpflisp.opt.uses import Uses
from bpflisp.spec.alu import M32, byte_order, compare
from bpflisp.spec.isa import Op

SWAPPED = {
    Op.EQ: Op.EQ, Op.NE: Op.NE, Op.SET: Op.SET, Op.GT: Op.LT, Op.LT: Op.GT, Op.GE: Op.LE, Op.LE: Op.GE,
    Op.SGT: Op.SLT, Op.SLT: Op.SGT, Op.SGE: Op.SLE, Op.SLE: Op.SGE,
}  # fmt: skip
INVERSE = {
    Op.EQ: Op.NE, Op.NE: Op.EQ, Op.GT: Op.LE, Op.LE: Op.GT, Op.GE: Op.LT, Op.LT: Op.GE,
    Op.SGT: Op.SLE, Op.SLE: Op.SGT, Op.SGE: Op.SLT, Op.SLT: Op.SGE,
}  # fmt: skip
UNSIGNED = frozenset({Op.EQ, Op.NE, Op.GT, Op.GE, Op.LT, Op.LE, Op.SET})
_SIGNED_TO_UNSIGNED = {Op.SGT: Op.GT, Op.SGE: Op.GE, Op.SLT: Op.LT, Op.SLE: Op.LE}


def simplify_compare(instr: Compare, uses: Uses, before: list[Instr]) -> Value | None:
    """A constant, or another value, that stands for the comparison; it may change the comparison itself too."""
    _simplify_test(instr, uses, before)
    known = _outcome(instr)
    if known is not None:
        return const(int(known))
    left, right = instr.args
    if instr.op is Op.NE and right == const(0) and instr.width == 64 and greatest(left) <= 1:
        return left
    if inner := _inner_comparison(instr):
        instr.op, instr.width, instr.args = inner
    return None


def simplify_branch(end: Instr, uses: Uses, before: list[Instr]) -> bool:
    """Simplify what a branch tests. Says whether anything changed; a known outcome is left to `cfg`."""
    if not isinstance(end, Branch):
        return False
    old = (end.op, end.width, list(end.args))
    if inner := _inner_comparison(end):
        end.op, end.width, end.args = inner
    _simplify_test(end, uses, before)
    _mask_test(end, uses)
    return old != (end.op, end.width, list(end.args))


def known_outcome(end: Branch) -> bool | None:
    """Whether the branch is always taken (True), never (False), or neither is known."""
    return _outcome(end)


def _inner_comparison(test: Compare | Branch) -> tuple[Op, int, list[Value]] | None:
    """`cmp != 0`, `cmp == 1` test what cmp compares; `cmp == 0`, `cmp != 1` its inverse."""
    left, right = test.args
    if not isinstance(left, Compare) or not isinstance(right, Const) or right.number > 1:
        return None
    positive = (test.op is Op.NE and right.number == 0) or (test.op is Op.EQ and right.number == 1)
    negative = (test.op is Op.EQ and right.number == 0) or (test.op is Op.NE and right.number == 1)
    if positive:
        return left.op, left.width, list(left.args)
    if negative and left.op in INVERSE:
        return INVERSE[left.op], left.width, list(left.args)
    return None


def _outcome(test: Compare | Branch) -> bool | None:
    left, right = test.args
    if isinstance(left, Const) and isinstance(right, Const):
        return compare(test.op, test.width, left.number, right.number)
    if left == right and test.op is not Op.SET:
        return compare(test.op, test.width, 0, 0)
    if right == const(0) and test.width == 64 and test.op in (Op.EQ, Op.NE, Op.GT, Op.LE) and _is_not_null(left):
        return test.op in (Op.NE, Op.GT)
    # A test whose outcome we know and the verifier does not is what gives it the bound.
    top = greatest(left, provable=True)
    if test.op in UNSIGNED and isinstance(right, Const) and top < 1 << test.width:
        return _outcome_by_bound(test.op, top, right.number & ((1 << test.width) - 1))
    return None


def _is_not_null(value: Value) -> bool:
    """Whether the value is an address that is never 0: of the packet or of what has a fixed place, plus a bit."""
    base, distance = root(value)
    fixed = isinstance(base, Leaf) and not isinstance(base, Const | ssa.TypeRef)
    return distance is not None and 0 <= distance <= REACH and (fixed or space(base) is Space.PACKET)


def _outcome_by_bound(op: Op, top: int, number: int) -> bool | None:
    """The outcome of `x op number` for x from 0 to `top`, if it is one for all."""
    match op:
        case Op.LT | Op.LE:
            outcomes = {compare(op, 64, 0, number), compare(op, 64, top, number)}
            return outcomes.pop() if len(outcomes) == 1 else None
        case Op.GT | Op.GE:
            outcomes = {compare(op, 64, 0, number), compare(op, 64, top, number)}
            return outcomes.pop() if len(outcomes) == 1 else None
        case Op.EQ if number > top:
            return False
        case Op.NE if number > top:
            return True
        case Op.SET if number & ((1 << top.bit_length()) - 1) == 0:
            return False
    return None


def _simplify_test(test: Compare | Branch, uses: Uses, before: list[Instr]) -> None:
    """Apply each simplification once; the pipeline comes again."""
    if isinstance(test.args[0], Const) and not isinstance(test.args[1], Const):
        test.op = SWAPPED[test.op]
        test.args.reverse()
    if any(points(arg) for arg in test.args):
        return
    _drop_sign(test)
    _drop_extensions(test, uses)
    if isinstance(test.args[1], Const):
        _swap_constant(test, uses, before)
    _by_rules(test, uses)


def _drop_sign(test: Compare | Branch) -> None:
    """Numbers below half the range compare alike with and without sign."""
    half = 1 << (test.width - 1)
    if test.op in _SIGNED_TO_UNSIGNED and all(greatest(arg) < half for arg in test.args):
        test.op = _SIGNED_TO_UNSIGNED[test.op]


def _drop_extensions(test: Compare | Branch, uses: Uses) -> None:
    """Comparing zero-extended halves is comparing the halves."""
    if any(_extends(arg) and not uses.only_tested(arg) for arg in test.args):
        return
    halves = [_half(arg) for arg in test.args]
    if test.width == 64 and test.op in UNSIGNED and any(_extends(arg) for arg in test.args) and None not in halves:
        test.args = [half for half in halves if half is not None]
        test.width = 32


def _extends(value: Value) -> bool:
    return isinstance(value, Extend) and value.bits == 32 and not value.signed


def _half(value: Value) -> Value | None:
    """A value whose low half is the given one, which has no high half; None where it may have one."""
    if _extends(value) and isinstance(value, Extend):
        return value.args[0]
    return value if greatest(value, provable=True) <= M32 else None


def _swap_constant(test: Compare | Branch, uses: Uses, before: list[Instr]) -> None:
    """`swap x == c` is `x == swap c`, in the bits that the swap looks at; also under a mask."""
    left, right = test.args
    assert isinstance(right, Const)
    mask: Const | None = None
    swapped = left
    if isinstance(left, Binary) and left.op is Op.AND and isinstance(left.args[1], Const) and uses.single(left):
        swapped, mask = left.args[0], left.args[1]
    number = right.number & ((1 << test.width) - 1)
    fitting = isinstance(swapped, ByteOrder) and swapped.op is not Op.TO_LE
    if not fitting or not isinstance(swapped, ByteOrder) or test.op not in (Op.EQ, Op.NE, Op.SET):
        return
    if not uses.only_tested(left):
        return
    bits = swapped.bits
    if number >> bits or (test.width == 32 and bits == 64):
        return
    value, turned = swapped.args[0], byte_order(Op.TO_BE, bits, number)
    if bits == 64 and not -(1 << 31) <= turned < 1 << 31:
        return
    if mask is not None:
        picked = byte_order(Op.TO_BE, bits, mask.number & ((1 << bits) - 1))
        value = _append(before, Binary(args=[value, const(picked)], op=Op.AND, position=left_position(left)))
    elif bits == 16 and any(greatest(each) >> bits for each in uses.stands_for(value)):
        value = _append(before, Extend(args=[value], bits=16, position=left_position(left)))
    test.args = [value, const(turned)]
    narrow = all(greatest(each) <= M32 for each in uses.stands_for(value))
    test.width = 64 if bits == 64 or narrow else 32


def left_position(value: Value) -> ssa.Position | None:
    """Where the value comes from, if it is an instruction."""
    return value.position if isinstance(value, Instr) else None


def _append(before: list[Instr], instr: Instr) -> Instr:
    before.append(instr)
    return instr


def _by_rules(test: Compare | Branch, uses: Uses) -> None:
    """Apply the first of the rules for comparisons that fits."""
    for rule in TEST_RULES:
        bindings: Bindings = {}
        if test.op is not rule.test[0] or not all(
            match(pattern, arg, test.width, bindings) for pattern, arg in zip(rule.test[1:], test.args, strict=True)
        ):
            continue
        inner = isinstance(rule.test[1], tuple)
        if inner and not uses.only_tested(test.args[0]):
            continue
        if rule.weaker and uses.needs_bounds(test.args[0]):
            continue
        constants = constants_of(bindings, test.width)
        if rule.when(constants, test.width):
            test.op = rule.result[0]
            test.args = [_compared(pattern, bindings, constants, test.width) for pattern in rule.result[1:]]
            return


def _compared(pattern: Pattern, bindings: Bindings, constants: Constants, width: int) -> Value:
    """A variable, or a number."""
    if isinstance(pattern, str) and pattern in VARIABLES:
        return bindings[pattern]
    number = evaluate(pattern, constants, width)
    assert number is not None
    return const(number)


def _mask_test(end: Branch, uses: Uses) -> None:
    """`x & m != 0` is one test of bits; `x & m == 0` the same with its ways exchanged."""
    left, right = end.args
    fitting = isinstance(left, Binary) and left.op is Op.AND and left.width >= end.width and uses.single(left)
    if not fitting or not isinstance(left, Binary) or end.op not in (Op.EQ, Op.NE) or not isinstance(right, Const):
        return
    mask = left.args[1]
    if not isinstance(mask, Const) or not -(1 << 31) <= _signed(mask.number) < 1 << 31:
        return
    number = right.number & ((1 << end.width) - 1)
    one_bit = number == mask.number and number.bit_count() == 1
    if number == 0 or one_bit:
        if (end.op is Op.EQ) != one_bit:
            end.then, end.other = end.other, end.then
        end.op, end.args = Op.SET, [left.args[0], mask]


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def jump_instead(end: Branch, taken: bool) -> Jump:
    """The jump that a branch of known outcome is."""
    edge: Edge = end.then if taken else end.other
    return Jump(to=edge, position=end.position)
