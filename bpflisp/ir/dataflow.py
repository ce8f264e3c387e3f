"""What passes ask about control flow: orders of blocks, dominators, and one worklist for equations over blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from bpflisp.ir.ssa import Block, Function

Fact = TypeVar("Fact")


def reverse_postorder(function: Function) -> list[Block]:
    """The blocks that can be reached, each before its successors but for back edges."""
    order: list[Block] = []
    seen = {function.entry}
    stack = [(function.entry, iter(function.entry.successors()))]
    while stack:
        block, successors = stack[-1]
        for successor in successors:
            if successor not in seen:
                seen.add(successor)
                stack.append((successor, iter(successor.successors())))
                break
        else:
            order.append(block)
            stack.pop()
    return order[::-1]


def predecessors(function: Function) -> dict[Block, list[Block]]:
    """The blocks that jump to each block; one that does so by two edges comes twice."""
    found: dict[Block, list[Block]] = {block: [] for block in function.blocks}
    for block in function.blocks:
        for successor in block.successors():
            found[successor].append(block)
    return found


def immediate_dominators(function: Function) -> dict[Block, Block]:
    """For each block that can be reached, the closest other block that every way to it passes; the entry has itself.

    The algorithm is the one of Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm" (2001).
    """
    order = reverse_postorder(function)
    number = {block: index for index, block in enumerate(order)}
    before = predecessors(function)
    dominators = {function.entry: function.entry}
    progress = True
    while progress:
        progress = False
        for block in order[1:]:
            known = [p for p in before[block] if p in dominators]
            closest = known[0]
            for other in known[1:]:
                closest = _meet(closest, other, dominators, number)
            if dominators.get(block) is not closest:
                dominators[block] = closest
                progress = True
    return dominators


def _meet(a: Block, b: Block, dominators: dict[Block, Block], number: dict[Block, int]) -> Block:
    while a is not b:
        while number[a] > number[b]:
            a = dominators[a]
        while number[b] > number[a]:
            b = dominators[b]
    return a


def dominates(a: Block, b: Block, dominators: dict[Block, Block]) -> bool:
    """Whether every way to `b` passes `a`; a block dominates itself."""
    while True:
        if a is b:
            return True
        above = dominators[b]
        if above is b:
            return False
        b = above


def children(dominators: dict[Block, Block]) -> dict[Block, list[Block]]:
    """The dominator tree from the top: for each block the blocks that it dominates immediately."""
    tree: dict[Block, list[Block]] = {block: [] for block in dominators}
    for block, above in dominators.items():
        if block is not above:
            tree[above].append(block)
    return tree


def natural_loops(function: Function) -> list[tuple[Block, set[Block]]]:
    """(header, blocks) of each natural loop, the smallest first; loops of one header are one."""
    place = {block: at for at, block in enumerate(reverse_postorder(function))}
    if all(place[to] > at for block, at in place.items() for to in block.successors()):
        return []
    dominators = immediate_dominators(function)
    before = predecessors(function)
    found: dict[Block, set[Block]] = {}
    for block in function.blocks:
        for header in block.successors():
            if dominates(header, block, dominators):
                loop = found.setdefault(header, {header})
                todo = [block]
                while todo:
                    each = todo.pop()
                    if each not in loop:
                        loop.add(each)
                        todo += before[each]
    return sorted(found.items(), key=lambda item: len(item[1]))


def solve(
    function: Function,
    start: Fact,
    transfer: Callable[[Block, Fact], Fact],
    join: Callable[[Iterable[Fact]], Fact],
    forward: bool = True,
) -> dict[Block, Fact]:
    """The facts that hold on entering each block (on leaving it, where not `forward`).

    `transfer` takes a block and the fact before it (after it) and gives the one after it (before it). `join` merges
    those of the blocks that come before (after); blocks that are not computed yet take no part, so that loops start
    from the best guess. `start` holds at the entry (at the exits, and at first in loops without one, for which it has
    to be the best guess too). `join` must be monotone for this to end.
    """
    order = reverse_postorder(function) if forward else reverse_postorder(function)[::-1]
    sources = predecessors(function) if forward else {block: block.successors() for block in function.blocks}
    dependents: dict[Block, list[Block]] = {block: [] for block in function.blocks}
    for block in order:
        for source in sources[block]:
            dependents[source].append(block)
    facts: dict[Block, Fact] = {}
    results: dict[Block, Fact] = {}
    waiting = set(order)
    while waiting:
        for block in order:
            if block not in waiting:
                continue
            waiting.discard(block)
            known = [results[s] for s in sources[block] if s in results]
            boundary = block is function.entry if forward else not sources[block]
            if not known and not boundary and forward:
                continue
            fact = start if boundary or not known else join(known)
            if block not in facts or facts[block] != fact:
                facts[block] = fact
                results[block] = transfer(block, fact)
                waiting.update(dependents[block])
    return facts
