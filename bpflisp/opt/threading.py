"""Threads jumps past tests whose outcome the way that led there decides.

Contract: an edge to a block that holds no instruction but a branch, whose outcome is known on that edge (by a constant
that it hands over, or by a branch that it has passed), goes straight to where the branch would go. Conditions that
were passed are those of blocks that dominate the edge's source through single ways in.
"""

from __future__ import annotations

from bpflisp.ir import ssa
from bpflisp.ir.addresses import REACH, Space, root, space
from bpflisp.ir.dataflow import immediate_dominators
from bpflisp.ir.ssa import Block, Branch, Const, Edge, Function, Leaf, Value, incoming_edges
from bpflisp.opt.cfg import drop_unreachable
from bpflisp.opt.rules import INVERSE
from bpflisp.spec.alu import compare, signed
from bpflisp.spec.isa import Op

Test = tuple[Op, int, Value, Value]

_REMEMBERED = 64
"""So many passed tests are looked at: more would make long chains of branches slow, and are never near."""


def thread_jumps(function: Function) -> bool:
    """One round over all edges. Says whether one was moved."""
    facts = conditions(function)
    changed = False
    for block in function.blocks:
        for number, edge in enumerate(block.terminator.edges()):
            known = [*facts.get(block, ()), *_own_condition(block, number)]
            if _thread(block, edge, known, function):
                changed = True
    changed |= _fold_decided(function, facts)
    drop_unreachable(function)
    return changed


def _own_condition(block: Block, number: int) -> list[Test]:
    end = block.end
    if not isinstance(end, Branch) or end.then.block is end.other.block:
        return []
    return _holding(end, taken=number == 0)


def _holding(end: Branch, taken: bool) -> list[Test]:
    left, right = end.args
    if taken:
        return [(end.op, end.width, left, right)]
    return [(INVERSE[end.op], end.width, left, right)] if end.op in INVERSE else []


def conditions(function: Function) -> dict[Block, list[Test]]:
    """For each block the tests that hold when it is entered: those of the branches that alone lead to it or to a
    block that dominates it.
    """
    incoming = incoming_edges(function)
    dominators = immediate_dominators(function)
    facts: dict[Block, list[Test]] = {}
    for block in dominators:
        above = dominators[block]
        known = [] if above is block else list(facts.get(above, []))
        if len(incoming[block]) == 1:
            source, edge = incoming[block][0]
            end = source.terminator
            if isinstance(end, Branch) and end.then.block is not end.other.block:
                known += _holding(end, taken=edge is end.then)
        facts[block] = known[-_REMEMBERED:]
    return facts


def decide(op: Op, width: int, left: Value, right: Value, known: list[Test]) -> bool | None:
    """Whether the comparison holds, by the tests that do; None where they do not say."""
    if isinstance(left, Const) and isinstance(right, Const):
        return compare(op, width, left.number, right.number)
    for test in reversed(known):
        outcome = _implied(op, width, left, right, test)
        if outcome is not None:
            return outcome
    return None


def _implied(op: Op, width: int, left: Value, right: Value, test: Test) -> bool | None:
    """What one test that holds says about a comparison of the same value."""
    known, known_width, a, b = test
    if known_width != width:
        return None
    if a != left:
        return _implied_by_longer(op, left, known, a) if b == right and width == 64 else None
    if b == right:
        if known is op:
            return True
        if INVERSE.get(known) is op:
            return False
    if isinstance(b, Const) and isinstance(right, Const) and known is not Op.NE:
        if known is Op.EQ:
            return compare(op, width, b.number, right.number)
        return _by_range(op, width, right.number, known, b.number)
    return None


def _implied_by_longer(op: Op, left: Value, known: Op, other: Value) -> bool | None:
    """What a check of more, or fewer, packet bytes says: `data + 54 <= end` that `data + 14 <= end`."""
    base, distance = root(left)
    other_base, other_distance = root(other)
    if base != other_base or space(base) is not Space.PACKET or distance is None or other_distance is None:
        return None
    if not (0 <= distance <= REACH and 0 <= other_distance <= REACH):
        return None
    if known is Op.LE and distance <= other_distance and op in (Op.LE, Op.GT):
        return op is Op.LE
    if known is Op.GT and distance >= other_distance and op in (Op.LE, Op.GT):
        return op is Op.GT
    return None


