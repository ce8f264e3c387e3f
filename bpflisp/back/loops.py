"""How deep each block lies in loops, for the weights of the allocator."""

from __future__ import annotations

from bpflisp.back.machine import MBlock, MFunction


def set_depths(function: MFunction) -> None:
    """Set every block's `depth`: how many back edges' loops it lies in.

    A back edge is one that leads to a block on the current path of a depth-first walk; its loop is what reaches it
    without passing the head. In an irreducible graph that is an estimate, which serves a weight.
    """
    predecessors: dict[MBlock, list[MBlock]] = {block: [] for block in function.blocks}
    for block in function.blocks:
        block.depth = 0
        for target in block.targets:
            predecessors[target].append(block)
    for tails, head in _back_edges(function):
        loop = {head}
        todo = [tail for tail in tails if tail is not head]
        while todo:
            block = todo.pop()
            if block not in loop:
                loop.add(block)
                todo += predecessors[block]
        for block in loop:
            block.depth += 1


def _back_edges(function: MFunction) -> list[tuple[list[MBlock], MBlock]]:
    """For each head of a loop, the blocks that jump back to it."""
    found: dict[MBlock, list[MBlock]] = {}
    open_blocks: set[MBlock] = set()
    seen: set[MBlock] = set()
    stack = [(function.blocks[0], iter(function.blocks[0].targets))]
    seen.add(function.blocks[0])
    open_blocks.add(function.blocks[0])
    while stack:
        block, targets = stack[-1]
        target = next(targets, None)
        if target is None:
            open_blocks.discard(block)
            stack.pop()
        elif target in open_blocks:
            found.setdefault(target, []).append(block)
        elif target not in seen:
            seen.add(target)
            open_blocks.add(target)
            stack.append((target, iter(target.targets)))
    return [(tails, head) for head, tails in found.items()]
