"""`defstruct`, `defunion`, `defheader`: layouts and their accessors; `sizeof`."""

from __future__ import annotations

from bpflisp.diagnostics import warning
from bpflisp.front.declare import (
    defined_name,
    number_option,
    options_of,
    refuse_letters,
    scalar_or_struct,
    spelling,
    type_option,
)
from bpflisp.front.records import define_records
from bpflisp.front.types import (
    SCALARS,
    U64,
    ArrayOf,
    Number,
    Struct,
    c_name,
    lay_out,
)
from bpflisp.front.unit import Accessor, HeaderAccessor, Unit
from bpflisp.spec import contexts
from bpflisp.syntax.evaluator import Scope
from bpflisp.syntax.forms import (
    NIL,
    Cons,
    Symbol,
    cells,
    element_span,
    elements,
    fail,
    intern,
    text,
)

STRUCT_HELP = "a member is (name type) or (name (array type count)), a type u8 to u64, i8 to i64, ptr, or a struct"


def define_struct(unit: Unit, form: Cons, scope: Scope) -> object:
    """`(defstruct name (field type)...)`: a C layout, and accessors."""
    name, span, rest = defined_name(form, "struct")
    if name.name in SCALARS:
        raise fail("bad-name", f"`{text(name)}` is a scalar type, and cannot be a struct", span)
    members: list[tuple[str, Number | ArrayOf | Struct]] = []
    if isinstance(rest, Cons) and isinstance(rest.car, str):
        rest = rest.cdr  # what it is for, in words
    for cell in cells(rest):
        member, kind = _member(unit, cell, scope)
        if member in [known for known, _ in members]:
            raise fail("duplicate", f"the struct has a member `{member.lower()}` already", element_span(cell))
        members.append((member, kind))
    layout = lay_out(name.name, members)
    before = unit.structs.get(name.name)
    if before is not None and list(before.fields.values()) != list(layout.fields.values()):
        problem = f"a struct named `{text(name)}` exists already, with other members"
        because = "what is defined last holds, also for the maps and macros before it"
        unit.found.add(warning("duplicate", problem, span, because=because))
    add_struct(unit, layout)
    return name


def add_struct(unit: Unit, struct: Struct) -> None:
    """Make a struct's name, maker and accessors known."""
    unit.structs[struct.name] = struct
    define_records(unit, struct)
    unit.makers[f"MAKE-{struct.name}"] = struct
    for member in struct.fields:
        unit.accessors[f"{struct.name}-{member}"] = Accessor(struct, member, "get")
        unit.accessors[f"{struct.name}-{member}-PTR"] = Accessor(struct, member, "pointer")
        unit.accessors[f"SET-{struct.name}-{member}!"] = Accessor(struct, member, "set")


def define_union(unit: Unit, form: Cons, _: Scope) -> object:
    """`(defunion name struct...)`: as large as the largest; its members are reached through their own accessors."""
    name, _span, rest = defined_name(form, "union")
    members: list[tuple[str, Number | ArrayOf | Struct]] = []
    for cell in cells(rest):
        struct = unit.structs.get(cell.car.name) if isinstance(cell.car, Symbol) else None
        if struct is None:
            raise fail("unknown-type", f"no struct named `{text(cell.car)}` was defined before", element_span(cell))
        members.append((struct.name, struct))
    if not members:
        raise fail("bad-definition", f"the union `{text(name)}` has no members", form.span)
    add_struct(unit, lay_out(name.name, members, union=True))
    return name


def define_enum(unit: Unit, form: Cons, scope: Scope) -> object:
    """`(defenum name A (B 5) C)`: constants that count on from the one before, and a type of 32 bits."""
    name, _span, rest = defined_name(form, "enum", in_object=False)
    number = 0
    for cell in cells(rest):
        parts = elements(cell.car) if isinstance(cell.car, Cons) else [cell.car]
        given = unit.interpreter.value(parts[1], scope) if len(parts) == 2 else number
        if not isinstance(parts[0], Symbol) or parts[0] is NIL or len(parts) > 2 or not isinstance(given, int):
            help = "NAME or (NAME number)"
            raise fail("bad-member", f"`{text(cell.car)}` is no member of an enum", element_span(cell), help=help)
        unit.interpreter.variables[parts[0]] = given
        unit.interpreter.constants.add(parts[0])
        number = given + 1
    unit.enums.add(name.name)
    return name


