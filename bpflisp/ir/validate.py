"""Says what is wrong with a function. Runs after each pass in tests, and after the front end."""

from __future__ import annotations

from collections.abc import Iterator

from bpflisp.ir import ssa
from bpflisp.ir.dataflow import children, immediate_dominators
from bpflisp.ir.ssa import Block, Function, Instr, Leaf, Param, Value
from bpflisp.ir.text import describe
from bpflisp.spec.isa import Op

_ARITY: dict[type[Instr], tuple[int, ...]] = {
    ssa.Binary: (2,), ssa.Compare: (2,), ssa.Extend: (1,), ssa.ByteOrder: (1,), ssa.Load: (1,),
    ssa.ContextLoad: (1,), ssa.Store: (2,), ssa.ContextStore: (2,), ssa.Zero: (1,), ssa.Atomic: (2, 3),
    ssa.Call: (0, 1, 2, 3, 4, 5), ssa.Jump: (0,), ssa.Branch: (2,), ssa.Return: (0, 1), ssa.Unreachable: (0,),
}  # fmt: skip
_SIZES = (1, 2, 4, 8)


class InvalidFunctionError(ValueError):
    """The function breaks a rule of the form; the message names all that were found."""


def validate(function: Function) -> None:
    """Raise InvalidFunctionError unless every rule holds."""
    if problems := list(find_problems(function)):
        raise InvalidFunctionError(f"{function.name}: " + "; ".join(problems))


def find_problems(function: Function) -> Iterator[str]:
    """All that is wrong, in words."""
    if not function.blocks:
        yield "it has no blocks"
        return
    if open_blocks := [block.name for block in function.blocks if block.end is None]:
        yield f"blocks without an end: {open_blocks}"
        return
    yield from _structure(function)
    if stray := {s for block in function.blocks for s in block.successors()} - set(function.blocks):
        yield f"jumps out of the function: {[block.name for block in stray]}"
        return
    for instr in function.instructions():
        yield from _fields(instr)
    yield from _dominance(function)


def _structure(function: Function) -> Iterator[str]:
    if len(function.params) > 5:
        yield "more than five parameters"
    if function.entry.params:
        yield "the entry takes parameters"
    if len(set(function.blocks)) != len(function.blocks):
        yield "a block comes twice"
    instrs = list(function.instructions())
    if len(set(instrs)) != len(instrs):
        yield "an instruction comes twice"
    for block in function.blocks:
        if any(isinstance(instr, ssa.Terminator) for instr in block.body):
            yield f"a terminator inside block {block.name}"
        for edge in block.terminator.edges():
            if edge.block is function.entry:
                yield "a jump to the entry"
            if len(edge.args) != len(edge.block.params):
                yield f"an edge with {len(edge.args)} arguments for {len(edge.block.params)} parameters"


def _fields(instr: Instr) -> Iterator[str]:
    for value in ssa.operands(instr):
        if isinstance(value, Instr) and not ssa.has_result(value):
            yield f"uses what has no result: {describe(instr)}"
    if len(instr.args) not in _ARITY.get(type(instr), (len(instr.args),)):
        yield f"a wrong number of operands: {describe(instr)}"
        return
    good = True
    match instr:
        case ssa.Binary(op=op, width=width):
            good = op in ssa.BINARY_OPS and width in (32, 64)
        case ssa.Compare(op=op, width=width) | ssa.Branch(op=op, width=width):
            good = op in ssa.COMPARE_OPS and width in (32, 64)
        case ssa.Extend(bits=bits):
            good = bits in (8, 16, 32)
        case ssa.ByteOrder(op=op, bits=bits):
            good = op in (Op.TO_BE, Op.TO_LE, Op.SWAP) and bits in (16, 32, 64)
        case ssa.Load(size=size) | ssa.ContextLoad(size=size) | ssa.Store(size=size) | ssa.ContextStore(size=size):
            good = size in _SIZES
        case ssa.Atomic(size=size, op=op):
            good = size in (4, 8) and (len(instr.args) == 3) == (op is Op.CMPXCHG)
        case ssa.Zero(off=off, size=size):
            slot = instr.args[0]
            good = isinstance(slot, ssa.Slot) and 0 <= off <= off + size <= slot.size
        case ssa.Asm(inputs=inputs):
            good = len(inputs) == len(instr.args)
    if not good:
        yield f"a field out of range: {describe(instr)}"


def _dominance(function: Function) -> Iterator[str]:
    """Every use is dominated by its definition."""
    dominators = immediate_dominators(function)
    if unreached := [block.name for block in function.blocks if block not in dominators]:
        yield f"blocks that cannot be reached: {unreached}"
    tree = children(dominators)
    known: set[Value] = set(function.params)
    stack: list[tuple[Block, bool]] = [(function.entry, False)]
    while stack:
        block, leaving = stack.pop()
        defined: list[Param | Instr] = [*block.params, *block.body]
        if leaving:
            known.difference_update(defined)
            continue
        known.update(block.params)
        for instr in block.instructions():
            if any(not isinstance(v, Leaf) and v not in known for v in ssa.operands(instr)):
                yield f"uses a value that need not be defined: {describe(instr)}"
            known.add(instr)
        stack.append((block, True))
        stack += [(child, False) for child in tree[block]]
