"""Takes out instructions whose results nobody needs.

Contract: what is taken out neither writes memory nor calls anything that may; loads go too, since a load that faults
is one that the verifier refuses.
"""

from __future__ import annotations

from bpflisp.ir import ssa
from bpflisp.ir.ssa import Function, Instr, Leaf, Value, operands
from bpflisp.opt.effects import is_stable_call

_FREE = (ssa.Binary, ssa.Compare, ssa.Extend, ssa.ByteOrder, ssa.Load, ssa.ContextLoad)


def drop_dead(function: Function) -> bool:
    """Mark what is needed, from stores, calls and terminators back to operands; sweep the rest."""
    needed: set[Value] = set()
    todo: list[Value] = [instr for instr in function.instructions() if not removable(instr)]
    while todo:
        value = todo.pop()
        if value in needed or isinstance(value, Leaf):
            continue
        needed.add(value)
        if isinstance(value, Instr):
            todo += operands(value)
    changed = False
    for block in function.blocks:
        kept = [instr for instr in block.body if instr in needed]
        changed |= len(kept) != len(block.body)
        block.body = kept
    return changed


def removable(instr: Instr) -> bool:
    """Whether the instruction may go when its result is not used."""
    return isinstance(instr, _FREE) or (isinstance(instr, ssa.Call) and is_stable_call(instr))
