"""What defines functions, macros and variables, for a form or for good; `assert` and what is passed over."""

from __future__ import annotations

from bpflisp.syntax.data import equal
from bpflisp.syntax.evaluator import Interpreter, Scope, SymbolMacro
from bpflisp.syntax.forms import (
    NIL,
    Cons,
    Symbol,
    atom_text,
    elements,
    fail,
    intern,
    lisp_list,
    text,
)
from bpflisp.syntax.special import arguments, name_of, special


@special("flet", "labels")
def _flet(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    definitions, *body = arguments(form, 1)
    inner = Scope(scope)
    around = inner if form.car is intern("LABELS") else scope
    for definition in elements(definitions):
        assert_definition(definition, form)
        assert isinstance(definition, Cons)
        name = name_of(definition.car, "a function")
        inner.functions[name] = interpreter.closure(definition.cdr, around, name.name)
    return interpreter.progn(lisp_list(body), inner)


@special("macrolet")
def _macrolet(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    definitions, *body = arguments(form, 1)
    inner = Scope(scope)
    for definition in elements(definitions):
        assert_definition(definition, form)
        assert isinstance(definition, Cons)
        name = name_of(definition.car, "a macro")
        inner.functions[name] = interpreter.macro(name, definition.cdr, scope)
    return interpreter.progn(lisp_list(body), inner)


def assert_definition(definition: object, form: Cons) -> None:
    """Refuse what is not `(name params body...)`."""
    if not isinstance(definition, Cons) or not isinstance(definition.cdr, Cons):
        raise fail("bad-definition", f"`{text(definition)}` is not (name (parameter...) body...)", form.span)


@special("defun")
def _defun(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    assert_definition(form.cdr, form)
    assert isinstance(form.cdr, Cons)
    if isinstance(form.cdr.car, Cons) and form.cdr.car.car is intern("SETF"):
        return _defun_setf(interpreter, form.cdr.car, form.cdr.cdr, scope)
    name = name_of(form.cdr.car, "`defun`")
    interpreter.functions[name] = interpreter.closure(form.cdr.cdr, scope, name.name)
    return name


def _defun_setf(interpreter: Interpreter, name: Cons, definition: object, scope: Scope) -> object:
    """`(defun (setf name) (new parameter...) body...)`: what writes the place `(name argument...)`."""
    reader = name_of(elements(name)[-1], "`defun`")
    interpreter.writers[reader] = interpreter.closure(definition, scope, reader.name)
    return name


@special("defmacro")
def _defmacro(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    assert_definition(form.cdr, form)
    assert isinstance(form.cdr, Cons)
    name = name_of(form.cdr.car, "`defmacro`")
    interpreter.macros[name] = interpreter.macro(name, form.cdr.cdr, scope)
    interpreter.macro_cells[name] = form.cdr
    return name


@special("define-symbol-macro")
def _define_symbol_macro(interpreter: Interpreter, form: Cons, _: Scope) -> object:
    """`(define-symbol-macro name form)`: the name stands for the form, read or assigned to."""
    items = arguments(form, 2, 2)
    name = name_of(items[0], "`define-symbol-macro`")
    interpreter.symbol_macros[name] = items[1]
    interpreter.symbol_macros_used = True
    return name


@special("symbol-macrolet")
def _symbol_macrolet(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    definitions, *body = arguments(form, 1)
    inner = Scope(scope)
    for definition in elements(definitions):
        name, stands_for = elements(definition)
        inner.variables[name_of(name, "`symbol-macrolet`")] = SymbolMacro(stands_for)
    interpreter.symbol_macros_used = True
    return interpreter.progn(lisp_list(body), inner)


@special("defconstant", "defparameter", "defvar")
def _define(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    items = arguments(form, 1 if form.car is intern("DEFVAR") else 2, 3)
    name = name_of(items[0], f"`{text(form.car)}`")
    if form.car is intern("DEFVAR") and name in interpreter.variables:
        return name
    value = interpreter.value(items[1], scope) if len(items) > 1 else NIL
    if name in interpreter.own_constants and not equal(interpreter.variables[name], value):
        before = text(interpreter.variables[name], 40)
        problem = f"the constant `{text(name)}` is {before} already, and cannot become {text(value, 40)}"
        raise fail("duplicate", problem, form.span)
    interpreter.variables[name] = value
    if form.car is intern("DEFCONSTANT"):
        interpreter.constants.add(name)
        interpreter.own_constants.add(name)
    else:
        interpreter.dynamic.add(name)
    return name


@special(
    "in-package", "defpackage", "use-package", "declaim", "declare", "proclaim", "export", "require", "provide",
    "load-system", "quickload", "make-package", "import", "shadow", "shadowing-import",
)  # fmt: skip
def _passed_over(_: Interpreter, __: Cons, ___: Scope) -> object:
    return NIL


@special(
    "load", "open", "with-open-file", "probe-file", "directory", "delete-file", "read-line", "read-char",
    "compile-file", "run-program", "uiop", "posix-getenv", "getenv", "sleep",
)  # fmt: skip
def _host(_: Interpreter, form: Cons, __: Scope) -> object:
    """What reaches outside of the source is refused by name: compiling depends on the source alone."""
    because = "compiling reaches no file, process or clock"
    help = '(include "file.lisp") reads another source'
    raise fail(
        "host-access", f"`{text(form.car)}` is not allowed at compile time", form.span, because=because, help=help
    )


@special("assert")
def _assert(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    items = arguments(form, 1)
    if interpreter.value(items[0], scope) is NIL:
        message = ""
        if len(items) > 2:
            values = [interpreter.value(item, scope) for item in items[2:]]
            shown = interpreter.functions[intern("FORMAT")](NIL, *values)
            message = atom_text(shown, readable=False)
        raise fail("assertion", message or f"`{text(items[0])}` does not hold", form.span)
    return NIL


@special("check-type")
def _check_type(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    from bpflisp.syntax.functions import is_of_type

    place, kind, *_ = arguments(form, 2, 3)
    value = interpreter.value(place, scope)
    if not is_of_type(value, kind, interpreter):
        raise fail("assertion", f"`{text(place)}` is `{text(value, 40)}`, and no `{text(kind)}`", form.span)
    return NIL


@special("deftype")
def _deftype(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    """`(deftype name () specifier)`."""
    items = arguments(form, 3)
    name = name_of(items[0], "`deftype`")
    interpreter.types[name] = interpreter.progn(lisp_list(items[2:]), Scope(scope))
    return name


@special("define-modify-macro")
def _define_modify_macro(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    """`(define-modify-macro name (parameter...) function)`: gives a place what the function makes of its value."""
    name, params, function, *_ = arguments(form, 3, 4)
    place = interpreter.gensym("place")
    written = elements(params)
    rest = written[-2:-1] == [intern("&REST")]
    named = [each for each in written if not (isinstance(each, Symbol) and each.name.startswith("&"))]
    names = [each.car if isinstance(each, Cons) else each for each in named]
    made = lisp_list([intern("LIST*" if rest else "LIST"), _quote(function), place, *names])
    call = [intern("LIST"), _quote(intern("SETF")), place, made]
    definition = Cons(Cons(place, params), Cons(lisp_list(call), NIL))
    interpreter.macros[name_of(name, "`define-modify-macro`")] = interpreter.macro(
        name_of(name, "`define-modify-macro`"), definition, scope
    )
    return name


def _quote(form: object) -> object:
    return lisp_list([intern("QUOTE"), form])
