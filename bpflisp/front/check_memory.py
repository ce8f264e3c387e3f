"""Memory: `load`, `store`, `struct-alloc`, atomics, `memset`, `memcpy`, `stack-addr`."""

from __future__ import annotations

from collections.abc import Iterator

from bpflisp.front import tree
from bpflisp.front.check import Checker, core, library, require_writable
from bpflisp.front.check_arithmetic import binary, head_of
from bpflisp.front.check_helpers import require_helper
from bpflisp.front.check_places import Place, loaded, memory, once, place, sequence
from bpflisp.front.tree import Tree
from bpflisp.front.types import U64, UNKNOWN, Number, Pointer, Region, Type
from bpflisp.spec import helpers
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import STACK_SIZE, Kind, Op
from bpflisp.syntax.forms import Cons, Symbol, element_span, fail, text

MAX_OFFSET = 1 << 15


def offset(checker: Checker, cell: Cons) -> int:
    """A constant offset that an instruction can hold."""
    off = checker.constant(cell, "an offset")
    if not -MAX_OFFSET <= off < MAX_OFFSET:
        raise fail("bad-offset", f"the offset {off} is beyond 32767", element_span(cell))
    return off


def _displaced(checker: Checker, address: Tree, cell: Cons | None) -> tuple[Tree, int]:
    """An address and the constant offset from it; one that the program computes is added to the address."""
    if cell is None:
        return address, 0
    node = checker.value(cell)
    if isinstance(node, tree.Number) or node.type is UNKNOWN:
        off = checker.constant_of(node, cell, "an offset")
        if not -MAX_OFFSET <= off < MAX_OFFSET:
            raise fail("bad-offset", f"the offset {off} is beyond 32767", element_span(cell))
        return address, off
    if isinstance(node.type, Pointer):
        problem = f"an offset is a number of bytes, and `{text(cell.car, 60)}` is {node.type.name}"
        raise fail("bad-offset", problem, element_span(cell))
    return binary(Op.ADD, address, node), 0


@core("load")
def _load(checker: Checker, form: Cons) -> Tree:
    """`(load T ptr [off])`."""
    args = checker.args(form, 2, 3)
    kind = checker.scalar_type(args[0])
    address, off = _displaced(checker, checker.address(args[1], "read"), args[2] if len(args) > 2 else None)
    _check_bounds(checker, address, off, kind.size, args[1])
    return loaded(checker, address, off, kind)


def _check_bounds(checker: Checker, address: Tree, off: int, size: int, cell: Cons) -> None:
    """Warn of an access outside of the bytes that are known to be there."""
    kind = address.type
    if isinstance(kind, Pointer) and kind.size is not None and not 0 <= off <= kind.size - size:
        problem = (
            f"`{text(cell.car, 40)}` points to {kind.size} bytes, and this is about bytes {off} to {off + size - 1}"
        )
        checker.warn("memory-bounds", problem, element_span(cell))


@place("load")
def _load_place(checker: Checker, form: Cons, twice: bool) -> Place:
    args = checker.args(form, 2, 3)
    kind = checker.scalar_type(args[0])
    address, off = _displaced(checker, checker.address(args[1], "written"), args[2] if len(args) > 2 else None)
    _check_bounds(checker, address, off, kind.size, args[1])
    return memory(checker, address, off, kind, False, twice, args[1])


@core("store")
def _store(checker: Checker, form: Cons) -> Tree:
    """`(store T ptr off value)`."""
    type_cell, pointer, off_cell, value_cell = checker.args(form, 4, 4)
    kind = checker.scalar_type(type_cell)
    address, off = _displaced(checker, checker.address(pointer, "written"), off_cell)
    _check_bounds(checker, address, off, kind.size, pointer)
    value = checker.value(value_cell)
    return memory(checker, address, off, kind, False, False, pointer).write(value)


