"""Protocol headers: `(tcp-dst-port tcp)` reads a field and is a place, converted where the book converts."""

from __future__ import annotations

from bpflisp.front.check import LIBRARY, Checker
from bpflisp.front.check_arithmetic import head_of
from bpflisp.front.check_places import Place, loaded, memory
from bpflisp.front.tree import Tree
from bpflisp.front.types import Number
from bpflisp.front.unit import HeaderAccessor
from bpflisp.spec import headers
from bpflisp.syntax.forms import Cons

ACCESSORS = {
    f"{header.name}-{field.name}".upper(): HeaderAccessor(field.offset, Number(field.size * 8), field.convert)
    for header in headers.HEADERS.values()
    for field in header.fields
}
"""Upper-case name of an accessor -> the field."""


def _field(checker: Checker, form: Cons) -> HeaderAccessor:
    name = head_of(form)
    return checker.unit.headers.get(name) or ACCESSORS[name]


def read(checker: Checker, form: Cons) -> Tree:
    """A field, in the machine's byte order where it is one that is converted."""
    field = _field(checker, form)
    address = checker.address(checker.args(form, 1, 1)[0], "read")
    return loaded(checker, address, field.offset, field.type, field.swapped)


def header_place(checker: Checker, form: Cons, twice: bool) -> Place:
    """The field as a place: what is stored is converted as what is read is."""
    field = _field(checker, form)
    cell = checker.args(form, 1, 1)[0]
    address = checker.address(cell, "written")
    return memory(checker, address, field.offset, field.type, field.swapped, twice, cell)


LIBRARY.update(dict.fromkeys(ACCESSORS, read))
