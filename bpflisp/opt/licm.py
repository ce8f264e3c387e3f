"""Moves out of loops what every turn would compute alike.

Contract: arithmetic whose operands are the same in every turn, and context loads where no turn changes the context,
move before the loop, whether or not a turn would have reached them: they can neither fault nor be refused there. Memory
is not read earlier than it was: a load may stand behind the check that makes it legal.
"""

from __future__ import annotations

from bpflisp.ir import ssa
from bpflisp.ir.addresses import points
from bpflisp.ir.dataflow import natural_loops
from bpflisp.ir.ssa import Block, Edge, Function, Instr, Jump, Leaf, Value, incoming_edges
from bpflisp.opt.effects import kills_context
from bpflisp.opt.gvn import COMPUTED, depends


def hoist_invariants(function: Function) -> bool:
    """Loop by loop, inner ones first. Says whether anything moved."""
    changed = False
    for header, loop in natural_loops(function):
        moved = _invariants(loop, function)
        if moved and (before := _preheader(function, header, loop)) is not None:
            gone = set(moved)
            for block in loop:
                block.body = [instr for instr in block.body if instr not in gone]
            before.body += moved
            changed = True
    return changed


def _invariants(loop: set[Block], function: Function) -> list[Instr]:
    """What may move, each after what it needs."""
    inside: set[Value] = set()
    for block in loop:
        inside.update(block.params)
        inside.update(block.body)
    context = not any(kills_context(instr) for block in loop for instr in block.body)
    tested = {arg for block in loop if isinstance(block.end, ssa.Branch) for arg in block.end.args}
    moved: list[Instr] = []
    progress = True
    while progress:
        progress = False
        for block in (block for block in function.blocks if block in loop):
            for instr in block.body:
                if (
                    instr in inside
                    and _may_move(instr, context, tested)
                    and not any(arg in inside for arg in instr.args)
                ):
                    inside.discard(instr)
                    moved.append(instr)
                    progress = True
    return moved


def _may_move(instr: Instr, context: bool, tested: set[Value]) -> bool:
    """What has only leaves as operands is left to folding.

    A sum of an address and a number stays, and what is computed from a number that the loop tests: the kernel may know
    its bounds from tests in the loop alone.
    """
    if isinstance(instr, ssa.ContextLoad):
        return context
    if not isinstance(instr, COMPUTED) or all(isinstance(arg, Leaf) for arg in instr.args):
        return False
    variable = not any(isinstance(arg, ssa.Const) for arg in instr.args)
    return not (variable and any(points(arg) for arg in instr.args)) and not depends(instr, tested)


def _preheader(function: Function, header: Block, loop: set[Block]) -> Block | None:
    """The block that alone leads into the loop, and only there; made if need be. None where several lead into it."""
    entering = [(source, edge) for source, edge in incoming_edges(function)[header] if source not in loop]
    if len(entering) != 1:
        return None
    source, edge = entering[0]
    if isinstance(source.end, Jump):
        return source
    before = Block(end=Jump(to=Edge(header, edge.args), position=source.terminator.position), name="preheader")
    edge.block, edge.args = before, []
    function.blocks.insert(function.blocks.index(header), before)
    return before
