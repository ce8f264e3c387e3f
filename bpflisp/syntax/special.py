"""The special forms and standard macros of Common Lisp that the evaluator knows, but `loop` and places."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from bpflisp.syntax import lambda_list
from bpflisp.syntax.evaluator import BlockExit, Interpreter, Scope, Special, Values
from bpflisp.syntax.forms import (
    NIL,
    QUASIQUOTE,
    UNQUOTE,
    UNQUOTE_SPLICING,
    Cons,
    FormError,
    Symbol,
    T,
    atom_text,
    elements,
    fail,
    intern,
    lisp_list,
    text,
)

_TABLE: dict[Symbol, Special] = {}


def special(*names: str) -> Callable[[Special], Special]:
    """Decorator: this function evaluates the forms of these names."""

    def register(function: Special) -> Special:
        for name in names:
            _TABLE[intern(name.upper())] = function
        return function

    return register


def table() -> Mapping[Symbol, Special]:
    """Name -> evaluation, of every special form."""
    from bpflisp.syntax import loop, places  # noqa: F401  (they register themselves)

    return _TABLE


def arguments(form: Cons, least: int, most: int | None = None) -> list[object]:
    """The unevaluated arguments of a form, of which there must be so many."""
    given = elements(form.cdr)
    if len(given) < least or (most is not None and len(given) > most):
        wanted = str(least) if least == most else f"at least {least}" if most is None else f"{least} to {most}"
        raise fail("argument-count", f"`{text(form.car)}` takes {wanted} arguments, not {len(given)}", form.span)
    return given


def name_of(item: object, what: str) -> Symbol:
    """A symbol that may be bound or defined."""
    if not isinstance(item, Symbol) or item is NIL or item is T or item.is_keyword:
        raise fail("bad-name", f"{what} needs a name, not `{text(item)}`")
    return item


# Data


@special("quote")
def _quote(_: Interpreter, form: Cons, __: Scope) -> object:
    return arguments(form, 1, 1)[0]


@special("function")
def _function(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    return interpreter.function(arguments(form, 1, 1)[0], scope)


@special("lambda")
def _lambda(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    return interpreter.closure(form.cdr, scope)


@special("quasiquote")
def _quasiquote(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    return fill(interpreter, arguments(form, 1, 1)[0], 1, scope)


@special("unquote", "unquote-splicing")
def _stray_comma(_: Interpreter, form: Cons, __: Scope) -> object:
    raise fail("stray-comma", "a comma outside of a backquote", form.span)


def fill(interpreter: Interpreter, template: object, depth: int, scope: Scope) -> object:
    """A backquoted template with its commas evaluated. Its own cells are new, and have no span: what a macro
    writes is no text of the user's."""
    if isinstance(template, list):
        return elements(fill(interpreter, lisp_list(template), depth, scope))
    if not isinstance(template, Cons):
        return template
    if template.car is UNQUOTE and depth == 1:
        return interpreter.value(arguments(template, 1, 1)[0], scope)
    if template.car in (UNQUOTE, UNQUOTE_SPLICING):
        return Cons(template.car, _fill_list(interpreter, template.cdr, depth - 1, scope))
    if template.car is QUASIQUOTE:
        return Cons(QUASIQUOTE, _fill_list(interpreter, template.cdr, depth + 1, scope))
    return _fill_list(interpreter, template, depth, scope)


def _fill_list(interpreter: Interpreter, template: object, depth: int, scope: Scope) -> object:
    items: list[object] = []
    rest = template
    while isinstance(rest, Cons):
        item = rest.car
        if rest is not template and item is UNQUOTE and isinstance(rest.cdr, Cons) and rest.cdr.cdr is NIL:
            return lisp_list(items, fill(interpreter, rest, depth, scope))
        if isinstance(item, Cons) and item.car is UNQUOTE_SPLICING and depth == 1:
            spliced = interpreter.value(arguments(item, 1, 1)[0], scope)
            if rest.cdr is NIL:
                return lisp_list(items, spliced)
            items += elements(spliced)
        else:
            items.append(fill(interpreter, item, depth, scope))
        rest = rest.cdr
    return lisp_list(items, rest)


