"""The order of blocks: as few jumps as a greedy walk finds."""

from __future__ import annotations

from bpflisp.back.machine import MBlock, MFunction


def order_blocks(function: MFunction) -> list[MBlock]:
    """Every reachable block once, the entry first; a block is followed by one of its targets where that is free."""
    order: list[MBlock] = []
    placed: set[MBlock] = set()
    waiting = [function.blocks[0]]
    while waiting:
        block: MBlock | None = waiting.pop()
        while block is not None and block not in placed:
            order.append(block)
            placed.add(block)
            free = [target for target in reversed(block.targets) if target not in placed]
            waiting += free[::-1]
            block = free[0] if free else None
    return order
