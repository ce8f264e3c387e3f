"""The special forms and standard macros of Common Lisp that the evaluator knows, but `loop` and places."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from bpflisp.syntax import lambda_list
from bpflisp.syntax.evaluator import Interpreter, Scope, Special, Values
from bpflisp.syntax.forms import (
    NIL,
    QUASIQUOTE,
    UNQUOTE,
    UNQUOTE_SPLICING,
    Cons,
    Symbol,
    T,
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
    from bpflisp.syntax import control, definitions, iteration, loop, places  # noqa: F401  (they register themselves)

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


@special("nth-value")
def _nth_value(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    index, value_form = arguments(form, 2, 2)
    at, value = interpreter.value(index, scope), interpreter.eval(value_form, scope)
    values = list(value) if isinstance(value, Values) else [value]
    return values[at] if isinstance(at, int) and 0 <= at < len(values) else NIL


@special("with-output-to-string")
def _with_output_to_string(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    """`(with-output-to-string (name) body...)`: what the body writes to it; to `*standard-output*`, what it prints."""
    from bpflisp.syntax.data import Output
    from bpflisp.syntax.printing import STANDARD_OUTPUT

    head, *body = arguments(form, 1)
    inner, output = Scope(scope), Output()
    name = name_of(elements(head)[0], "an output")
    if name is not STANDARD_OUTPUT:
        inner.variables[name] = output
        interpreter.progn(lisp_list(body), inner)
        return "".join(output.parts)
    outer = interpreter.variables.get(name, NIL)
    interpreter.variables[name] = output
    try:
        interpreter.progn(lisp_list(body), inner)
    finally:
        interpreter.variables[name] = outer
    return "".join(output.parts)


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
    from bpflisp.syntax.data import eql

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
        if isinstance(clause, Cons) and (clause.car is intern("OTHERWISE") or is_of_type(key, clause.car, interpreter)):
            return interpreter.progn(clause.cdr, scope)
    if form.car is intern("ETYPECASE"):
        raise fail("no-case", f"`{text(key)}` is of none of the types", form.span)
    return NIL