# Binding


def _bindings(form: object) -> Iterator[tuple[Symbol, object]]:
    for item in elements(form):
        if isinstance(item, Cons):
            parts = elements(item)
            if len(parts) > 2:
                raise fail("bad-binding", f"`{text(item)}` is not (name value)", item.span)
            yield name_of(parts[0], "a binding"), parts[1] if len(parts) == 2 else NIL
        else:
            yield name_of(item, "a binding"), NIL


@special("let")
def _let(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    arguments(form, 1)
    assert isinstance(form.cdr, Cons)
    inner = Scope(scope)
    values = [(name, interpreter.value(init, scope)) for name, init in _bindings(form.cdr.car)]
    with interpreter.dynamic_bindings(inner) as bind:
        for name, value in values:
            bind(name, value)
        return interpreter.progn(form.cdr.cdr, inner)


@special("let*")
def _let_star(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    arguments(form, 1)
    assert isinstance(form.cdr, Cons)
    inner = scope
    innermost = Scope(scope)
    with interpreter.dynamic_bindings(innermost) as bind:
        for name, init in _bindings(form.cdr.car):
            value = interpreter.value(init, inner)
            if name in interpreter.dynamic:
                bind(name, value)
            else:
                inner = Scope(inner)
                inner.variables[name] = value
        return interpreter.progn(form.cdr.cdr, inner)


@special("destructuring-bind")
def _destructuring_bind(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    pattern, value_form, *_ = arguments(form, 2)
    params = lambda_list.parse(pattern, nested=True)
    value = interpreter.value(value_form, scope)
    inner = Scope(scope)
    with interpreter.dynamic_bindings(inner) as bind:
        lambda_list.bind_pattern(params, value, bind, lambda default: interpreter.value(default, inner))
        return interpreter.progn(lisp_list(elements(form.cdr)[2:]), inner)


@special("multiple-value-bind")
def _multiple_value_bind(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    names, value_form, *body = arguments(form, 2)
    value = interpreter.eval(value_form, scope)
    values = list(value) if isinstance(value, Values) else [value]
    inner = Scope(scope)
    with interpreter.dynamic_bindings(inner) as bind:
        for index, name in enumerate(elements(names)):
            bind(name_of(name, "a binding"), values[index] if index < len(values) else NIL)
        return interpreter.progn(lisp_list(body), inner)


@special("multiple-value-list")
def _multiple_value_list(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    value = interpreter.eval(arguments(form, 1, 1)[0], scope)
    return lisp_list(value if isinstance(value, Values) else [value])


@special("setq", "psetq")
def _setq(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    items = arguments(form, 0)
    if len(items) % 2:
        raise fail("odd-setf", f"`{text(form.car)}` takes names and values in pairs", form.span)
    names = [name_of(name, "an assignment") for name in items[::2]]
    if form.car is intern("PSETQ"):
        for name, value in zip(names, [interpreter.value(init, scope) for init in items[1::2]], strict=True):
            interpreter.assign(name, value, scope)
        return NIL
    value = NIL
    for name, init in zip(names, items[1::2], strict=True):
        value = interpreter.value(init, scope)
        interpreter.assign(name, value, scope)
    return value


# Control


@special("progn", "locally")
def _progn(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    return interpreter.progn(form.cdr, scope)


@special("eval-when")
def _eval_when(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    arguments(form, 1)
    assert isinstance(form.cdr, Cons)
    return interpreter.progn(form.cdr.cdr, scope)


@special("the")
def _the(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    return interpreter.eval(arguments(form, 2, 2)[1], scope)


@special("prog1", "prog2", "unwind-protect")
def _prog1(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    items = arguments(form, 1)
    if form.car is intern("UNWIND-PROTECT"):
        try:
            return interpreter.eval(items[0], scope)
        finally:
            interpreter.progn(lisp_list(items[1:]), scope)
    values = [interpreter.value(item, scope) for item in items]
    return values[1 if form.car is intern("PROG2") and len(values) > 1 else 0]


@special("if")
def _if(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    test, then, *other = arguments(form, 2, 3)
    if interpreter.value(test, scope) is not NIL:
        return interpreter.eval(then, scope)
    return interpreter.eval(other[0], scope) if other else NIL


@special("when", "unless")
def _when(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    test = arguments(form, 1)[0]
    assert isinstance(form.cdr, Cons)
    holds = interpreter.value(test, scope) is not NIL
    return interpreter.progn(form.cdr.cdr, scope) if holds is (form.car is intern("WHEN")) else NIL


@special("cond")
def _cond(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    for clause in elements(form.cdr):
        if not isinstance(clause, Cons):
            raise fail("bad-clause", f"`{text(clause)}` is no clause of `cond`", form.span)
        value = interpreter.value(clause.car, scope)
        if value is not NIL:
            return interpreter.progn(clause.cdr, scope) if clause.cdr is not NIL else value
    return NIL


@special("and")
def _and(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    value: object = T
    for item in elements(form.cdr):
        value = interpreter.value(item, scope)
        if value is NIL:
            break
    return value


@special("or")
def _or(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    for item in elements(form.cdr):
        value = interpreter.value(item, scope)
        if value is not NIL:
            return value
    return NIL


@special("case", "ecase", "ccase")
def _case(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    from bpflisp.syntax.functions import eql

    key_form, *clauses = arguments(form, 1)
    key = interpreter.value(key_form, scope)
    for clause in clauses:
        if not isinstance(clause, Cons):
            raise fail("bad-clause", f"`{text(clause)}` is no clause of `case`", form.span)
        otherwise = clause.car in (T, intern("OTHERWISE"))
        keys = elements(clause.car) if isinstance(clause.car, Cons) or clause.car is NIL else [clause.car]
        if otherwise or any(eql(key, candidate) for candidate in keys):
            return interpreter.progn(clause.cdr, scope)
    if form.car is not intern("CASE"):
        raise fail("no-case", f"`{text(key)}` is none of the cases", form.span)
    return NIL


@special("typecase", "etypecase")
def _typecase(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    from bpflisp.syntax.functions import is_of_type

    key_form, *clauses = arguments(form, 1)
    key = interpreter.value(key_form, scope)
    for clause in clauses:
        if isinstance(clause, Cons) and (clause.car is intern("OTHERWISE") or is_of_type(key, clause.car)):
            return interpreter.progn(clause.cdr, scope)
    if form.car is intern("ETYPECASE"):
        raise fail("no-case", f"`{text(key)}` is of none of the types", form.span)
    return NIL


class _Block:
    """One activation of a block."""


def run_block(interpreter: Interpreter, name: Symbol, body: object, scope: Scope) -> object:
    """Evaluate forms in a new block of that name."""
    inner = Scope(scope)
    block = _Block()
    inner.blocks[name] = block
    try:
        return interpreter.progn(body, inner)
    except BlockExit as leaving:
        if leaving.block is not block:
            raise
        return leaving.value


@special("block")
def _block(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    name = arguments(form, 1)[0]
    assert isinstance(form.cdr, Cons)
    return run_block(interpreter, name if isinstance(name, Symbol) else NIL, form.cdr.cdr, scope)


@special("return-from", "return")
def _return_from(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    items = arguments(form, 0, 2)
    name = NIL if form.car is intern("RETURN") else items.pop(0) if items else NIL
    value = interpreter.eval(items[0], scope) if items else NIL
    where: Scope | None = scope
    while where is not None:
        if isinstance(name, Symbol) and name in where.blocks:
            raise BlockExit(where.blocks[name], value)
        where = where.parent
    raise fail("bad-return", f"no block is named `{text(name)}` here", form.span)


@special("dolist")
def _dolist(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    head, *body = arguments(form, 1)
    name, list_form, *result = elements(head)
    items = elements(interpreter.value(list_form, scope))
    return _each(interpreter, name_of(name, "`dolist`"), items, body, result, scope)


@special("dotimes")
def _dotimes(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    head, *body = arguments(form, 1)
    parts = elements(head)
    count = interpreter.value(parts[1], scope) if len(parts) > 1 else NIL
    if not isinstance(count, int):
        raise fail("bad-argument", f"`dotimes` counts to a whole number, not `{text(count)}`", form.span)
    return _each(interpreter, name_of(parts[0], "`dotimes`"), range(count), body, parts[2:], scope)


def _each(
    interpreter: Interpreter,
    name: Symbol,
    items: Sequence[object],
    body: list[object],
    result: list[object],
    scope: Scope,
) -> object:
    inner = Scope(scope)
    block = _Block()
    inner.blocks[NIL] = block
    forms = lisp_list(body)
    try:
        for item in items:
            each = Scope(inner)
            each.variables[name] = item
            interpreter.fuel -= 1
            interpreter.eval(Cons(intern("PROGN"), forms), each)
        inner.variables[name] = NIL if isinstance(items, list) else len(items)
        return interpreter.eval(result[0], inner) if result else NIL
    except BlockExit as leaving:
        if leaving.block is not block:
            raise
        return leaving.value


@special("do", "do*")
def _do(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    variables, ending, *body = arguments(form, 2)
    inner = Scope(scope)
    block = _Block()
    inner.blocks[NIL] = block
    clauses = [elements(item) if isinstance(item, Cons) else [item] for item in elements(variables)]
    sequential = form.car is intern("DO*")
    for clause in clauses:
        init = clause[1] if len(clause) > 1 else NIL
        inner.variables[name_of(clause[0], "`do`")] = interpreter.value(init, inner if sequential else scope)
    test, *result = elements(ending)
    try:
        while interpreter.value(test, inner) is NIL:
            interpreter.progn(lisp_list(body), inner)
            steps = [clause for clause in clauses if len(clause) > 2]
            if sequential:
                for clause in steps:
                    inner.variables[name_of(clause[0], "`do`")] = interpreter.value(clause[2], inner)
                continue
            values = [interpreter.value(clause[2], inner) for clause in steps]
            for clause, value in zip(steps, values, strict=True):
                inner.variables[name_of(clause[0], "`do`")] = value
        return interpreter.progn(lisp_list(result), inner)
    except BlockExit as leaving:
        if leaving.block is not block:
            raise
        return leaving.value


_CONDITIONS = ("ERROR", "CONDITION", "SIMPLE-ERROR", "SERIOUS-CONDITION", "T")


@special("handler-case", "ignore-errors")
def _handler_case(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    """Errors of the evaluation are caught; that it does not end is not."""
    if form.car is intern("IGNORE-ERRORS"):
        try:
            return interpreter.progn(form.cdr, scope)
        except FormError:
            return NIL
    body, *clauses = arguments(form, 1)
    try:
        return interpreter.eval(body, scope)
    except FormError as problem:
        for clause in clauses:
            kind, params, *handler = elements(clause)
            if isinstance(kind, Symbol) and kind.name in (
                "ERROR",
                "CONDITION",
                "SIMPLE-ERROR",
                "SERIOUS-CONDITION",
                "T",
            ):
                inner = Scope(scope)
                for name in elements(params):
                    inner.variables[name_of(name, "a handler")] = problem.diagnostic.problem
                return interpreter.progn(lisp_list(handler), inner)
        raise


# Local and global definitions


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


@special("in-package", "defpackage", "use-package", "declaim", "declare", "proclaim", "export", "require", "provide")
def _passed_over(_: Interpreter, __: Cons, ___: Scope) -> object:
    return NIL


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
