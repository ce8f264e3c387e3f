"""Replaces instructions by simpler ones that give the same value: folding, and the rules.

Contract: looks at one instruction and its operands at a time, in an order in which operands come first; loads, stores
and calls stay. An instruction that nobody uses any more is left for `dce`.
"""

from __future__ import annotations

from functools import singledispatch

from bpflisp.ir import ssa
from bpflisp.ir.dataflow import reverse_postorder
from bpflisp.ir.ssa import Binary, Compare, Const, Extend, Function, Instr, Value, const
from bpflisp.opt.comparisons import simplify_branch, simplify_compare
from bpflisp.opt.rewriting import Context, kind_of, rewrite, shaped
from bpflisp.opt.rules import COMMUTATIVE, Form
from bpflisp.opt.uses import Uses
from bpflisp.spec.alu import compute


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
            result = _simplified(instr, context)
            if result is None:
                body.append(instr)
            else:
                replaced[instr] = result
                changed = True
        end = block.terminator
        ssa.replace_operands(end, {v: _final(replaced, v) for v in ssa.operands(end) if v in replaced})
        changed |= simplify_branch(end, context)
        block.body = body
    ssa.replace_values(function, replaced)
    return changed


def _final(replaced: dict[Value, Value], value: Value) -> Value:
    while value in replaced:
        value = replaced[value]
    return value


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
    return _rewritten(instr, context)


@_simplified.register(Extend)
@_simplified.register(ssa.ByteOrder)
def _(instr: Extend | ssa.ByteOrder, context: Context) -> Value | None:
    value = instr.args[0]
    if isinstance(value, Const):
        kind = kind_of(instr)
        assert isinstance(kind, Form)
        return const(shaped(kind, instr.bits, value.number))
    return _rewritten(instr, context)


@_simplified.register
def _(instr: Compare, context: Context) -> Value | None:
    known = simplify_compare(instr, context)
    return _rewritten(instr, context) if known is None else known


def _rewritten(instr: Instr, context: Context) -> Value | None:
    found = rewrite(instr, context)
    return found[0] if found else None
