"""Uses the number in place of a value, behind the test that found it equal to that number.

Contract: only where a number costs no more than the value does: arithmetic, extensions and comparisons that are folded
then, or have it as immediate, and what stores write. What is handed to calls, to blocks or to the caller stays the
value, which is in a register already. Addresses stay what they are.
"""

from __future__ import annotations

from bpflisp.ir import ssa
from bpflisp.ir.addresses import points
from bpflisp.ir.ssa import Binary, Branch, ByteOrder, Compare, Const, Extend, Function, Instr, Value
from bpflisp.opt.facts import greatest
from bpflisp.opt.threading import Test, conditions
from bpflisp.spec.alu import M32, signed
from bpflisp.spec.isa import Op

_TAKING = (Binary, Compare, Branch, Extend, ByteOrder, ssa.Store)


def use_numbers(function: Function) -> bool:
    """Every block by the tests that hold there. Says whether an operand was replaced."""
    if not _is_used_besides(function):
        return False
    changed = False
    for block, tests in conditions(function).items():
        equal = dict(pair for pair in map(_equality, tests) if pair is not None)
        if equal:
            for instr in block.instructions():
                changed |= _replace_in(instr, equal)
    return changed


def _is_used_besides(function: Function) -> bool:
    """Whether what a branch compares with a number is used by another instruction that may take the number."""
    ends = (block.end for block in function.blocks if isinstance(block.end, Branch))
    compared = {end.args[0] for end in ends if end.op in (Op.EQ, Op.NE) and isinstance(end.args[1], Const)}
    return any(
        value in compared and not (isinstance(instr, Branch | ssa.Store) and index == 0) and not points(value)
        for instr in function.instructions()
        if isinstance(instr, _TAKING)
        for index, value in enumerate(instr.args)
    )


def _equality(test: Test) -> tuple[Value, Const] | None:
    """The value and the number that it is, if the test says so. One of the low half says it of what has no other."""
    op, width, left, right = test
    if op is not Op.EQ or not isinstance(right, Const) or points(left):
        return None
    return None if width == 32 and (greatest(left) > M32 or right.number > M32) else (left, right)


def _replace_in(instr: Instr, equal: dict[Value, Const]) -> bool:
    changed = False
    for index, value in enumerate(instr.args):
        number = equal.get(value)
        if number is not None and _costs_nothing(instr, index, number):
            instr.args[index] = number
            changed = True
    return changed


def _costs_nothing(instr: Instr, index: int, number: Const) -> bool:
    fits = -(1 << 31) <= signed(number.number, 64) < 1 << 31
    match instr:
        case Extend() | ByteOrder():
            return True
        case Binary() | Compare() | Branch():
            return isinstance(instr.args[1 - index], Const) or (index == 1 and fits)
        case ssa.Store(core=None):
            return index == 1 and fits
    return False
