"""Simplifies comparisons, as values and as what a branch tests.

Contract: the new comparison holds exactly where the old one does. Comparisons of two addresses keep their operands,
since the kernel learns the packet's length from them; and so do those of a value that is used besides, whose bounds the
kernel learns from them.
"""

from __future__ import annotations

from bpflisp.ir import ssa
from bpflisp.ir.addresses import REACH, Space, points, root, space
from bpflisp.ir.ssa import Branch, Compare, Const, Edge, Instr, Jump, Leaf, Value, const
from bpflisp.opt.facts import greatest
from bpflisp.opt.rewriting import Context, Found, bind, build, kind_of, test_rules_for
from bpflisp.opt.rules import SWAPPED, UNSIGNED, Constants, TestRule, Width
from bpflisp.spec.alu import compare
from bpflisp.spec.isa import Op


def simplify_compare(instr: Compare, context: Context) -> Value | None:
    """A constant that stands for the comparison, if its outcome is known; it may change the comparison itself too."""
    _simplify_test(instr, context)
    known = _outcome(instr)
    return None if known is None else const(int(known))


def simplify_branch(end: Instr, context: Context) -> bool:
    """Simplify what a branch tests. Says whether anything changed; a known outcome is left to `cfg`."""
    return isinstance(end, Branch) and _simplify_test(end, context)


def known_outcome(end: Branch) -> bool | None:
    """Whether the branch is always taken (True), never (False), or neither is known."""
    return _outcome(end)


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


_STEPS = 8
"""So many rules may follow each other at one comparison; more wait for the next round."""


def _simplify_test(test: Compare | Branch, context: Context) -> bool:
    """Put a constant to the right, and apply rules. Says whether anything changed."""
    changed = False
    if isinstance(test.args[0], Const) and not isinstance(test.args[1], Const):
        test.op = SWAPPED[test.op]
        test.args.reverse()
        changed = True
    for _ in range(_STEPS):
        if rewrite_test(test, context) is None:
            break
        changed = True
    return changed


def rewrite_test(test: Compare | Branch, context: Context) -> str | None:
    """Apply the first of the rules that fits, and give its name; None where there is none."""
    if any(points(arg) for arg in test.args):
        return None
    for rule in test_rules_for(test.op, kind_of(test.args[0])):
        if rule.inverted and not isinstance(test, Branch):
            continue
        found = bind(rule, test, test.args, test.width, context)
        if found is not None and _allowed(rule, test, context):
            _apply(rule, test, *found, context)
            return rule.name
    return None


def _allowed(rule: TestRule, test: Compare | Branch, context: Context) -> bool:
    parts = zip(rule.test[1:], test.args, strict=True)
    if not rule.shared and not all(context.uses.only_tested(arg) for part, arg in parts if isinstance(part, tuple)):
        return False
    return not (rule.weaker and context.uses.needs_bounds(test.args[0]))


def _apply(rule: TestRule, test: Compare | Branch, found: Found, constants: Constants, context: Context) -> None:
    op, *parts = rule.result
    args = [build(part, test.width, found, constants, context, test.position) for part in parts]
    test.width = {Width.SAME: test.width, Width.HALF: 32, Width.INNER: found.inner_width}[rule.width]
    test.op, test.args = op, args
    if rule.inverted:
        assert isinstance(test, Branch)
        test.then, test.other = test.other, test.then


def jump_instead(end: Branch, taken: bool) -> Jump:
    """The jump that a branch of known outcome is."""
    edge: Edge = end.then if taken else end.other
    return Jump(to=edge, position=end.position)
