"""Tidies the graph of blocks.

Contract: branches of known outcome become jumps; blocks that cannot be reached go; a block with one way in from a
block with one way out joins it; edges pass by empty blocks; parameters that hold one value alone go. The order in
which instructions run stays.
"""

from __future__ import annotations

from bpflisp.ir.dataflow import reverse_postorder
from bpflisp.ir.ssa import (
    Block,
    Branch,
    Edge,
    Function,
    Jump,
    Param,
    Value,
    count_uses,
    incoming_edges,
    replace_values,
)
from bpflisp.ir.trivial import remove_trivial_params
from bpflisp.opt.comparisons import jump_instead, known_outcome


def tidy(function: Function) -> bool:
    """All of the above, until nothing changes. Says whether anything did."""
    changed = False
    while (
        _fold_branches(function)
        | drop_unreachable(function)
        | _pass_by_empty_blocks(function)
        | _join_blocks(function)
        | remove_trivial_params(function)
        | _drop_unused_params(function)
    ):
        changed = True
    return changed


def _fold_branches(function: Function) -> bool:
    changed = False
    for block in function.blocks:
        end = block.end
        if not isinstance(end, Branch):
            continue
        taken = known_outcome(end)
        if taken is None and end.then.block is end.other.block and end.then.args == end.other.args:
            taken = True
        if taken is not None:
            block.end = jump_instead(end, taken)
            changed = True
    return changed


def drop_unreachable(function: Function) -> bool:
    """Take out the blocks that no way from the entry leads to."""
    reached = set(reverse_postorder(function))
    kept = [block for block in function.blocks if block in reached]
    changed = len(kept) != len(function.blocks)
    function.blocks = kept
    return changed


def _pass_by_empty_blocks(function: Function) -> bool:
    """An edge to a block that only jumps on goes where the block goes.

    Not where the block's parameters are used anywhere but in that jump: they would lose their definition. And a
    branch whose two edges would then lead to one block with different arguments is left alone: the block that is
    passed by is where the difference is made, and the back end would have to make it again.
    """
    uses = count_uses(function.instructions())
    changed = False
    for block in function.blocks:
        for edge in block.terminator.edges():
            changed |= _pass_by(block, edge, uses)
    return changed


def _pass_by(source: Block, edge: Edge, uses: dict[Value, int]) -> bool:
    middle = edge.block
    end = middle.end
    if middle.body or not isinstance(end, Jump) or end.to.block is middle or middle is source:
        return False
    inside = count_uses([end])
    if any(uses.get(param, 0) != inside.get(param, 0) for param in middle.params):
        return False
    handed: dict[Value, Value] = dict(zip(middle.params, edge.args, strict=True))
    args = [handed.get(arg, arg) for arg in end.to.args]
    edges = source.terminator.edges()
    if any(other is not edge and other.block is end.to.block and other.args != args for other in edges):
        return False
    edge.block, edge.args = end.to.block, args
    for arg in args:
        uses[arg] = uses.get(arg, 0) + 1
    return True


def _join_blocks(function: Function) -> bool:
    incoming = incoming_edges(function)
    replaced: dict[Value, Value] = {}
    gone: set[Block] = set()
    for block in function.blocks:
        if block in gone:
            continue
        while isinstance(block.end, Jump) and _joins(block, block.end.to.block, incoming, function):
            edge = block.end.to
            following = edge.block
            replaced.update(zip(following.params, edge.args, strict=True))
            block.body += following.body
            block.end = following.end
            gone.add(following)
    function.blocks = [block for block in function.blocks if block not in gone]
    replace_values(function, replaced)
    return bool(gone)


def _joins(block: Block, following: Block, incoming: dict[Block, list[tuple[Block, Edge]]], function: Function) -> bool:
    return following is not block and following is not function.entry and len(incoming[following]) == 1


def _drop_unused_params(function: Function) -> bool:
    """Parameters that nothing reads but the hand-over to themselves, in a circle through other such parameters."""
    needed = _needed_params(function)
    incoming = incoming_edges(function)
    changed = False
    for block in function.blocks:
        for index in reversed(range(len(block.params))):
            if block.params[index] not in needed:
                del block.params[index]
                for _, edge in incoming[block]:
                    del edge.args[index]
                changed = True
    return changed


def _needed_params(function: Function) -> set[Value]:
    """Those that an instruction reads, and those that are handed over to needed ones."""
    needed: set[Value] = set()
    handed: dict[Value, list[Value]] = {}
    for block in function.blocks:
        for instr in block.instructions():
            needed.update(arg for arg in instr.args if isinstance(arg, Param))
        for edge in block.terminator.edges():
            for param, arg in zip(edge.block.params, edge.args, strict=True):
                handed.setdefault(param, []).append(arg)
    todo = list(needed)
    while todo:
        for arg in handed.get(todo.pop(), []):
            if isinstance(arg, Param) and arg not in needed:
                needed.add(arg)
                todo.append(arg)
    return needed
