"""Copies functions, without recursion, however long they are."""

from __future__ import annotations

from dataclasses import fields
from typing import TypeVar

from bpflisp.ir.ssa import Block, Edge, Function, Instr, Leaf, Param, Terminator, Value

AnyInstr = TypeVar("AnyInstr", bound=Instr)


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
        instr.args = _twins(instr.args, values)
        if isinstance(instr, Terminator):
            for edge in instr.edges():
                edge.args = _twins(edge.args, values)
    return result


def _new_param(param: Param, values: dict[Value, Value]) -> Param:
    values[param] = twin = Param(param.name)
    return twin


def _twins(given: list[Value], values: dict[Value, Value]) -> list[Value]:
    return [value if isinstance(value, Leaf) else values.get(value, value) for value in given]


def _copy(instr: AnyInstr) -> AnyInstr:
    """Another one with the same fields; the standard `copy` takes thrice as long."""
    kind = type(instr)
    twin = kind.__new__(kind)
    names = _NAMES.get(kind)
    if names is None:
        names = _NAMES[kind] = [each.name for each in fields(kind)]
    for name in names:
        setattr(twin, name, getattr(instr, name))
    return twin


_NAMES: dict[type[Instr], list[str]] = {}
"""Kind of instruction -> its fields' names, of those met so far."""


def clone_instr(instr: Instr, values: dict[Value, Value]) -> Instr:
    """A copy with the same operands; `values` learns which instruction stands for which."""
    twin = _copy(instr)
    twin.args = list(instr.args)
    values[instr] = twin
    return twin


def clone_terminator(end: Terminator, blocks: dict[Block, Block]) -> Terminator:
    """A copy whose edges lead to what `blocks` has for their targets, or to the same ones."""
    twin = _copy(end)
    twin.args = list(end.args)
    for name in ("to", "then", "other"):
        edge = getattr(end, name, None)
        if isinstance(edge, Edge):
            setattr(twin, name, Edge(blocks.get(edge.block, edge.block), list(edge.args)))
    return twin
