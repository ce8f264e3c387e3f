"""CO-RE: `core-load`, `core-store`, `core-ctx-load`, whose offsets a loader moves to where the kernel has the member.

An access is described by a type that holds the accessed member alone, at the offset that the program gives: a loader
finds the kernel's member by the names on the way, through unions without a name too, and by the numbers of elements.
"""

from __future__ import annotations

from collections.abc import Sequence

from bpflisp.front import tree
from bpflisp.front.check import Checker, core, require_writable
from bpflisp.front.check_memory import offset
from bpflisp.front.tree import Tree
from bpflisp.front.types import U64, Number, Pointer, Region, c_name, to_btf
from bpflisp.ir.ssa import CoreAccess
from bpflisp.spec import btf_build as btf
from bpflisp.syntax.forms import Cons, Symbol, build, element_span, elements, fail, intern, text

_Path = Sequence[str | int]
"""The way to a member: C names of members and numbers of elements."""


def _kind(checker: Checker, cell: Cons) -> tuple[Number, btf.CType]:
    """What is accessed: a number, or `ptr`, which is a word here and a pointer to a loader, that tells them apart."""
    if isinstance(cell.car, Symbol) and cell.car.name == "PTR":
        return U64, btf.Pointer(btf.Void())
    kind = checker.scalar_type(cell)
    return kind, to_btf(kind)


def _path(checker: Checker, cell: Cons) -> _Path:
    """A member by its name, or a list that starts with it: of members within members, and of numbers of elements."""
    items = elements(cell.car) if isinstance(cell.car, Cons) else [cell.car]
    named = isinstance(items[0], Symbol)
    if not named or not all(isinstance(item, Symbol) or (isinstance(item, int) and item >= 0) for item in items):
        problem = f"`{text(cell.car, 60)}` does not name a member of a structure"
        help = "`pid`, or the way to it, `(se avg load-avg)` or `(comm 3)`"
        raise fail("bad-name", problem, element_span(cell), help=help)
    return [c_name(item.name) if isinstance(item, Symbol) else int(str(item)) for item in items]


def _wrapped(path: _Path, leaf: btf.CType, size: int) -> tuple[btf.CType, int, int]:
    """The type that holds the rest of a path, its size in bytes, and where in it the accessed bytes are."""
    if not path:
        return leaf, size, 0
    inner, size, at = _wrapped(path[1:], leaf, size)
    first = path[0]
    if isinstance(first, int):
        return btf.Array(inner, first + 1), size * (first + 1), at + size * first
    return btf.Struct("", size, [btf.Member(first, inner, 0)]), size, at


def _access(checker: Checker, struct_cell: Cons, path_cell: Cons, type_cell: Cons, off: int) -> CoreAccess:
    """The record of an access: its type is registered, and the access is the way to its only member."""
    if not isinstance(struct_cell.car, Symbol):
        raise fail("bad-name", f"`{text(struct_cell.car, 60)}` does not name a structure", element_span(struct_cell))
    (kind, leaf), path = _kind(checker, type_cell), _path(checker, path_cell)
    held, size, at = _wrapped(path[1:], leaf, kind.size)
    if off < at:
        problem = f"`{text(path_cell.car, 60)}` cannot lie at {off}: {at} bytes of the same member are before it"
        raise fail("bad-offset", problem, element_span(path_cell))
    name = c_name(struct_cell.car.name)
    member = btf.Member(str(path[0]), held, (off - at) * 8)
    key = f"{name}.{'.'.join(map(str, path))}:{text(type_cell.car)}@{off}"
    checker.unit.core_types[key] = btf.Struct(name, off - at + size, [member])
    steps = [0, 0, *(step if isinstance(step, int) else 0 for step in path[1:])]
    return CoreAccess(type_name=key, access=":".join(map(str, steps)))


def _address(checker: Checker, cell: Cons, what: str) -> Tree:
    """The address of a kernel structure: the stack, whose offsets lie in the instruction too, holds none that moves."""
    address = checker.address(cell, what)
    if isinstance(address.type, Pointer) and address.type.region is Region.STACK:
        problem = f"`{text(cell.car, 60)}` is {address.type.name}, where no kernel structure lies"
        because = "a loader moves the offset to where the running kernel has the member, and a copy stays as it is"
        raise fail("bad-pointer", problem, element_span(cell), because=because)
    return address


@core("core-load")
def _load(checker: Checker, form: Cons) -> Tree:
    """`(core-load T ptr off STRUCT FIELD)`."""
    type_cell, pointer, off_cell, struct, member = checker.args(form, 5, 5)
    kind, _ = _kind(checker, type_cell)
    address, off = _address(checker, pointer, "read"), offset(checker, off_cell)
    access = _access(checker, struct, member, type_cell, off)
    return tree.Load(
        address=address, off=off, size=kind.size, signed=kind.signed, core=access, type=kind, span=checker.span
    )


@core("core-store")
def _store(checker: Checker, form: Cons) -> Tree:
    """`(core-store T ptr off value STRUCT FIELD)`."""
    type_cell, pointer, off_cell, value_cell, struct, member = checker.args(form, 6, 6)
    kind, _ = _kind(checker, type_cell)
    address, off = _address(checker, pointer, "written"), offset(checker, off_cell)
    require_writable(address, pointer)
    value = checker.value(value_cell)
    access = _access(checker, struct, member, type_cell, off)
    return tree.Store(
        address=address, off=off, size=kind.size, value=value, core=access, type=value.type, span=checker.span
    )


@core("core-ctx-load")
def _context_load(checker: Checker, form: Cons) -> Tree:
    """`(core-ctx-load T off STRUCT FIELD)`."""
    type_cell, off_cell, struct, member = checker.args(form, 4, 4)
    kind, _ = _kind(checker, type_cell)
    off = offset(checker, off_cell)
    read = checker.form(build("CTX", intern(kind.name.upper()), off))
    if isinstance(read, tree.ContextLoad):
        read.core = _access(checker, struct, member, type_cell, off)
    return read
