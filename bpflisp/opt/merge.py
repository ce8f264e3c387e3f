"""Merges equal ends of blocks that differ in operands alone: the differences become parameters of one block for all.

Contract: blocks that go on in the same way, and whose last instructions are the same but for some operands, share these
instructions; what differs is handed over. Only what the verifier judges by its value on each path may differ: numbers,
and addresses of one known kind; never a map, a function, or what a kfunc takes. Nothing that runs is added or left out.
It is done where it makes the program shorter, by a count of slots.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import fields

from bpflisp.ir import ssa
from bpflisp.ir.addresses import Space, points, root, space
from bpflisp.ir.clone import clone_function
from bpflisp.ir.dataflow import dominates, immediate_dominators
from bpflisp.ir.ssa import Block, Call, Const, Edge, Function, Instr, Jump, Leaf, Param, Value, operands
from bpflisp.lean import dataclass
from bpflisp.opt.cfg import drop_unreachable

_LARGEST_GROUP = 64
"""So many blocks are looked at together; of more that are alike, the first."""

_TAIL_CALL = 12


def merge_blocks(function: Function) -> bool:
    """The most worthwhile merge first, until none is worth it. Says whether there was one."""
    changed = _merge_all(function)
    if len({end.args[0] for end in _constant_returns(function).values()}) > 1:
        trial = clone_function(function)
        _hand_results(trial)
        if _best(trial) is not None:
            last = _hand_results(function)
            changed = _merge_all(function)
            _return_numbers(function, last)
    return changed


def _merge_all(function: Function) -> bool:
    changed = False
    while (found := _best(function)) is not None:
        _share(function, found)
        changed = True
    return changed


@dataclass(frozen=True, slots=True)
class _Merge:
    """Blocks, how many last instructions of their bodies they share, what each hands over, and what it saves.

    `holes` has, by instruction and operand, the values that stand there, one for each block.
    """

    blocks: Sequence[Block]
    length: int
    holes: Mapping[tuple[int, int], tuple[Value, ...]]
    saved: int


def _best(function: Function) -> _Merge | None:
    escaping = _escaping(function)
    best: _Merge | None = None
    for blocks in _alike(function):
        for group, length in _groups(blocks, 0):
            found = _judge(group, length, escaping)
            if found is not None and found.saved > 0 and (best is None or found.saved > best.saved):
                best = found
    return best


# What is returned may differ, if it is handed over to one return


def _constant_returns(function: Function) -> dict[Block, ssa.Return]:
    """The blocks that return a number."""
    ends = {block: block.end for block in function.blocks if isinstance(block.end, ssa.Return)}
    return {block: end for block, end in ends.items() if end.args and isinstance(end.args[0], Const)}


def _hand_results(function: Function) -> Block:
    """Let all blocks that return numbers hand them to one block that returns; those that did no more are passed by."""
    result = Param("result")
    last = Block([result], [], ssa.Return(args=[result]), "return")
    returns = _constant_returns(function)
    bare = {block for block in returns if not block.body and not block.params and block is not function.entry}
    for block in function.blocks:
        for edge in block.terminator.edges():
            if edge.block in bare:
                edge.args, edge.block = list(edge.block.terminator.args), last
    for block, end in returns.items():
        block.end = Jump(to=Edge(last, list(end.args)), position=end.position)
    function.blocks = [block for block in function.blocks if block not in bare]
    function.blocks.append(last)
    return last


def _return_numbers(function: Function, last: Block) -> None:
    """Where a number is handed to the block that returns, return it: the back end sees to what is shared."""
    bare: dict[Value, Block] = {}
    for block in function.blocks:
        end = block.terminator
        if isinstance(end, Jump) and end.to.block is last and isinstance(end.to.args[0], Const):
            block.end = ssa.Return(args=list(end.to.args), position=end.position)
            continue
        for edge in end.edges():
            if edge.block is last and isinstance(edge.args[0], Const):
                number = edge.args[0]
                bare.setdefault(number, Block([], [], ssa.Return(args=[number], position=end.position), "return"))
                edge.block, edge.args = bare[number], []
    function.blocks += bare.values()
    drop_unreachable(function)


# What is alike


def _alike(function: Function) -> list[list[Block]]:
    """Blocks that end in the same way, and not by going round a loop; and those that return the same and no more."""
    above = immediate_dominators(function)
    found: dict[Hashable, list[Block]] = {}
    for block in function.blocks:
        if block.body and not any(dominates(target, block, above) for target in block.successors()):
            found.setdefault(_shape(block.terminator), []).append(block)
        elif not block.body and isinstance(block.end, ssa.Return):
            found.setdefault(("bare", *block.end.args), []).append(block)
    return [blocks[:_LARGEST_GROUP] for blocks in found.values() if len(blocks) > 1]


def _groups(blocks: list[Block], length: int) -> Iterator[tuple[list[Block], int]]:
    """Groups of blocks whose last `length` or more instructions are alike but for their operands."""
    if length or not blocks[0].body:
        yield blocks, length
    longer: dict[Hashable, list[Block]] = {}
    for block in blocks:
        if len(block.body) > length:
            longer.setdefault(_shape(block.body[-1 - length]), []).append(block)
    for group in longer.values():
        if len(group) > 1:
            yield from _groups(group, length + 1)


_APART = frozenset({"args", "position", "to", "then", "other"})


def _shape(instr: Instr) -> Hashable:
    """All of an instruction but its operands."""
    own = tuple(getattr(instr, each.name) for each in fields(instr) if each.name not in _APART)
    if isinstance(instr, ssa.Terminator):
        return (type(instr), len(instr.args), own, *((edge.block, len(edge.args)) for edge in instr.edges()))
    return type(instr), len(instr.args), own


def _escaping(function: Function) -> set[Value]:
    """What is used in other blocks than its own."""
    found: set[Value] = set()
    for block in function.blocks:
        own = set(block.body)
        for instr in block.instructions():
            found.update(value for value in operands(instr) if isinstance(value, Instr) and value not in own)
    return found


# What may differ, and what it is worth


def _judge(blocks: Sequence[Block], length: int, escaping: set[Value]) -> _Merge | None:
    """The merge of these blocks' last instructions; None where something differs that may not."""
    tails = [[*block.body[len(block.body) - length :], block.terminator] for block in blocks]
    if any(instr in escaping for tail in tails for instr in tail):
        return None
    places = [{instr: index for index, instr in enumerate(tail)} for tail in tails]
    holes: dict[tuple[int, int], tuple[Value, ...]] = {}
    for index, instrs in enumerate(zip(*tails, strict=True)):
        for number, values in enumerate(zip(*(operands(instr) for instr in instrs), strict=True)):
            local = {place.get(value) for place, value in zip(places, values, strict=True)}
            if len(local) > 1:
                return None
            if local == {None} and any(value != values[0] for value in values):
                if not _may_differ(instrs[0], number, values):
                    return None
                holes[index, number] = values
    cost = sum(_slots(instr) for instr in tails[0])
    handed = sum(
        _price(value, tail) for hole in dict.fromkeys(holes.values()) for value, tail in zip(hole, tails, strict=True)
    )
    return _Merge(blocks, length, holes, (len(blocks) - 1) * (cost - 1) - handed)


