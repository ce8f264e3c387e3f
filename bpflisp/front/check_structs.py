"""Structs: makers, accessors, `sizeof`, `struct-ref` and `struct-set`."""

from __future__ import annotations

from bpflisp.front import tree
from bpflisp.front.check import TOLD, Checker, core
from bpflisp.front.check_arithmetic import binary, head_of
from bpflisp.front.check_places import Place, loaded, memory, place, pointer_to, sequence
from bpflisp.front.declare import scalar_or_struct
from bpflisp.front.tree import Tree
from bpflisp.front.types import ArrayOf, Field, Number, Pointer, Region, Struct
from bpflisp.spec.isa import Op
from bpflisp.syntax.forms import Cons, Symbol, element_span, fail, text


def make(checker: Checker, form: Cons) -> Tree:
    """`(make-NAME)`: a struct on the stack, all zero."""
    checker.args(form, 0, 0)
    struct = checker.unit.makers[head_of(form)]
    kind = Pointer(Region.STACK, struct, size=struct.size)
    return tree.Reserve(size=struct.size, type=kind, span=checker.span)


def accessor(checker: Checker, form: Cons) -> Tree:
    """`(NAME-FIELD ptr [index])`, `(NAME-FIELD-ptr ptr [index])`, `(set-NAME-FIELD! ptr [index] value)`."""
    found = checker.unit.accessors[head_of(form)]
    member = found.struct.fields[found.member]
    if found.kind == "set":
        return _set(checker, form, member)
    args = checker.args(form, 1, 1 + _dimensions(member))
    address, off, kind = _locate(checker, args, member, found.kind == "pointer")
    if found.kind == "get" and isinstance(kind, Number):
        return loaded(checker, address, off, kind)
    return pointer_to(address, off, kind)


def _locate(
    checker: Checker, args: list[Cons], member: Field, whole: bool
) -> tuple[Tree, int, Number | ArrayOf | Struct]:
    """The address, offset and type of what an accessor is about: the member, or one element of it."""
    address = checker.address(args[0], "read" if not whole else "pointed into")
    _check_struct(checker, address, args[0], member)
    off, kind = member.offset, member.type
    if isinstance(kind, ArrayOf) and len(args) < 2 and not whole:
        name = member.name.lower()
        raise fail(
            "argument-count", f"`{name}` is an array, and needs an index", help=f"`...-{name}-ptr` is its address"
        )
    for cell in args[1:]:
        assert isinstance(kind, ArrayOf)
        address, off = _element(checker, address, off, kind, cell)
        kind = kind.element
    return address, off, kind


def _dimensions(member: Field) -> int:
    return member.type.dimensions if isinstance(member.type, ArrayOf) else 0


def _check_struct(checker: Checker, address: Tree, cell: Cons, member: Field) -> None:
    """Warn where the address is known to be of fewer bytes than the member lies at."""
    kind, end = address.type, member.offset + member.type.size
    if isinstance(kind, Pointer) and kind.size is not None and end > kind.size:
        checker.warn(
            "struct-bounds",
            f"`{text(cell.car, 40)}` points to {kind.size} bytes, and this member ends at byte {end}",
            element_span(cell),
        )


def _element(checker: Checker, address: Tree, off: int, array: ArrayOf, cell: Cons) -> tuple[Tree, int]:
    """The address and offset of an array's element."""
    size = array.element.size
    index = checker.value(cell)
    if isinstance(index, tree.Number):
        if index.value >= array.count:
            shown = text(cell.car, 40)
            problem = f"the index {shown} is outside of {array.count} elements"
            checker.warn("array-index", problem, element_span(cell))
        return address, off + index.value * size
    scaled = index if size == 1 else binary(Op.MUL, index, tree.Number(value=size))
    return binary(Op.ADD, binary(Op.ADD, address, scaled), tree.Number(value=off)), 0


def _set(checker: Checker, form: Cons, member: Field) -> Tree:
    count = 2 + _dimensions(member)
    args = checker.args(form, count, count)
    found = _place(checker, args[:-1], member, False)
    return sequence(checker, [*found.setup, found.write(checker.value(args[-1]))])


def accessor_place(checker: Checker, form: Cons, twice: bool) -> Place:
    """`(NAME-FIELD ptr [index])` as a place."""
    found = checker.unit.accessors[head_of(form)]
    if found.kind != "get":
        raise fail("bad-place", f"`{text(form, 60)}` is an address, and no place that can be assigned to")
    member = found.struct.fields[found.member]
    return _place(checker, checker.args(form, 1, 1 + _dimensions(member)), member, twice)


def _place(checker: Checker, args: list[Cons], member: Field, twice: bool) -> Place:
    address, off, kind = _locate(checker, args, member, False)
    if not isinstance(kind, Number):
        problem = f"`{member.name.lower()}` is no number, and cannot be assigned as a whole"
        raise fail("bad-place", problem, help="`memcpy` copies bytes")
    return memory(checker, address, off, kind, False, twice, args[0])


@core("sizeof")
def _sizeof(checker: Checker, form: Cons) -> Tree:
    cell = checker.args(form, 1, 1)[0]
    return checker.number(_struct_or_scalar(checker, cell).size)


def _struct_or_scalar(checker: Checker, cell: Cons) -> Number | Struct:
    kind = scalar_or_struct(checker.unit, cell.car)
    if kind is None and isinstance(cell.car, Symbol) and checker.unit.is_broken(cell.car.name):
        raise TOLD
    if kind is None:
        known = " ".join(sorted(name.lower() for name in checker.unit.structs))
        problem = f"no struct is named `{text(cell.car)}`"
        raise fail("unknown-type", problem, element_span(cell), help=known and f"there is {known}")
    return kind


def _explicit(checker: Checker, struct_cell: Cons, field_cell: Cons) -> Field:
    struct = _struct_or_scalar(checker, struct_cell)
    name = field_cell.car.name if isinstance(field_cell.car, Symbol) else ""
    found = struct.fields.get(name) if isinstance(struct, Struct) else None
    if found is None:
        known = " ".join(each.lower() for each in struct.fields) if isinstance(struct, Struct) else ""
        problem = f"`{text(struct_cell.car)}` has no member `{text(field_cell.car)}`"
        raise fail("unknown-member", problem, element_span(field_cell), help=known and f"it has {known}")
    return found


@core("struct-ref")
def _struct_ref(checker: Checker, form: Cons) -> Tree:
    """`(struct-ref NAME ptr FIELD)`."""
    struct, pointer, member_cell = checker.args(form, 3, 3)
    member = _explicit(checker, struct, member_cell)
    address, off, kind = _locate(checker, [pointer], member, not isinstance(member.type, Number))
    return loaded(checker, address, off, kind) if isinstance(kind, Number) else pointer_to(address, off, kind)


@core("struct-set")
def _struct_set(checker: Checker, form: Cons) -> Tree:
    """`(struct-set NAME ptr FIELD value)`."""
    struct, pointer, member_cell, value = checker.args(form, 4, 4)
    found = _place(checker, [pointer], _explicit(checker, struct, member_cell), False)
    return sequence(checker, [*found.setup, found.write(checker.value(value))])


@place("struct-ref")
def _struct_ref_place(checker: Checker, form: Cons, twice: bool) -> Place:
    struct, pointer, member_cell = checker.args(form, 3, 3)
    return _place(checker, [pointer], _explicit(checker, struct, member_cell), twice)
