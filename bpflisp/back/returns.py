"""Lets a function leave at one place, with what it returns as that block's parameter.

That is shorter where the value can be set early and stay in r0, and longer where calls come in between; so the
compiler tries both (see `compile.py`).
"""

from __future__ import annotations

from bpflisp.ir.ssa import Block, Edge, Function, Jump, Param, Return


def several_returns(function: Function) -> bool:
    """Whether there is something to unify."""
    return sum(isinstance(block.end, Return) and bool(block.end.args) for block in function.blocks) > 1


def unify_returns(function: Function) -> None:
    """Make every return of a value a jump to one block, past blocks that do nothing else."""
    result = Param("result")
    last = Block([result], [], Return(args=[result]), "return")
    returns = [block for block in function.blocks if isinstance(block.end, Return) and block.end.args]
    bare = {block for block in returns if not block.body and not block.params and block is not function.entry}
    for block in function.blocks:
        for edge in block.terminator.edges():
            if edge.block in bare:
                edge.args, edge.block = list(edge.block.terminator.args), last
    for block in returns:
        end = block.terminator
        block.end = Jump(to=Edge(last, list(end.args)), position=end.position)
    reached = {edge.block for block in function.blocks for edge in block.terminator.edges()}
    function.blocks = [block for block in function.blocks if block not in bare or block in reached]
    function.blocks.append(last)
