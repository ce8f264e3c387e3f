"""Reading a source file: its top-level forms are evaluated one after the other, as Common Lisp loads a file.

`defmap`, `defstruct`, `defprog` and their kin are special forms of that evaluation, so that macros and `progn` may
produce them. Bodies are kept as forms until the file is read: they may use what is defined after them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from bpflisp.diagnostics import Diagnostics, Source, Span
from bpflisp.front import session
from bpflisp.front.declare_maps import define_map, settle_programs
from bpflisp.front.declare_objects import define_global, define_subprogram, settle_parameters
from bpflisp.front.declare_programs import define_program
from bpflisp.front.declare_structs import define_enum, define_header, define_struct, define_union, size_of
from bpflisp.front.types import (
    c_name,
)
from bpflisp.front.unit import Unit
from bpflisp.spec import headers, helpers, maps
from bpflisp.syntax.evaluator import Interpreter, Scope
from bpflisp.syntax.forms import (
    NIL,
    Cons,
    FormError,
    Symbol,
    elements,
    fail,
    intern,
    span_of,
    symbol,
    text,
)
from bpflisp.syntax.reader import END, Reader

LATER = {
    "DEFTRACEPOINT": "(ctx TYPE OFFSET) reads a field, as in (defmacro tp-pid () '(ctx u32 24)); the offsets are in"
    " /sys/kernel/tracing/events/CATEGORY/EVENT/format",
    "IMPORT-KERNEL-STRUCT": "(core-load TYPE pointer OFFSET STRUCT FIELD) or (kernel-load TYPE pointer OFFSET) read"
    " a member",
    "DEFKFUNC": "",
}
"""Top-level forms that are known and not built yet -> what there is in their place."""


_DEFTRACEPOINT = intern("DEFTRACEPOINT")


def read_unit(source: Source, found: Diagnostics, arch: str = "x86_64") -> Unit:
    """Read and evaluate a file; `arch` names the target's registers.

    What is wrong with it is in `found`; the unit holds what could be made of the rest.
    """
    interpreter = Interpreter()
    unit = Unit(interpreter, found, arch=arch)
    _define_constants(interpreter)
    _define_forms(unit)
    _load_prelude(unit)
    _load(unit, source)
    settle_parameters(unit)
    settle_programs(unit)
    unit.complete = True
    return unit


def _load_prelude(unit: Unit) -> None:
    source, forms = _prelude()
    unit.sources[source.name] = source
    for form in forms:
        unit.interpreter.toplevel(form)


def _load(unit: Unit, source: Source) -> None:
    unit.sources[source.name] = source
    unit.loading.append(source)
    try:
        _evaluate(unit, source)
    finally:
        unit.loading.pop()


def _evaluate(unit: Unit, source: Source) -> None:
    reader = Reader(source, unit.interpreter.toplevel)
    while True:
        start = reader.skip_blank()
        try:
            form = reader.read()
        except FormError as problem:
            unit.found.add(problem.diagnostic)
            unit.broken.update(each.upper() for each in re.findall(_DEFINES, source.text[start : reader.at]))
            reader.recover()
            continue
        if form is END:
            return
        unit.place = span_of(form)
        try:
            if not session.take(unit, form):
                unit.interpreter.toplevel(form)
        except FormError as problem:
            place = problem.diagnostic.span or span_of(form) or Span(source, start, reader.at)
            unit.found.add(replace(problem.diagnostic, span=place))
            _note_broken(unit, form)


def _note_broken(unit: Unit, form: object) -> None:
    """Remember the names that a form, and what is in it, would have defined; a tracepoint's are all `tp-FIELD`."""
    todo = [form]
    while todo:
        each = todo.pop()
        if not isinstance(each, Cons):
            continue
        defines = each is form or (isinstance(each.car, Symbol) and each.car.name.startswith("DEF"))
        if defines and isinstance(each.cdr, Cons) and isinstance(each.cdr.car, Symbol):
            if each.cdr.car is not NIL:
                unit.broken.add("TP" if each.car is _DEFTRACEPOINT else each.cdr.car.name)
        todo += [each.car, each.cdr]


_DEFINES = r"(?i)\(def[a-z]+\s+([^\s()]+)"
"""A definition in a form that could not be read."""


