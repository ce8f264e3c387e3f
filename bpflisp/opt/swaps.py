"""Moves byte swaps from the ways into a block behind their meeting.

Contract: a parameter that every way in hands swapped bytes takes the bytes as they were, and is swapped in its block;
there, as before, tests for equality fold the swap into their constant. Done where each swapped value is handed over and
tested for equality, and used in no other way, so that there are fewer swaps afterwards.
"""

from __future__ import annotations

from bpflisp.ir import ssa
from bpflisp.ir.ssa import Block, ByteOrder, Const, Edge, Function, Param, Value, const, incoming_edges
from bpflisp.spec.alu import byte_order
from bpflisp.spec.isa import Op


def sink_swaps(function: Function) -> bool:
    """Every parameter once. Says whether one was changed."""
    incoming = incoming_edges(function)
    kept = _used_otherwise(function)
    changed = False
    for block in function.blocks:
        for index in range(len(block.params)):
            swap = _common_swap([edge.args[index] for _, edge in incoming[block]], kept)
            if swap is not None:
                _sink(block, index, swap, [edge for _, edge in incoming[block]], function)
                changed = True
    return changed


def _used_otherwise(function: Function) -> set[Value]:
    """Swapped values that are used, but in tests for equality and as what edges hand over."""
    found: set[Value] = set()
    for instr in function.instructions():
        tests = isinstance(instr, ssa.Compare | ssa.Branch) and instr.op in (Op.EQ, Op.NE)
        if not (tests and isinstance(instr.args[1], Const)):
            found.update(value for value in instr.args if isinstance(value, ByteOrder))
    return found


def _common_swap(values: list[Value], kept: set[Value]) -> ByteOrder | None:
    """One of the swaps that all these values are, at least two of them; constants may be among them."""
    swaps = [value for value in values if isinstance(value, ByteOrder) and value.op is not Op.TO_LE]
    if len(set(swaps)) < 2 or len({(swap.op, swap.bits) for swap in swaps}) != 1 or any(s in kept for s in swaps):
        return None
    others = [value for value in values if value not in swaps]
    fitting = all(isinstance(value, Const) and not value.number >> swaps[0].bits for value in others)
    return swaps[0] if fitting else None


def _sink(block: Block, index: int, swap: ByteOrder, edges: list[Edge], function: Function) -> None:
    old, new = block.params[index], Param(block.params[index].name)
    for edge in edges:
        value = edge.args[index]
        if isinstance(value, Const):
            edge.args[index] = const(byte_order(swap.op, swap.bits, value.number))
        else:
            assert isinstance(value, ByteOrder)
            edge.args[index] = value.args[0]
    block.params[index] = new
    swapped = ByteOrder(args=[new], op=swap.op, bits=swap.bits, position=swap.position)
    ssa.replace_values(function, {old: swapped})
    block.body.insert(0, swapped)
