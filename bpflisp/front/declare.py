"""What the defining forms share: names, options, types as they are written."""

from __future__ import annotations

import re
from dataclasses import replace

from bpflisp.diagnostics import Span
from bpflisp.front.types import (
    C_SPELLINGS,
    SCALARS,
    U32,
    Number,
    Struct,
    c_name,
)
from bpflisp.front.unit import Unit
from bpflisp.spec import maps
from bpflisp.syntax.evaluator import Scope
from bpflisp.syntax.forms import (
    NIL,
    Cons,
    FormError,
    Symbol,
    element_span,
    fail,
    text,
)

_IN_OBJECTS = re.compile(r"[A-Za-z_.][A-Za-z0-9_.]*\Z")


def defined_name(form: Cons, what: str, *, in_object: bool = True) -> tuple[Symbol, Span | None, object]:
    """The name after the head of a defining form, its place, and what follows it. One that goes into the object has
    to be of the letters that the kernel takes."""
    if not isinstance(form.cdr, Cons):
        raise fail("bad-definition", f"`{text(form.car)}` needs the name of a {what}", form.span)
    cell = form.cdr
    name = cell.car
    if not isinstance(name, Symbol) or name is NIL or name.is_keyword:
        raise fail("bad-name", f"a {what} needs a name, not `{text(name)}`", element_span(cell) or form.span)
    if in_object:
        refuse_letters(name, element_span(cell) or form.span)
    return name, element_span(cell) or form.span, cell.cdr


def refuse_letters(name: Symbol, span: Span | None) -> None:
    """Refuse a name that the kernel takes of no object: in BTF it has letters, digits, `_` and `.` alone."""
    if not _IN_OBJECTS.match(c_name(name.name)):
        problem = f"`{text(name)}` cannot be a name in an object file"
        because = "the kernel takes letters, digits, `_` (which a hyphen becomes) and `.` alone"
        raise fail("bad-name", problem, span, because=because)


def options_of(form: Cons, plist: object, known: tuple[str, ...]) -> dict[str, Cons]:
    """Keyword -> the cell of its value."""
    options: dict[str, Cons] = {}
    rest = plist
    while isinstance(rest, Cons):
        key = rest.car
        if not isinstance(key, Symbol) or not key.is_keyword:
            problem, place = f"an option is expected here, not `{text(key)}`", element_span(rest) or form.span
            help = f"the options stand without parentheses: ({text(form.car)} name :option value ...)"
            raise fail("unknown-option", problem, place, help=help if isinstance(key, Cons) else "")
        if key.name not in known:
            raise fail(
                "unknown-option",
                f"`{text(form.car)}` has no option `{text(key)}`",
                element_span(rest) or form.span,
                help=_option_help(key, known),
            )
        if not isinstance(rest.cdr, Cons):
            raise fail("unknown-option", f"the option `{text(key)}` has no value", element_span(rest) or form.span)
        options[key.name] = rest.cdr
        rest = rest.cdr.cdr
    return options


def _option_help(key: Symbol, known: tuple[str, ...]) -> str:
    """What there is in place of an unknown option; a type of map that stands for one wants its `:type`."""
    if ":TYPE" in known and maps.by_name(key.name[1:].lower().replace("-", "_")) is not None:
        return f":type {text(key)}"
    return "it has " + " ".join(name.lower() for name in known)


def refuse_duplicate(unit: Unit, name: Symbol, span: Span | None, what: str) -> None:
    """Refuse a second object of one C name: they share the symbols of the object file."""
    others = [(decl.symbol, "map") for decl in unit.maps.values()]
    others += [(decl.symbol, "program") for decl in unit.programs.values()]
    others += [(decl.symbol, "global") for decl in unit.globals.values()]
    others += [(decl.symbol, "subprogram") for decl in unit.subprograms.values()]
    for other, kind in others:
        if other == c_name(name.name):
            raise fail("duplicate", f"a {kind} named `{text(name)}` exists already, and so cannot this {what}", span)


def _evaluated(unit: Unit, form: Cons, cell: Cons, scope: Scope) -> object:
    """What an option's value is; an error without a place of its own is shown there."""
    try:
        return unit.interpreter.value(cell.car, scope)
    except FormError as problem:
        place = problem.diagnostic.span or element_span(cell) or form.span
        raise FormError(replace(problem.diagnostic, span=place)) from None


def number_option(unit: Unit, form: Cons, options: dict[str, Cons], option: str, scope: Scope) -> int:
    """The value of an option that is evaluated; 0 where it is not given."""
    if option not in options:
        return 0
    cell = options[option]
    if option.endswith("-SIZE") and scalar_or_struct(unit, cell.car) is not None:
        problem = f"`{option.lower()}` needs a number of bytes, and `{text(cell.car)}` is a type"
        help = f"{option.lower().replace('-size', '-type')} {text(cell.car)}"
        raise fail("bad-option", problem, element_span(cell) or form.span, help=help)
    value = _evaluated(unit, form, cell, scope)
    if value is NIL:
        return 0
    if not isinstance(value, int) or not 0 <= value < 1 << 32:
        problem = f"`{option.lower()}` needs a number of at most 32 bits, not `{text(value)}`"
        raise fail("bad-option", problem, element_span(cell) or form.span)
    return value


def type_option(unit: Unit, options: dict[str, Cons], option: str) -> Number | Struct | None:
    """The type that an option names; None where it is not given."""
    if option not in options:
        return None
    cell = options[option]
    kind = scalar_or_struct(unit, cell.car)
    if kind is None:
        raise fail(
            "unknown-type",
            f"`{text(cell.car)}` is neither a struct that was defined before nor a scalar type",
            element_span(cell),
            help=spelling(cell.car),
        )
    return kind


def text_option(unit: Unit, form: Cons, options: dict[str, Cons], option: str, scope: Scope) -> str | None:
    """The string that an option gives; None where it is not given, or nil."""
    if option not in options:
        return None
    cell = options[option]
    named = cell.car if isinstance(cell.car, Symbol) and cell.car is not NIL else None
    if named is not None and (named.is_keyword or named not in unit.interpreter.variables):
        problem = f"`{option.lower()}` needs a string, not `{text(named)}`"
        meant = named.name if option == ":LICENSE" else text(named)
        help = f'{option.lower()} "{meant.removeprefix(":")}"'
        raise fail("bad-option", problem, element_span(cell) or form.span, help=help)
    value = _evaluated(unit, form, cell, scope)
    if value is NIL:
        return None
    if not isinstance(value, str) or not value or "\0" in value:
        raise fail(
            "bad-option", f"`{option.lower()}` needs a string, not `{text(value)}`", element_span(cell) or form.span
        )
    return value


def scalar_or_struct(unit: Unit, form: object) -> Number | Struct | None:
    """The type that a name means."""
    if not isinstance(form, Symbol):
        return None
    if form.name in unit.enums:
        return U32
    return SCALARS.get(form.name) or unit.structs.get(form.name)


def spelling(form: object) -> str:
    """A hint where a type is spelt as another language does."""
    if isinstance(form, Symbol) and form.is_keyword and form.name[1:] in SCALARS:
        return f"a type is written without a colon: {text(form)[1:]}"
    known = C_SPELLINGS.get(form.name.replace("-", "_")) if isinstance(form, Symbol) else None
    return f"`{text(form)}` is written `{known}` here" if known else ""