def _may_differ(instr: Instr, number: int, values: Sequence[Value]) -> bool:
    """Whether an operand of the instruction may be a parameter that stands for these values."""
    if any(isinstance(value, Leaf) and not isinstance(value, Const) for value in values):
        return False
    match instr:
        case ssa.Load() | ssa.Store() | ssa.Atomic() if number == 0:
            return _one_known_space(values) and getattr(instr, "core", None) is None
        case ssa.ContextLoad() | ssa.ContextStore() if number == 0:
            return False
        case ssa.Zero() | ssa.Asm():
            return False
        case Call():
            return instr.kind is ssa.CallKind.HELPER and instr.number != _TAIL_CALL and _plain(values)
    return _plain(values) or _one_known_space(values)


def _plain(values: Sequence[Value]) -> bool:
    """Whether these are numbers, as far as it can be seen that they are none."""
    return not any(points(value) for value in values)


def _one_known_space(values: Sequence[Value]) -> bool:
    spaces = {space(root(value)[0]) for value in values}
    return len(spaces) == 1 and not spaces & {Space.UNKNOWN, Space.CONTEXT}


def _slots(instr: Instr) -> int:
    """About how many slots an instruction takes, with what puts its operands where they have to be."""
    match instr:
        case Call():
            return 1 + sum(2 if isinstance(arg, Leaf) and not isinstance(arg, Const) else 1 for arg in instr.args)
        case Jump() | ssa.Unreachable():
            return 0
        case ssa.Return():
            return 1 + len(instr.args)
        case ssa.Compare():
            return 3
        case ssa.Zero(size=size):
            return (size + 7) // 8
        case ssa.Atomic():
            return 2
    return 1


def _price(value: Value, tail: Sequence[Instr]) -> int:
    """What handing it over takes: nothing where it was made for these instructions."""
    if isinstance(value, Const):
        return 1
    used = sum(arg is value for instr in tail for arg in operands(instr))
    return 0 if used and isinstance(value, Instr) else 1


# The change


def _share(function: Function, merge: _Merge) -> None:
    """Make the block for all of the first one's instructions, and let all go on there."""
    handed = {hole: Param() for hole in merge.holes.values()}
    model = merge.blocks[0]
    start = len(model.body) - merge.length
    shared = Block(list(handed.values()), model.body[start:], model.end, model.name)
    positions = [[*block.body, block.terminator][len(block.body) - merge.length].position for block in merge.blocks]
    instrs = list(shared.instructions())
    for (index, number), hole in merge.holes.items():
        _set_operand(instrs[index], number, handed[hole])
    for number, block in enumerate(merge.blocks):
        block.body = block.body[: len(block.body) - merge.length]
        block.end = Jump(to=Edge(shared, [hole[number] for hole in handed]), position=positions[number])
    function.blocks.append(shared)


def _set_operand(instr: Instr, number: int, value: Value) -> None:
    """Write the operand of that number, in the order of `operands`."""
    lists = [instr.args, *(edge.args for edge in (instr.edges() if isinstance(instr, ssa.Terminator) else ()))]
    for args in lists:
        if number < len(args):
            args[number] = value
            return
        number -= len(args)
