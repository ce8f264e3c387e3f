"""Computes each pure value once: an instruction is replaced by an equal one that dominates it.

Contract: arithmetic, comparisons, extensions and byte swaps alone; loads are the affair of `forward`.
"""

from __future__ import annotations

from collections.abc import Hashable

from bpflisp.ir import ssa
from bpflisp.ir.dataflow import children, immediate_dominators
from bpflisp.ir.ssa import Block, Function, Instr, Value
from bpflisp.opt.simplify import COMMUTATIVE


def number_values(function: Function) -> bool:
    """Walk the dominator tree with a table of what has been computed. Says whether anything was replaced."""
    tree = children(immediate_dominators(function))
    replaced: dict[Value, Value] = {}
    stack: list[tuple[Block, dict[Hashable, Value]]] = [(function.entry, {})]
    while stack:
        block, known = stack.pop()
        known = dict(known)
        body: list[Instr] = []
        for instr in block.body:
            ssa.replace_operands(instr, {v: replaced[v] for v in instr.args if v in replaced})
            key = _key(instr)
            if key is not None and key in known:
                replaced[instr] = known[key]
                continue
            if key is not None:
                known[key] = instr
            body.append(instr)
        block.body = body
        stack += [(child, known) for child in tree[block]]
    ssa.replace_values(function, replaced)
    return bool(replaced)


def _key(instr: Instr) -> Hashable | None:
    """What two instructions have in common exactly if they compute the same."""
    match instr:
        case ssa.Binary(op=op, width=width):
            args = sorted(instr.args, key=id) if op in COMMUTATIVE else instr.args
            return (op, width, *args)
        case ssa.Compare(op=op, width=width):
            return ("compare", op, width, *instr.args)
        case ssa.Extend(bits=bits, signed=signed):
            return ("extend", bits, signed, *instr.args)
        case ssa.ByteOrder(op=op, bits=bits):
            return ("order", op, bits, *instr.args)
    return None