@cache
def _prelude() -> tuple[Source, Sequence[object]]:
    """The library's text and forms. They are read once, and every compilation evaluates them: it defines macros."""
    path = Path(__file__).parent.parent / "syntax" / "prelude.lisp"
    source = Source("prelude.lisp", path.read_text(encoding="utf-8"))
    reader = Reader(source)
    forms: list[object] = []
    while (form := reader.read()) is not END:
        forms.append(form)
    return source, forms


@cache
def _constants() -> dict[Symbol, int]:
    """The names that mean a number without a definition."""
    plus = dict(headers.NAMED_CONSTANTS)
    plus |= {c_name(name).replace("_", "-"): value for name, value in headers.BUILTIN_CONSTANTS.items()}
    plus |= {f"bpf-map-type-{kind.name.replace('_', '-')}": kind.number for kind in maps.all_map_types()}
    plus |= {"bpf-f-no-prealloc": maps.F_NO_PREALLOC, **headers.INSTRUCTION_CONSTANTS}
    plus |= {f"bpf-func-{name.replace('_', '-')}": number for name, number in helpers.known().items()}
    constants = {symbol(f"+{name}+"): value for name, value in plus.items()}
    constants |= {symbol(name): value for name, value in headers.BUILTIN_CONSTANTS.items()}
    constants |= {symbol(name): value for name, value in headers.MORE_CONSTANTS.items()}
    flags = {f"BPF_{name}": value for name, value in vars(maps).items() if name.startswith("F_")}
    constants |= {symbol(name): value for name, value in flags.items()}
    return constants | {symbol("MOST-POSITIVE-FIXNUM"): (1 << 62) - 1, symbol("MOST-NEGATIVE-FIXNUM"): -(1 << 62)}


def _define_constants(interpreter: Interpreter) -> None:
    interpreter.variables.update(_constants())
    interpreter.constants.update(_constants())


# Top-level forms

Definer = Callable[[Unit, Cons, Scope], object]


def _define_forms(unit: Unit) -> None:
    definers: dict[str, Definer] = {
        "DEFMAP": define_map, "DEFPROG": define_program, "DEFSTRUCT": define_struct, "SIZEOF": size_of,
        "DEFUNION": define_union, "DEFHEADER": define_header,
        "DEFGLOBAL": define_global, "DEFSUBPROG": define_subprogram,
        "DEFENUM": define_enum, "INCLUDE": _include,
    }  # fmt: skip
    for name, definer in definers.items():
        unit.interpreter.special[intern(name)] = _bound(unit, definer)
    for name in LATER:
        unit.interpreter.special[intern(name)] = _not_built


def _bound(unit: Unit, definer: Definer) -> Callable[[Interpreter, Cons, Scope], object]:
    """A form that a macro made has no place of its own: it is that of the top-level form that is being evaluated."""

    def define(_: Interpreter, form: Cons, scope: Scope) -> object:
        if unit.complete and definer is not size_of:
            problem = f"`{text(form.car)}` cannot define anything while a program is being compiled"
            help = "a definition stands at top level, or in what a macro that is called there makes"
            raise fail("bad-definition", problem, form.span, help=help)
        return definer(unit, form if form.span else Cons(form.car, form.cdr, unit.place), scope)

    return define


def _include(unit: Unit, form: Cons, _: Scope) -> object:
    """`(include "file.lisp")`: the forms of another file, once; its name is relative to the file that says so."""
    rest = elements(form.cdr)
    if len(rest) != 1 or not isinstance(rest[0], str):
        raise fail("bad-include", "`include` takes the name of one file", form.span, help='(include "file.lisp")')
    path = Path(unit.loading[-1].name).parent / rest[0]
    if str(path) in unit.sources:
        return NIL
    try:
        source = Source(str(path), path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else "it is no text"
        raise fail("bad-include", f"`{rest[0]}` cannot be read", form.span, because=reason) from None
    _load(unit, source)
    return NIL


def _not_built(_: Interpreter, form: Cons, __: Scope) -> object:
    assert isinstance(form.car, Symbol)
    raise fail("not-built", f"`{text(form.car)}` is not built yet", form.span, help=LATER[form.car.name])
