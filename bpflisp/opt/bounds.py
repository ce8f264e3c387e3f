"""Lets one check of the packet's length do for two: the first asks for the bytes that the second would.

Contract: both checks fail to the same place with the same values; between them there is one way, on which nothing can
be seen from outside, and every branch on it leads on or to that place. So a packet that fails the second check comes
to the same end by the first. The second is then decided, and `threading` takes it out.
"""

from __future__ import annotations

from bpflisp.ir import ssa
from bpflisp.ir.addresses import REACH, Space, root, space
from bpflisp.ir.ssa import Binary, Block, Branch, Edge, Function, Instr, Jump, Value, const, incoming_edges
from bpflisp.lean import dataclass
from bpflisp.spec.isa import Op

_SILENT = (ssa.Binary, ssa.Compare, ssa.Extend, ssa.ByteOrder, ssa.Load, ssa.ContextLoad)


@dataclass(frozen=True, slots=True)
class _Check:
    """`base + distance > end` fails to `short`, and goes on by `on`."""

    base: Value
    distance: int
    end: Value
    short: Edge
    on: Edge


def merge_checks(function: Function) -> bool:
    """Every check with the next one on its way. Says whether one was made to ask for more."""
    incoming = incoming_edges(function)
    alone = {block for block in function.blocks if len(incoming[block]) == 1}
    changed = False
    for block in function.blocks:
        first = _check(block)
        if first is not None and (distance := _asked_later(first, alone)) > first.distance:
            _ask_for(block, first, distance)
            changed = True
    return changed


def _check(block: Block) -> _Check | None:
    end = block.end
    if not isinstance(end, Branch) or end.width != 64 or end.op not in (Op.GT, Op.LE):
        return None
    base, distance = root(end.args[0])
    if distance is None or space(base) is not Space.PACKET or not 0 <= distance <= REACH:
        return None
    short, on = (end.then, end.other) if end.op is Op.GT else (end.other, end.then)
    return _Check(base, distance, end.args[1], short, on)


def _asked_later(first: _Check, alone: set[Block]) -> int:
    """The distance of the next check on the way that may be merged with this one; 0 where there is none."""
    edge: Edge | None = first.on
    seen: set[Block] = set()
    while edge is not None and edge.block in alone and edge.block not in seen:
        block = edge.block
        seen.add(block)
        if not all(isinstance(instr, _SILENT) for instr in block.body):
            return 0
        check = _check(block)
        if check is not None and (check.base, check.end) == (first.base, first.end):
            return check.distance if _same_place(check.short, first.short) else 0
        edge = _way_on(block.terminator, first.short)
    return 0


def _way_on(end: Instr, short: Edge) -> Edge | None:
    """The one edge that does not lead where the check fails to."""
    if isinstance(end, Jump):
        return end.to
    if isinstance(end, Branch):
        others = [edge for edge in end.edges() if not _same_place(edge, short)]
        return others[0] if len(others) == 1 else None
    return None


def _same_place(a: Edge, b: Edge) -> bool:
    """Whether two edges lead to the same, or to blocks that do nothing but return the same."""
    if a.block is b.block:
        return a.args == b.args
    ends = [edge.block.end for edge in (a, b) if not edge.block.body and not edge.block.params]
    return len(ends) == 2 and all(isinstance(end, ssa.Return) for end in ends) and _args(ends[0]) == _args(ends[1])


def _args(end: Instr | None) -> list[Value]:
    return end.args if end is not None else []


def _ask_for(block: Block, check: _Check, distance: int) -> None:
    end = block.terminator
    farther = Binary(args=[check.base, const(distance)], op=Op.ADD, position=end.position)
    block.body.append(farther)
    end.args[0] = farther
