"""Folds constant distances into the offsets of loads, stores and atomics.

Contract: the address stays the same number, computed from the same pointer; the kernel gives a packet pointer and the
same pointer plus a constant one identity, so a check of the one serves the other.
"""

from __future__ import annotations

from bpflisp.ir import ssa
from bpflisp.ir.addresses import signed_distance
from bpflisp.ir.ssa import Binary, Const, DataRef, Function, Slot
from bpflisp.spec.isa import Op

_LIMIT = 1 << 15


def fold_offsets(function: Function) -> bool:
    """Every access whose address is a sum with a constant. Says whether one was changed."""
    changed = False
    for instr in function.instructions():
        if not isinstance(instr, ssa.Load | ssa.Store | ssa.Atomic):
            continue
        while (found := _split(instr.args[0])) is not None:
            base, distance = found
            if not -_LIMIT <= instr.off + distance < _LIMIT or not _allowed(base, instr):
                break
            instr.args[0], instr.off = base, instr.off + distance
            changed = True
    return changed


def _split(address: ssa.Value) -> tuple[ssa.Value, int] | None:
    if isinstance(address, Binary) and address.width == 64 and address.op in (Op.ADD, Op.SUB):
        base, step = address.args
        if isinstance(step, Const):
            return base, signed_distance(step.number if address.op is Op.ADD else -step.number)
    return None


def _allowed(base: ssa.Value, instr: ssa.Instr) -> bool:
    """CO-RE rewrites the offset itself, so it has to be the member's own. An access by a constant is no access."""
    plain = not isinstance(instr, ssa.Load | ssa.Store) or instr.core is None
    return (plain and not isinstance(base, Const | DataRef)) or isinstance(base, Slot)