@core("asm")
def _asm(checker: Checker, form: Cons) -> Tree:
    """`(asm opcode dst src off imm)`: one raw instruction, all numbers known; its value is what `dst` then holds.

    What a register holds before it is whatever the compiler left there; the compiler keeps its own values out of the
    way of what the instruction writes. Jumps, exits, stores and 64-bit loads are refused, and calls but of helpers
    that take nothing, as `(asm #x85 0 0 0 5)`.
    """
    cells_ = checker.args(form, 5, 5)
    opcode, dst, src, off, imm = (checker.constant(cell, "an operand of `asm`") for cell in cells_)
    in_range = 0 <= opcode < 256 and 0 <= dst <= 9 and 0 <= src <= 10 and -(1 << 15) <= off < 1 << 15
    if not in_range or not -(1 << 31) <= imm < 1 << 32:
        problem = f"`{text(form, 60)}` has an operand that no instruction has"
        raise fail("bad-instruction", problem, help="(asm opcode dst src off imm)")
    insn = Insn(opcode, dst, src, off, imm - (1 << 32) if imm >> 31 == 1 else imm)
    if insn.row.kind is Kind.CALL and not src:
        return _asm_call(checker, imm, cells_[4])
    if insn.row.kind not in (Kind.ALU, Kind.NEG, Kind.END, Kind.LOAD, Kind.LOAD_SIGNED):
        problem = f"`asm` writes arithmetic and loads, and {opcode:#04x} is `{insn.row.kind}`"
        raise fail("bad-instruction", problem, element_span(cells_[0]))
    return tree.Asm(insn=insn, result=dst, span=checker.span)


def _asm_call(checker: Checker, number: int, cell: Cons) -> Tree:
    """A call by number, of a helper that takes nothing."""
    helper = helpers.by_id(number)
    if helper is None:
        raise fail("bad-instruction", f"no helper has the number {number}", element_span(cell))
    if helper.c_args:
        name = helper.short_name.replace("_", "-")
        because = "its arguments would be what registers happen to hold"
        raise fail("bad-instruction", f"`asm` cannot call `{name}`", because=because, help=f"({name} ...) calls it")
    require_helper(checker, helper.short_name)
    return tree.CallHelper(number=number, args=[], type=U64, span=checker.span)


@core("ld-btf-id")
def _ld_btf_id(checker: Checker, form: Cons) -> Tree:
    """`(ld-btf-id N)`: the kernel object that a BTF id of the running kernel names."""
    number = checker.constant(checker.args(form, 1, 1)[0], "a BTF id")
    if not 0 < number < 1 << 31:
        raise fail("bad-btf-id", f"{number} is no BTF id")
    return tree.TypeAddress(number=number, type=Pointer(Region.KERNEL), span=checker.span)


@core("struct-alloc")
def _struct_alloc(checker: Checker, form: Cons) -> Tree:
    """`(struct-alloc N)`: bytes on the stack, all zero, again each time that control comes by."""
    cell = checker.args(form, 1, 1)[0]
    size = checker.constant(cell, "a size")
    if not 0 < size <= STACK_SIZE:
        raise fail("stack-size", f"{size} bytes are not on the stack, which has {STACK_SIZE}", element_span(cell))
    return tree.Reserve(size=size, type=Pointer(Region.STACK, size=size), span=checker.span)


_ATOMICS = {
    "ATOMIC-ADD": (Op.ADD, False), "ATOMIC-AND": (Op.AND, False), "ATOMIC-OR": (Op.OR, False),
    "ATOMIC-XOR": (Op.XOR, False), "ATOMIC-FETCH-ADD": (Op.ADD, True), "ATOMIC-FETCH-AND": (Op.AND, True),
    "ATOMIC-FETCH-OR": (Op.OR, True), "ATOMIC-FETCH-XOR": (Op.XOR, True), "ATOMIC-XCHG": (Op.XCHG, True),
}  # fmt: skip


@core(*_ATOMICS)
def _atomic(checker: Checker, form: Cons) -> Tree:
    """`(atomic-add ptr off value [T])`; the fetching ones give the old value."""
    op, fetch = _ATOMICS[head_of(form)]
    args = checker.args(form, 3, 4)
    return _atomic_of(checker, op, args[:2], args[2:3], args[3] if len(args) > 3 else None, fetch)


@core("atomic-cmpxchg")
def _cmpxchg(checker: Checker, form: Cons) -> Tree:
    """`(atomic-cmpxchg ptr off expected new [T])` gives the old value."""
    args = checker.args(form, 4, 5)
    return _atomic_of(checker, Op.CMPXCHG, args[:2], args[2:4], args[4] if len(args) > 4 else None, True)


def _atomic_of(
    checker: Checker, op: Op, where: list[Cons], value_cells: list[Cons], type_cell: Cons | None, fetch: bool
) -> Tree:
    kind = checker.scalar_type(type_cell) if type_cell else U64
    if kind.bits < 32:
        problem = f"there is no atomic operation on a {kind.name}"
        span = element_span(type_cell) if type_cell else None
        raise fail("atomic-size", problem, span, because="it takes 4 or 8 bytes")
    address = checker.address(where[0], "written")
    require_writable(address, where[0])
    off = offset(checker, where[1])
    if off % kind.size:
        problem = f"the offset {off} is no multiple of {kind.size}, the bytes of a {kind.name}"
        raise fail("atomic-alignment", problem, element_span(where[1]))
    values = [checker.value(cell) for cell in value_cells]
    result = Number(kind.bits) if fetch else U64
    return tree.Atomic(
        op=op, address=address, off=off, size=kind.size, values=values, fetch=fetch, type=result, span=checker.span
    )