def define_header(unit: Unit, form: Cons, scope: Scope) -> object:
    """`(defheader name (field :offset N :type T [:net-order BOOL])...)`: accessors, which are places too."""
    name, _span, rest = defined_name(form, "header", in_object=False)
    for cell in cells(rest):
        if not isinstance(cell.car, Cons) or not isinstance(cell.car.car, Symbol):
            help = "(field :offset N :type T [:net-order t])"
            raise fail("bad-member", f"`{text(cell.car)}` is no field of a header", element_span(cell), help=help)
        options = options_of(form, cell.car.cdr, (":OFFSET", ":TYPE", ":NET-ORDER"))
        if ":OFFSET" not in options or ":TYPE" not in options:
            raise fail("missing-option", f"`{text(cell.car)}` needs `:offset` and `:type`", element_span(cell))
        kind = type_option(unit, options, ":TYPE")
        if not isinstance(kind, Number):
            raise fail("unknown-type", "a field of a header is a scalar", element_span(options[":TYPE"]))
        swap = ":NET-ORDER" in options and unit.interpreter.value(options[":NET-ORDER"].car, scope) is not NIL
        offset = number_option(unit, form, options, ":OFFSET", scope)
        accessor = HeaderAccessor(offset, kind, swap and kind.bits in (16, 32))
        unit.headers[f"{name.name}-{cell.car.car.name}"] = accessor
    return name


def _member(unit: Unit, cell: Cons, scope: Scope) -> tuple[str, Number | ArrayOf | Struct]:
    parts = elements(cell.car) if isinstance(cell.car, Cons) else []
    if len(parts) == 3 and isinstance(parts[2], int):
        raise fail("not-built", f"`{text(cell.car)}` is a bit-field, and those are not built yet", element_span(cell))
    if len(parts) != 2 or not isinstance(parts[0], Symbol) or parts[0] is NIL:
        raise fail("bad-member", f"`{text(cell.car)}` is no member of a struct", element_span(cell), help=STRUCT_HELP)
    assert isinstance(cell.car, Cons)
    assert isinstance(cell.car.cdr, Cons)
    refuse_letters(parts[0], element_span(cell.car) or element_span(cell))
    return parts[0].name, member_type(unit, cell.car.cdr, scope)


def member_type(unit: Unit, cell: Cons, scope: Scope) -> Number | ArrayOf | Struct:
    """The type of a member, from the cell that it is written in."""
    form = cell.car
    if isinstance(form, Cons) and form.car is intern("ARRAY"):
        parts = elements(form)
        element: Number | ArrayOf | Struct | None = None
        if len(parts) == 3 and isinstance(form.cdr, Cons):
            nested = isinstance(parts[1], Cons)
            element = member_type(unit, form.cdr, scope) if nested else scalar_or_struct(unit, parts[1])
        count = unit.interpreter.value(parts[2], scope) if len(parts) == 3 else None
        if element is None or not isinstance(count, int) or not 0 < count < 1 << 20:
            raise fail("unknown-type", f"`{text(form)}` is no array type", element_span(cell), help=STRUCT_HELP)
        return ArrayOf(element, count)
    kind = scalar_or_struct(unit, form) or _kernel_type(form, cell)
    if kind is None:
        help = spelling(form) or STRUCT_HELP
        raise fail("unknown-type", f"`{text(form)}` is no type of a struct's member", element_span(cell), help=help)
    return kind


_POINTER = intern("PTR")
_MANAGED = ("BPF-SPIN-LOCK", "BPF-TIMER")
_OTHER_MANAGED = tuple(f"BPF-{name}" for name in (
    "DYNPTR", "WQ", "LIST-HEAD", "LIST-NODE", "RB-ROOT", "RB-NODE", "REFCOUNT", "RES-SPIN-LOCK", "TASK-WORK",
))  # fmt: skip


def _kernel_type(form: object, cell: Cons) -> Number | Struct | None:
    """A pointer, which is a word here; or one of the structs that the kernel manages inside a map's value."""
    if form is _POINTER or (isinstance(form, Cons) and form.car is _POINTER):
        return U64
    name = form.name if isinstance(form, Symbol) else ""
    if name in _OTHER_MANAGED:
        raise fail("not-built", f"`{text(form)}` in a struct is not built yet", element_span(cell))
    if name not in _MANAGED:
        head = form.car.name if isinstance(form, Cons) and isinstance(form.car, Symbol) else ""
        if head in ("BITS", "BIT", "BITFIELD"):
            raise fail("not-built", f"`{text(form)}` is a bit-field, and those are not built yet", element_span(cell))
        return None
    layout = contexts.struct(c_name(name))
    words = ArrayOf(U64, layout.size // 8) if layout.size >= 8 else Number(layout.size * 8)
    return lay_out(name, [(layout.fields[0].name.upper(), words)])


def size_of(unit: Unit, form: Cons, _: Scope) -> object:
    """`(sizeof NAME)` at compile time."""
    rest = elements(form.cdr)
    kind = scalar_or_struct(unit, rest[0]) if len(rest) == 1 else None
    if kind is None:
        raise fail("unknown-type", f"`{text(form)}`: no struct of that name was defined before", form.span)
    return kind.size
