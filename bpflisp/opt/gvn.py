"""Computes each pure value once: an instruction is replaced by an equal one that dominates it.

Contract: arithmetic, comparisons, extensions, byte swaps, and calls of helpers that always say the same; loads are the
affair of `forward`. What was computed from a number before a branch tested that number is computed anew behind it where
it may become part of an address: there the kernel knows its bounds.
"""

from __future__ import annotations

from collections.abc import Hashable

from bpflisp.ir import ssa
from bpflisp.ir.addresses import points
from bpflisp.ir.dataflow import children, immediate_dominators, predecessors
from bpflisp.ir.ssa import Block, Function, Instr, Value
from bpflisp.opt.effects import is_stable_call
from bpflisp.opt.rules import COMMUTATIVE
from bpflisp.opt.uses import Uses

COMPUTED = (ssa.Binary, ssa.Compare, ssa.Extend, ssa.ByteOrder)


_Known = dict[Hashable, tuple[Value, bool]]
"""What is computed -> the value that has it, and whether a branch since then tested a number that it comes from."""


def number_values(function: Function) -> bool:
    """Walk the dominator tree with a table of what has been computed. Says whether anything was replaced."""
    tree = children(immediate_dominators(function))
    incoming = predecessors(function)
    uses = Uses(function)
    replaced: dict[Value, Value] = {}
    stack: list[tuple[Block, _Known]] = [(function.entry, {})]
    while stack:
        block, known = stack.pop()
        known = dict(known)
        block.body = [instr for instr in block.body if not _replace(instr, known, uses, replaced)]
        tested = _tested(block)
        for child in tree[block]:
            alone = child in block.successors() and len(incoming[child]) == 1
            stack.append((child, _aged(known, tested) if alone and tested else known))
    ssa.replace_values(function, replaced)
    return bool(replaced)


def _replace(instr: Instr, known: _Known, uses: Uses, replaced: dict[Value, Value]) -> bool:
    """Whether an earlier value does for the instruction; if not, it is entered in the table."""
    ssa.replace_operands(instr, {v: replaced[v] for v in instr.args if v in replaced})
    key = _key(instr)
    if key is None:
        return False
    earlier, aged = known.get(key, (None, False))
    if earlier is None or (aged and uses.needs_bounds(instr)):
        known[key] = instr, False
        return False
    replaced[instr] = earlier
    return True


def _tested(block: Block) -> set[Value]:
    """The numbers that the block's branch tests."""
    end = block.end
    values = end.args if isinstance(end, ssa.Branch) else []
    return {value for value in values if not isinstance(value, ssa.Leaf) and not points(value)}


def _aged(known: _Known, tested: set[Value]) -> _Known:
    """The table behind a branch on these numbers."""
    return {key: (value, aged or depends(value, tested)) for key, (value, aged) in known.items()}


def depends(value: Value, on: set[Value]) -> bool:
    """Whether the value is computed, through arithmetic, from one of these (and is none of them itself)."""
    todo = list(value.args) if isinstance(value, Instr) else []
    seen: set[Value] = set()
    while todo:
        each = todo.pop()
        if each in on:
            return True
        if each not in seen and isinstance(each, COMPUTED):
            seen.add(each)
            todo += each.args
    return False


def _key(instr: Instr) -> Hashable | None:
    """What two instructions have in common exactly if they compute the same."""
    match instr:
        case ssa.Binary(op=op, width=width):
            # Equal leaves are several objects, so that there is no order of objects to put operands into.
            return (op, width, frozenset(instr.args)) if op in COMMUTATIVE else (op, width, *instr.args)
        case ssa.Compare(op=op, width=width):
            return ("compare", op, width, *instr.args)
        case ssa.Extend(bits=bits, signed=signed):
            return ("extend", bits, signed, *instr.args)
        case ssa.ByteOrder(op=op, bits=bits):
            return ("order", op, bits, *instr.args)
        case ssa.Call(number=number) if is_stable_call(instr):
            return ("call", number)
    return None
