"""`defglobal` and `defsubprog`."""

from __future__ import annotations

from dataclasses import replace

from bpflisp.diagnostics import Span
from bpflisp.front.declare import (
    defined_name,
    options_of,
    refuse_duplicate,
)
from bpflisp.front.declare_structs import member_type
from bpflisp.front.objects import MAX_PARAMETERS, GlobalDecl, SubprogramDecl
from bpflisp.front.types import (
    SCALARS,
    U32,
    U64,
    ArrayOf,
    Number,
    Pointer,
    Region,
    Struct,
    Type,
)
from bpflisp.front.unit import Unit
from bpflisp.syntax.evaluator import Scope
from bpflisp.syntax.forms import (
    NIL,
    Cons,
    FormError,
    Symbol,
    cells,
    element_span,
    elements,
    fail,
    intern,
    text,
)


def define_global(unit: Unit, form: Cons, scope: Scope) -> object:
    """`(defglobal name TYPE [value] [:constant t])`: a number, an array or a struct; zero where no value is given."""
    name, span, rest = defined_name(form, "global")
    refuse_duplicate(unit, name, span, "global")
    if not isinstance(rest, Cons):
        raise fail("bad-definition", f"the global `{text(name)}` has no type", span, help="(defglobal name u64 0)")
    kind = member_type(unit, rest, scope)
    value: object = NIL
    value_cell, plist = rest, rest.cdr
    if isinstance(plist, Cons) and not (isinstance(plist.car, Symbol) and plist.car.is_keyword):
        value_cell, plist = plist, plist.cdr
        value = unit.interpreter.value(value_cell.car, scope)
    options = options_of(form, plist, (":CONSTANT",))
    constant = ":CONSTANT" in options and unit.interpreter.value(options[":CONSTANT"].car, scope) is not NIL
    content = _content(kind, value, element_span(value_cell) or form.span)
    unit.globals[name.name] = GlobalDecl(name.name, kind, content, constant, span)
    return name


def _content(kind: Number | ArrayOf | Struct, value: object, span: Span | None) -> bytes:
    """The bytes of an initial value."""
    if value is NIL:
        return bytes(kind.size)
    if isinstance(kind, Number) and isinstance(value, int) and kind.holds(value):
        return (value & ((1 << kind.bits) - 1)).to_bytes(kind.size, "little")
    if isinstance(kind, ArrayOf):
        data = value.encode() + b"\0" if isinstance(value, str) and kind.element.size == 1 else b""
        items = value if isinstance(value, list) else elements(value) if isinstance(value, Cons) else []
        data = data or b"".join(_content(kind.element, item, span) for item in items)
        if data and len(data) <= kind.size:
            return data.ljust(kind.size, b"\0")
    raise fail("bad-value", f"`{text(value, 60)}` is no value of this type, or does not fit into it", span)


def define_subprogram(unit: Unit, form: Cons, _: Scope) -> object:
    """`(defsubprog name (param...) body...)`; a parameter is a name, `(name TYPE)`, `(name ptr)`, `(name (ptr STRUCT))`
    or `(name ctx)`. `(declare (global))` at the head of the body has the kernel verify it on its own."""
    name, span, rest = defined_name(form, "subprogram")
    refuse_duplicate(unit, name, span, "subprogram")
    if not isinstance(rest, Cons) or not (isinstance(rest.car, Cons) or rest.car is NIL):
        help = "(defsubprog name (parameter...) body...)"
        raise fail("bad-definition", f"the subprogram `{text(name)}` has no list of parameters", span, help=help)
    params = list(cells(rest.car))
    if len(params) > MAX_PARAMETERS:
        raise fail("argument-count", f"a subprogram takes at most {MAX_PARAMETERS} arguments, not {len(params)}", span)
    body = rest.cdr
    is_global = isinstance(body, Cons) and text(body.car) == "(declare (global))"
    if is_global and isinstance(body, Cons):
        body = body.cdr
    unit.subprograms[name.name] = SubprogramDecl(name.name, params, body, is_global, span)
    return name


def settle_parameters(unit: Unit) -> None:
    """Give parameters their types, once all structs are known: a subprogram may stand before them."""
    for decl in unit.subprograms.values():
        try:
            decl.params = [_parameter(unit, cell, decl.is_global) for cell in decl.written]
        except FormError as problem:
            unit.found.add(replace(problem.diagnostic, span=problem.diagnostic.span or decl.span))
            unit.broken.add(decl.name)


def _parameter(unit: Unit, cell: Cons, is_global: bool) -> tuple[object, Type, Span | None]:
    """A parameter's name, type and place. Of a global subprogram the kernel takes every pointer for one that may be
    null."""
    parts = elements(cell.car) if isinstance(cell.car, Cons) else [cell.car]
    kind = _parameter_type(unit, parts[1]) if len(parts) == 2 else U64 if len(parts) == 1 else None
    if kind is None or not isinstance(parts[0], Symbol) or parts[0] is NIL:
        help = "a parameter is name, (name TYPE), (name ptr), (name (ptr STRUCT)) or (name ctx)"
        raise fail(
            "bad-parameter", f"`{text(cell.car)}` is no parameter of a subprogram", element_span(cell), help=help
        )
    if is_global and isinstance(kind, Pointer) and kind.region is not Region.CONTEXT:
        kind = replace(kind, maybe_null=True)
    return parts[0], kind, element_span(cell)


def _parameter_type(unit: Unit, form: object) -> Type | None:
    if isinstance(form, Symbol):
        if form.name == "CTX":
            return Pointer(Region.CONTEXT)
        if form.name == "PTR":
            return Pointer(Region.OTHER)
        return SCALARS.get(form.name) or (U32 if form.name in unit.enums else None)
    if isinstance(form, Cons) and form.car is intern("PTR"):
        target = elements(form)[1:]
        struct = unit.structs.get(target[0].name) if len(target) == 1 and isinstance(target[0], Symbol) else None
        return Pointer(Region.OTHER, struct, size=struct.size) if struct else None
    return None
