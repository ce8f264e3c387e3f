"""Merges equal ends of blocks, after allocation.

Contract: blocks that leave in the same way (by exit, or by a plain jump to the same block) share the longest run of
equal last instructions. A shared instruction keeps the source position of one of them.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from bpflisp.back.machine import MBlock, MFunction, MInsn


def merge_tails(function: MFunction) -> None:
    """Merge, and drop blocks that become empty, until nothing changes."""
    _leave_at_once(function)
    while _merge_once(function) | pass_by_empty(function):
        pass


def _leave_at_once(function: MFunction) -> None:
    """A jump to a bare exit is an exit."""
    for block in function.blocks:
        if block.end is None and not block.targets[0].body and not block.targets[0].targets:
            end = block.targets[0].end
            block.end, block.targets = (replace(end) if end else None), []


def _identity(insn: MInsn) -> Hashable:
    """Everything but the position."""
    fields = (insn.opcode, insn.dst, insn.src, insn.off, insn.imm, insn.imm_high)
    return (*fields, insn.symbol, insn.core, insn.slot, insn.reads, insn.writes, insn.raw)


def _merge_once(function: MFunction) -> bool:
    groups: dict[Hashable, list[MBlock]] = {}
    for block in function.blocks:
        if not block.targets or block.end is None:
            groups.setdefault(block.targets[0] if block.targets else "exit", []).append(block)
    best: tuple[int, MBlock, MBlock] | None = None
    for blocks in groups.values():
        for index, first in enumerate(blocks):
            for second in blocks[index + 1 :]:
                length = _common(first, second)
                if length and (best is None or length > best[0]):
                    best = length, first, second
    if best is None:
        return False
    _share(function, *best)
    return True


def _common(first: MBlock, second: MBlock) -> int:
    """How many last instructions of the bodies are equal."""
    if (first.end is None) != (second.end is None) or (first.end and second.end and first.end.raw != second.end.raw):
        return 0
    length = 0
    while length < min(len(first.body), len(second.body)) and _identity(first.body[-1 - length]) == _identity(
        second.body[-1 - length]
    ):
        length += 1
    return length


def _share(function: MFunction, length: int, first: MBlock, second: MBlock) -> None:
    """Let both go on in one block; where one of them is nothing else, it is that block."""
    whole = next((block for block in (second, first) if len(block.body) == length), None)
    if whole is function.blocks[0]:
        whole = None
    if whole is None:
        cut = len(second.body) - length
        whole = MBlock(second.body[cut:], second.end, second.targets, second.position, second.depth)
        function.blocks.append(whole)
        _continue_in(second, whole, length)
    _continue_in(first if whole is not first else second, whole, length)


def _continue_in(block: MBlock, shared: MBlock, length: int) -> None:
    if block.body:
        block.position = block.body[-1].position or block.position
    block.body = block.body[: len(block.body) - length]
    block.end = None
    block.targets = [shared]


def pass_by_empty(function: MFunction) -> bool:
    """Let jumps to empty blocks go where these go, and drop what nothing jumps to any more."""
    changed = False
    for block in function.blocks:
        for index, target in enumerate(block.targets):
            seen = {block}
            while not target.body and target.end is None and target not in seen:
                seen.add(target)
                target = target.targets[0]
            if target is not block.targets[index]:
                block.targets[index] = target
                changed = True
    reached = {function.blocks[0]}
    todo = [function.blocks[0]]
    while todo:
        for target in todo.pop().targets:
            if target not in reached:
                reached.add(target)
                todo.append(target)
    changed |= len(reached) != len(function.blocks)
    function.blocks = [block for block in function.blocks if block in reached]
    return changed
