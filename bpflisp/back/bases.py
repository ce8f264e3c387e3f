"""Which operand of a sum is the address, where kernels before 7.2 have to see an address plus a number.

They take a number plus an address on the stack for the stack of the program's first function (the rule
`sums-are-the-pointer`): in a function that is called, the frame is then made too small, and a store there overwrites
what the caller keeps in registers. So the sum takes the register of the address.
"""

from __future__ import annotations

from collections.abc import Iterator

from bpflisp.ir import ssa
from bpflisp.ir.addresses import points, root
from bpflisp.ir.ssa import Binary, Function, Instr, Slot, Value, incoming_edges
from bpflisp.spec.isa import Op

ADDRESS = 8
"""Bytes of an address in memory."""


def bases(function: Function) -> dict[Instr, Value]:
    """The sums that may be addresses on a stack, each with the operand that is the address.

    In a program, whose own stack the kernel is right about, those that are surely on it; in a subprogram, which may be
    given the address of its caller's stack, all that are used as addresses.
    """
    sums = [
        instr
        for block in function.blocks
        for instr in block.body
        if isinstance(instr, Binary) and instr.op is Op.ADD and instr.width == 64
    ]
    found: dict[Instr, Value] = {}
    used = set() if function.program or not sums else _used_as_addresses(function)
    for each in sums:
        on_stack = [arg for arg in each.args if isinstance(root(arg)[0], Slot)]
        if on_stack:
            found[each] = on_stack[0]
        elif each in used:
            found[each] = _base(each)
    return found


def _base(each: Binary) -> Value:
    """The operand that is the address: the one that is known to be, else the one that may be, else the left, where
    addresses are written.
    """
    left, right = each.args
    if points(left) or points(right):
        return left if points(left) else right
    return right if _is_number(left) and not _is_number(right) else left


def _is_number(value: Value) -> bool:
    """Whether the value is surely no address: fewer bytes than one has, or the result of other arithmetic."""
    match value:
        case ssa.Load(size=size) | ssa.ContextLoad(size=size):
            return size < ADDRESS
        case Binary(op=op, width=width):
            return width == 32 or op not in (Op.ADD, Op.SUB)
    return isinstance(value, ssa.Const | ssa.Extend | ssa.ByteOrder | ssa.Compare)


def _used_as_addresses(function: Function) -> set[Value]:
    """What memory is accessed by or a call is given, and what such a value was computed from."""
    incoming = incoming_edges(function)
    handed: dict[Value, list[Value]] = {
        param: [edge.args[at] for _, edge in incoming[block]]
        for block in function.blocks
        for at, param in enumerate(block.params)
    }
    todo = list(_bases_of_accesses(function))
    used: set[Value] = set()
    while todo:
        value = todo.pop()
        if value in used:
            continue
        used.add(value)
        if isinstance(value, Binary) and value.op is Op.ADD:
            todo.append(_base(value))
        else:
            todo += handed.get(value, [])
    return used


def _bases_of_accesses(function: Function) -> Iterator[Value]:
    for instr in function.instructions():
        if isinstance(instr, ssa.Load | ssa.Store | ssa.Atomic):
            yield instr.args[0]
        elif isinstance(instr, ssa.Call):
            yield from instr.args
