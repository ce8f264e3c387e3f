"""Folds constant distances into the offsets of loads, stores and atomics.

Contract: the address stays the same number, computed from the same pointer; the kernel gives a packet pointer and the
same pointer plus a constant one identity, so a check of the one serves the other. An address that a loop moves on by a
constant is read behind the move, from the new address, if that is all that the old one serves besides: one register
does for both.
"""

from __future__ import annotations

from bpflisp.ir import ssa
from bpflisp.ir.addresses import signed_distance
from bpflisp.ir.ssa import Binary, Block, Const, DataRef, Function, Instr, Param, Slot, Value, incoming_edges
from bpflisp.spec.isa import Op

_LIMIT = 1 << 15


def fold_offsets(function: Function) -> bool:
    """Every access whose address is a sum with a constant. Says whether one was changed."""
    changed, steps = _read_behind_steps(function)
    for instr in function.instructions():
        if not isinstance(instr, ssa.Load | ssa.Store | ssa.Atomic):
            continue
        while instr.args[0] not in steps and (found := _split(instr.args[0])) is not None:
            base, distance = found
            if not -_LIMIT <= instr.off + distance < _LIMIT or not _allowed(base, instr):
                break
            instr.args[0], instr.off = base, instr.off + distance
            changed = True
    return changed


def _split(address: Value) -> tuple[Value, int] | None:
    if isinstance(address, Binary) and address.width == 64 and address.op in (Op.ADD, Op.SUB):
        base, step = address.args
        if isinstance(step, Const):
            return base, signed_distance(step.number if address.op is Op.ADD else -step.number)
    return None


def _allowed(base: Value, instr: Instr) -> bool:
    """CO-RE rewrites the offset itself, so it has to be the member's own. An access by a constant is no access."""
    plain = not isinstance(instr, ssa.Load | ssa.Store) or instr.core is None
    return (plain and not isinstance(base, Const | DataRef)) or isinstance(base, Slot)


# Addresses that loops move on


def _read_behind_steps(function: Function) -> tuple[bool, set[Value]]:
    """Whether an access takes a next address now, and the next addresses that accesses are to be left with."""
    incoming = incoming_edges(function)
    changed, steps = False, set[Value]()
    for block in function.blocks:
        for index, param in enumerate(block.params):
            handed = [edge.args[index] for _, edge in incoming[block]]
            for step in block.body:
                if _is_step(step, param) and step in handed:
                    accesses = _accesses_behind(function, block, param, step)
                    if accesses is not None:
                        steps.add(step)
                        changed |= bool(accesses)
                        _move(accesses, step)
                    break
    return changed, steps


def _is_step(value: Instr, param: Param) -> bool:
    return isinstance(value, Binary) and value.op is Op.ADD and _split(value) is not None and value.args[0] is param


def _accesses_behind(function: Function, block: Block, param: Param, step: Instr) -> list[Instr] | None:
    """The accesses at the old address; None where something else uses it, or an access runs before the move."""
    before = set(block.body[: block.body.index(step)])
    found: list[Instr] = []
    for instr in function.instructions():
        uses = sum(value is param for value in ssa.operands(instr))
        if instr is step or not uses:
            continue
        if uses > 1 or instr in before or not isinstance(instr, ssa.Load | ssa.Store | ssa.Atomic):
            return None
        if instr.args[0] is not param or not _allowed(param, instr) or abs(instr.off) >= _LIMIT // 2:
            return None
        found.append(instr)
    return found if abs((_split(step) or (step, _LIMIT))[1]) < _LIMIT // 2 else None


def _move(accesses: list[Instr], step: Instr) -> None:
    found = _split(step)
    assert found is not None
    for instr in accesses:
        assert isinstance(instr, ssa.Load | ssa.Store | ssa.Atomic)
        instr.args[0], instr.off = step, instr.off - found[1]
