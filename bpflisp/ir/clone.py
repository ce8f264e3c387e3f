"""Copies functions, without recursion, however long they are."""

from __future__ import annotations

from copy import copy

from bpflisp.ir.ssa import Block, Edge, Function, Instr, Param, Terminator, Value, operands, replace_operands


def clone_function(function: Function) -> Function:
    """A function that shares no block, parameter and instruction with the given one; leaves are the same."""
    values: dict[Value, Value] = {}
    result = Function(
        function.name,
        [_new_param(param, values) for param in function.params],
        program=function.program,
        position=function.position,
    )
    blocks = {block: Block(name=block.name) for block in function.blocks}
    result.blocks = list(blocks.values())
    for block, twin in blocks.items():
        twin.params = [_new_param(param, values) for param in block.params]
        twin.body = [clone_instr(instr, values) for instr in block.body]
        twin.end = clone_terminator(block.terminator, blocks)
    for instr in result.instructions():
        replace_operands(instr, {v: values[v] for v in operands(instr) if v in values})
    return result


def _new_param(param: Param, values: dict[Value, Value]) -> Param:
    values[param] = twin = Param(param.name)
    return twin


def clone_instr(instr: Instr, values: dict[Value, Value]) -> Instr:
    """A copy with the same operands; `values` learns which instruction stands for which."""
    twin = copy(instr)
    twin.args = list(instr.args)
    values[instr] = twin
    return twin


def clone_terminator(end: Terminator, blocks: dict[Block, Block]) -> Terminator:
    """A copy whose edges lead to what `blocks` has for their targets, or to the same ones."""
    twin = copy(end)
    twin.args = list(end.args)
    for name in ("to", "then", "other"):
        edge = getattr(end, name, None)
        if isinstance(edge, Edge):
            setattr(twin, name, Edge(blocks.get(edge.block, edge.block), list(edge.args)))
    return twin
