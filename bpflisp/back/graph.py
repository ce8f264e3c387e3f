"""Control flow of machine code: orders of blocks and dominators."""

from __future__ import annotations

from bpflisp.back.machine import MBlock, MFunction


def reverse_postorder(function: MFunction) -> list[MBlock]:
    """The blocks that can be reached, each before its targets but for back edges."""
    order: list[MBlock] = []
    seen = {function.blocks[0]}
    stack = [(function.blocks[0], iter(function.blocks[0].targets))]
    while stack:
        block, targets = stack[-1]
        for target in targets:
            if target not in seen:
                seen.add(target)
                stack.append((target, iter(target.targets)))
                break
        else:
            order.append(block)
            stack.pop()
    return order[::-1]


def predecessors(function: MFunction) -> dict[MBlock, list[MBlock]]:
    """The blocks that go on to each block."""
    found: dict[MBlock, list[MBlock]] = {block: [] for block in function.blocks}
    for block in function.blocks:
        for target in block.targets:
            found[target].append(block)
    return found


class Dominators:
    """For questions about which blocks every way to a block passes; after Cooper, Harvey and Kennedy (2001)."""

    def __init__(self, function: MFunction) -> None:
        order = reverse_postorder(function)
        self._number = {block: index for index, block in enumerate(order)}
        self._above = {order[0]: order[0]}
        before = predecessors(function)
        progress = True
        while progress:
            progress = False
            for block in order[1:]:
                known = [p for p in before[block] if p in self._above]
                closest = known[0]
                for other in known[1:]:
                    closest = self.common(closest, other)
                if self._above.get(block) is not closest:
                    self._above[block] = closest
                    progress = True
        self._span = self._spans(order)

    def _spans(self, order: list[MBlock]) -> dict[MBlock, tuple[int, int]]:
        """For each block the places, in a walk over the dominators, of itself and of the last that it dominates."""
        children: dict[MBlock, list[MBlock]] = {block: [] for block in order}
        for block in order[1:]:
            children[self._above[block]].append(block)
        spans: dict[MBlock, tuple[int, int]] = {}
        starts: list[MBlock] = []
        stack = [order[0]]
        while stack:
            block = stack.pop()
            spans[block] = len(starts), len(starts)
            starts.append(block)
            stack += children[block]
        for block in reversed(starts[1:]):
            above = self._above[block]
            spans[above] = spans[above][0], max(spans[above][1], spans[block][1])
        return spans

    def common(self, a: MBlock, b: MBlock) -> MBlock:
        """The closest block that dominates both."""
        while a is not b:
            while self._number[a] > self._number[b]:
                a = self._above[a]
            while self._number[b] > self._number[a]:
                b = self._above[b]
        return a

    def dominates(self, a: MBlock, b: MBlock) -> bool:
        """Whether every way to `b` passes `a`; a block dominates itself."""
        first, last = self._span[a]
        return first <= self._span[b][0] <= last
