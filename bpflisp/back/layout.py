"""The order of blocks: chains in which each block is followed by one that it goes on to, so that few jumps are needed.

Contract: every block once, the entry first. Chains are made greedily from edges: hot ones before cold ones, and those
of plain jumps, which have one place to fall through to, before those of branches, which have two.
"""

from __future__ import annotations

from bpflisp.back.graph import reverse_postorder
from bpflisp.back.legalise import INVERSE
from bpflisp.back.machine import MBlock, MFunction


def order_blocks(function: MFunction) -> list[MBlock]:
    """The reachable blocks in the order in which to emit them."""
    reachable = reverse_postorder(function)
    following = _fall_throughs(reachable)
    preceded = set(following.values())
    order: list[MBlock] = []
    chains = [block for block in reachable if block not in preceded]
    # Chains that leave the function come last: what jumps to them then jumps forward.
    for head in sorted(chains, key=lambda head: head is not reachable[0] and _leaves(head, following)):
        block: MBlock | None = head
        while block is not None:
            order.append(block)
            block = following.get(block)
    return order


def _fall_throughs(blocks: list[MBlock]) -> dict[MBlock, MBlock]:
    """Which block each is followed by. No block follows two, none comes before the entry, and there are no circles."""
    number = {block: index for index, block in enumerate(blocks)}
    edges = [(block, target) for block in blocks for target in _candidates(block)]
    edges.sort(key=lambda edge: (-min(edge[0].depth, edge[1].depth), len(edge[0].targets), *_order(edge, number)))
    following: dict[MBlock, MBlock] = {}
    taken = {blocks[0]}
    chain = {block: block for block in blocks}

    def head(block: MBlock) -> MBlock:
        while chain[block] is not block:
            block = chain[block]
        return block

    for block, target in edges:
        if block not in following and target not in taken and head(block) is not head(target):
            following[block] = target
            taken.add(target)
            chain[head(target)] = head(block)
    return following


def _order(edge: tuple[MBlock, MBlock], number: dict[MBlock, int]) -> tuple[int, int]:
    return number[edge[0]], number[edge[1]]


def _candidates(block: MBlock) -> list[MBlock]:
    """Where the block can fall through to: both ways of a branch, if its test can be inverted."""
    if block.end is None or not block.targets:
        return block.targets
    return block.targets if block.end.row.op in INVERSE else block.targets[1:]


def _leaves(head: MBlock, following: dict[MBlock, MBlock]) -> bool:
    while head in following:
        head = following[head]
    return not head.targets