def _by_range(op: Op, width: int, number: int, known: Op, bound: int) -> bool | None:
    """What `x known bound` says about `x op number`, both unsigned or both signed."""
    reach = _interval(known, bound, width)
    if reach is None:
        return None
    if op in (Op.EQ, Op.NE):
        signedness = known in (Op.SGT, Op.SGE, Op.SLT, Op.SLE)
        value = signed(number, width) if signedness else number & ((1 << width) - 1)
        return (op is Op.NE) if not reach[0] <= value <= reach[1] else None
    wanted = _interval(op, number, width)
    if wanted is None or (op in (Op.GT, Op.GE, Op.LT, Op.LE)) != (known in (Op.GT, Op.GE, Op.LT, Op.LE)):
        return None
    if wanted[0] <= reach[0] and reach[1] <= wanted[1]:
        return True
    return False if reach[1] < wanted[0] or wanted[1] < reach[0] else None


def _interval(op: Op, bound: int, width: int) -> tuple[int, int] | None:
    """The numbers that compare so with `bound`, as a closed interval."""
    top = (1 << width) - 1
    low, high, at = 0, top, bound & top
    if op in (Op.SGT, Op.SGE, Op.SLT, Op.SLE):
        low, high, at = -(1 << width - 1), (1 << width - 1) - 1, signed(bound, width)
    match op:
        case Op.GT | Op.SGT:
            return at + 1, high
        case Op.GE | Op.SGE:
            return at, high
        case Op.LT | Op.SLT:
            return low, at - 1
        case Op.LE | Op.SLE:
            return low, at
    return None


def _thread(source: Block, edge: Edge, known: list[Test], function: Function) -> bool:
    """Move one edge past the branch of an otherwise empty block, if its outcome is known."""
    middle = edge.block
    end = middle.end
    if middle.body or not isinstance(end, Branch) or middle is source or middle is function.entry:
        return False
    handed: dict[Value, Value] = dict(zip(middle.params, edge.args, strict=True))
    left, right = (handed.get(arg, arg) for arg in end.args)
    outcome = decide(end.op, end.width, left, right, known)
    if outcome is None:
        return False
    onward = end.then if outcome else end.other
    if onward.block is middle:
        return False
    readers = _readers_beyond(middle, onward.block)
    if readers and not _hand_over(middle, onward, readers, function):
        return False
    # What the edge hands over may have got a new name just now.
    handed = dict(zip(middle.params, edge.args, strict=True))
    edge.block, edge.args = onward.block, [handed.get(arg, arg) for arg in onward.args]
    return True


def _readers_beyond(middle: Block, onward: Block) -> list[Block]:
    """The blocks that are reached from `onward` without passing `middle`, and read a parameter of `middle`.

    The edge that is moved makes a way there on which the parameter has no value. Values of other blocks stay defined:
    `middle` has no instructions of its own, and what dominates it dominates the edge's source.
    """
    own = set(middle.params)
    if not own:
        return []
    beyond = _reachable(onward, middle)
    return [b for b in beyond if any(v in own for instr in b.instructions() for v in ssa.operands(instr))]


def _reachable(start: Block, without: Block) -> list[Block]:
    """The blocks that are reached from `start` without passing the other."""
    seen = {start: None, without: None}
    todo = [start]
    while todo:
        for successor in todo.pop().successors():
            if successor not in seen:
                seen[successor] = None
                todo.append(successor)
    return [block for block in seen if block is not without]


def _hand_over(middle: Block, onward: Edge, readers: list[Block], function: Function) -> bool:
    """Let `onward` take what its readers need of the parameters of `middle` as parameters of its own.

    That is how a loop whose first test is decided comes to be tested at its end. It is possible where `middle` alone
    leads there, and nobody is a reader that control reaches without passing there.
    """
    target = onward.block
    if len(incoming_edges(function)[target]) != 1 or target is function.entry:
        return False
    outside = set(_reachable(function.entry, target))
    if any(reader in outside for reader in readers):
        return False
    new: dict[Value, Value] = {}
    for param in middle.params:
        twin = ssa.Param(param.name)
        target.params.append(twin)
        onward.args.append(param)
        new[param] = twin
    for reader in readers:
        for instr in reader.instructions():
            ssa.replace_operands(instr, {v: new[v] for v in ssa.operands(instr) if v in new})
    return True


def _fold_decided(function: Function, facts: dict[Block, list[Test]]) -> bool:
    """A branch that repeats one it lies below has a known outcome."""
    changed = False
    for block in function.blocks:
        end = block.end
        if isinstance(end, Branch) and not all(isinstance(arg, Leaf) for arg in end.args):
            outcome = decide(end.op, end.width, end.args[0], end.args[1], facts.get(block, []))
            if outcome is not None:
                block.end = ssa.Jump(to=end.then if outcome else end.other, position=end.position)
                changed = True
    return changed
