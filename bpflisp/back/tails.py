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
    _share_exit(function)


def _share_exit(function: MFunction) -> None:
    """Where there is a bare exit, let all other exits go there: one can fall through, the rest cost what they did."""
    bare = next((block for block in function.blocks if block.end and not block.targets and not block.body), None)
    if bare is None or bare.end is None:
        return
    for block in function.blocks:
        if block is not bare and block.end and not block.targets and block.end.raw == bare.end.raw:
            block.end, block.targets = None, [bare]


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
            end = ("exit", block.end.raw) if block.end is not None else block.targets[0]
            groups.setdefault(end, []).append(block)
    merger = _Merger(function)
    for blocks in groups.values():
        if len(blocks) > 1:
            merger.merge(blocks, 0)
    return merger.changed


class _Merger:
    """Merges blocks that leave alike, the longest equal ends first."""

    def __init__(self, function: MFunction) -> None:
        self.function = function
        self.changed = False

    def merge(self, blocks: list[MBlock], length: int) -> MBlock:
        """Merge blocks whose last `length` instructions are equal; gives one that ends in what all have in common."""
        while (parts := _by_next(blocks, length)) is not None and len(parts) == 1:
            length += 1
        short = [block for block in blocks if len(block.body) == length]
        longer = _by_next([block for block in blocks if len(block.body) > length], length) or {}
        heads = short + [self.merge(part, length + 1) if len(part) > 1 else part[0] for part in longer.values()]
        return self._share(heads, length) if length else heads[0]

    def _share(self, blocks: list[MBlock], length: int) -> MBlock:
        """Let all go on in one block of these instructions: one of them if it has no others, else a new one."""
        if len(blocks) == 1:
            return blocks[0]
        self.changed = True
        shared = next((b for b in blocks if len(b.body) == length and b is not self.function.blocks[0]), None)
        if shared is None:
            model = blocks[0]
            body = model.body[len(model.body) - length :]
            shared = MBlock(body, model.end, model.targets, model.position, model.depth)
            self.function.blocks.append(shared)
        for block in blocks:
            if block is not shared:
                _continue_in(block, shared, length)
        return shared


def _by_next(blocks: list[MBlock], length: int) -> dict[Hashable, list[MBlock]] | None:
    """The blocks by the instruction before their last `length`; None where one has no other."""
    parts: dict[Hashable, list[MBlock]] = {}
    for block in blocks:
        if len(block.body) == length:
            return None
        parts.setdefault(_identity(block.body[-1 - length]), []).append(block)
    return parts


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
