"""What defines functions, macros and variables, for a form or for good; `assert` and what is passed over."""

from __future__ import annotations

from bpflisp.syntax.evaluator import Interpreter, Scope
from bpflisp.syntax.forms import (
    NIL,
    Cons,
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
    name = name_of(form.cdr.car, "`defun`")
    interpreter.functions[name] = interpreter.closure(form.cdr.cdr, scope, name.name)
    return name


@special("defmacro")
def _defmacro(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    assert_definition(form.cdr, form)
    assert isinstance(form.cdr, Cons)
    name = name_of(form.cdr.car, "`defmacro`")
    interpreter.macros[name] = interpreter.macro(name, form.cdr.cdr, scope)
    return name


@special("define-symbol-macro")
def _define_symbol_macro(interpreter: Interpreter, form: Cons, _: Scope) -> object:
    """`(define-symbol-macro name form)`: the name stands for the form, read or assigned to."""
    items = arguments(form, 2, 2)
    name = name_of(items[0], "`define-symbol-macro`")
    interpreter.symbol_macros[name] = items[1]
    return name


@special("defconstant", "defparameter", "defvar")
def _define(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    items = arguments(form, 1, 3)
    name = name_of(items[0], f"`{text(form.car)}`")
    if form.car is intern("DEFVAR") and name in interpreter.variables:
        return name
    value = interpreter.value(items[1], scope) if len(items) > 1 else NIL
    interpreter.variables[name] = value
    if form.car is intern("DEFCONSTANT"):
        interpreter.constants.add(name)
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
def _check_type(_: Interpreter, __: Cons, ___: Scope) -> object:
    return NIL