@core("stack-addr")
def _stack_addr(checker: Checker, form: Cons) -> Tree:
    """`(stack-addr var)`: the address of the variable's value on the stack.

    What is written there is what the variable is read as. An assignment to the variable is not seen there: it is seen
    by the next `(stack-addr var)`.
    """
    cell = checker.args(form, 1, 1)[0]
    local = checker.find(cell.car) if isinstance(cell.car, Symbol) else None
    if local is None:
        raise fail("unknown-variable", f"`{text(cell.car, 60)}` is no variable that is bound here", element_span(cell))
    local.reads += 1
    local.examined = local.addressed = True
    if isinstance(local.type, Number):
        local.type = local.declared or U64
    size = local.declared.size if local.declared else 8
    return tree.AddressOf(local=local, type=Pointer(Region.STACK, size=size), span=checker.span)


# Blocks of bytes

MAX_BLOCK = 1024
"""Bytes that `memset` and `memcpy` unroll."""


def chunks(size: int, *places: tuple[Tree, int], widest: int = 8) -> Iterator[tuple[int, int]]:
    """Offsets and sizes of the accesses that cover `size` bytes at each of some places: an address and an offset.

    The kernel refuses an access to the stack that is not aligned; of packets alone it is known that they lie elsewhere.
    """
    off = 0
    while off < size:
        width = widest
        while width > size - off or not all(_aligned(node.type, start + off, width) for node, start in places):
            width //= 2
        yield off, width
        off += width


def _aligned(kind: Type, off: int, width: int) -> bool:
    if isinstance(kind, Pointer) and kind.region is not Region.PACKET:
        return off % width == 0 and width <= kind.align
    return width == 1 or isinstance(kind, Pointer) or off % width == 0


def _block_size(checker: Checker, cell: Cons) -> int:
    size = checker.constant(cell, "a number of bytes")
    if not 0 <= size <= MAX_BLOCK:
        raise fail("block-size", f"{size} bytes are not within 0 to {MAX_BLOCK}", element_span(cell))
    return size


@library("memset")
def _memset(checker: Checker, form: Cons) -> Tree:
    """`(memset ptr off value n)`: the low byte of the value, n times."""
    pointer, off_cell, value_cell, size_cell = checker.args(form, 4, 4)
    setup: list[Tree] = []
    address = checker.address(pointer, "written")
    require_writable(address, pointer)
    base = once(checker, address, setup)
    start = offset(checker, off_cell)
    value = checker.value(value_cell)
    size = _block_size(checker, size_cell)
    _check_bounds(checker, address, start, size, pointer)
    widest = 8
    if isinstance(value, tree.Number):
        value = tree.Number(value=(value.value & 0xFF) * 0x0101010101010101, span=checker.span)
    else:
        value, widest = once(checker, value, setup, "byte"), 1
    for off, width in chunks(size, (base, start), widest=widest):
        setup.append(tree.Store(address=base, off=start + off, size=width, value=value, span=checker.span))
    return sequence(checker, [*setup, tree.Number(value=0, span=checker.span)])


@library("memcpy")
def _memcpy(checker: Checker, form: Cons) -> Tree:
    """`(memcpy to to-off from from-off n)`: the places may not overlap."""
    to_cell, to_off_cell, from_cell, from_off_cell, size_cell = checker.args(form, 5, 5)
    setup: list[Tree] = []
    target = checker.address(to_cell, "written")
    require_writable(target, to_cell)
    to = once(checker, target, setup)
    to_off = offset(checker, to_off_cell)
    source = once(checker, checker.address(from_cell, "read"), setup)
    from_off = offset(checker, from_off_cell)
    size = _block_size(checker, size_cell)
    _check_bounds(checker, target, to_off, size, to_cell)
    _check_bounds(checker, source, from_off, size, from_cell)
    for off, width in chunks(size, (to, to_off), (source, from_off)):
        part = tree.Load(address=source, off=from_off + off, size=width, span=checker.span)
        setup.append(tree.Store(address=to, off=to_off + off, size=width, value=part, span=checker.span))
    return sequence(checker, [*setup, tree.Number(value=0, span=checker.span)])
