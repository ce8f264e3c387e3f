"""How evaluation leaves forms and comes back: several values, `catch`, `tagbody`, errors that are handled."""

from __future__ import annotations

from collections.abc import Iterator

from bpflisp.syntax.evaluator import BlockExit, Interpreter, Scope, Values
from bpflisp.syntax.forms import NIL, Cons, FormError, Symbol, T, elements, fail, intern, lisp_list, text
from bpflisp.syntax.special import arguments, name_of, special

# Several values


def _all_values(interpreter: Interpreter, form: object, scope: Scope) -> list[object]:
    value = interpreter.eval(form, scope)
    return list(value) if isinstance(value, Values) else [value]


@special("multiple-value-setq")
def _multiple_value_setq(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    names, value_form = arguments(form, 2, 2)
    values = _all_values(interpreter, value_form, scope)
    for index, name in enumerate(elements(names)):
        value = values[index] if index < len(values) else NIL
        interpreter.assign(name_of(name, "an assignment"), value, scope)
    return values[0] if values else NIL


@special("multiple-value-call")
def _multiple_value_call(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    function_form, *rest = arguments(form, 1)
    function = interpreter.function(interpreter.value(function_form, scope), scope)
    values = [value for each in rest for value in _all_values(interpreter, each, scope)]
    return interpreter.call(function, values, text(function_form, 60))


@special("multiple-value-prog1")
def _multiple_value_prog1(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    first, *rest = arguments(form, 1)
    value = interpreter.eval(first, scope)
    interpreter.progn(lisp_list(rest), scope)
    return value


@special("progv")
def _progv(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    """Variables whose names are computed, bound dynamically."""
    names_form, values_form, *body = arguments(form, 2)
    names, values = (elements(interpreter.value(each, scope)) for each in (names_form, values_form))
    saved = {name: interpreter.variables.get(name) for name in names if isinstance(name, Symbol)}
    for name, value in zip(names, [*values, *[NIL] * len(names)], strict=False):
        interpreter.variables[name_of(name, "`progv`")] = value
    try:
        return interpreter.progn(lisp_list(body), scope)
    finally:
        for name, old in saved.items():
            if old is None:
                interpreter.variables.pop(name, None)
            else:
                interpreter.variables[name] = old


# catch, tagbody


class _Thrown(BlockExit):
    """Goes to the `catch` of its tag."""

    def __init__(self, tag: object, value: object) -> None:
        super().__init__(self, value)
        self.tag = tag


@special("catch")
def _catch(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    tag_form, *body = arguments(form, 1)
    tag = interpreter.value(tag_form, scope)
    interpreter.tags.append(tag)
    try:
        return interpreter.progn(lisp_list(body), scope)
    except _Thrown as thrown:
        if thrown.tag is not tag:
            raise
        return thrown.value
    finally:
        interpreter.tags.pop()


@special("throw")
def _throw(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    tag_form, value_form = arguments(form, 2, 2)
    tag = interpreter.value(tag_form, scope)
    if tag not in interpreter.tags:
        raise fail("bad-return", f"nothing catches `{text(tag, 60)}` here", form.span)
    raise _Thrown(tag, interpreter.eval(value_form, scope))


class _Gone(BlockExit):
    """Goes to a tag of the `tagbody` with this scope."""

    def __init__(self, scope: Scope, at: int) -> None:
        super().__init__(self, NIL)
        self.scope = scope
        self.at = at


@special("tagbody")
def _tagbody(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    """Forms among tags, which `go` goes to; its value is nil."""
    parts = elements(form.cdr)
    inner = Scope(scope)
    inner.labels = {part: at for at, part in enumerate(parts) if isinstance(part, Symbol | int)}
    at = 0
    while at < len(parts):
        try:
            if isinstance(parts[at], Cons):
                interpreter.eval(parts[at], inner)
            at += 1
        except _Gone as gone:
            if gone.scope is not inner:
                raise
            interpreter.spend(1)
            at = gone.at
    return NIL


@special("go")
def _go(_: Interpreter, form: Cons, scope: Scope) -> object:
    tag = arguments(form, 1, 1)[0]
    where: Scope | None = scope
    while where is not None:
        if where.labels and tag in where.labels:
            raise _Gone(where, where.labels[tag])
        where = where.parent
    raise fail("bad-return", f"no `tagbody` here has the tag `{text(tag, 60)}`", form.span)


@special("prog", "prog*")
def _prog(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    """`(prog (binding...) form-or-tag...)`: a `let` with a `tagbody` in it, which `return` leaves."""
    bindings, *body = arguments(form, 1)
    at = next((at for at, each in enumerate(body) if not (isinstance(each, Cons) and each.car is _DECLARE)), len(body))
    tagged = Cons(intern("TAGBODY"), lisp_list(body[at:]))
    let = intern("LET*" if form.car is intern("PROG*") else "LET")
    bound = lisp_list([let, bindings, *body[:at], tagged])
    return interpreter.eval(lisp_list([intern("BLOCK"), NIL, bound]), scope)


_DECLARE = intern("DECLARE")


@special("cerror")
def _cerror(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    """`(cerror how-to-continue text value...)`: nobody continues, so it is `error`."""
    return interpreter.eval(Cons(intern("ERROR"), lisp_list(arguments(form, 2)[1:]), form.span), scope)


# Errors


_KINDS = {
    "DIVISION-BY-ZERO": ("division-by-zero",), "ARITHMETIC-ERROR": ("division-by-zero",),
    "TYPE-ERROR": ("bad-argument", "not-a-list", "assertion"), "SIMPLE-TYPE-ERROR": ("bad-argument",),
    "UNBOUND-VARIABLE": ("unbound-variable",), "UNDEFINED-FUNCTION": ("undefined-function",),
    "CELL-ERROR": ("unbound-variable", "undefined-function"), "PROGRAM-ERROR": ("argument-count", "bad-argument"),
    "SIMPLE-ERROR": ("user-error", "assertion"), "PARSE-ERROR": ("bad-argument",),
}  # fmt: skip
"""Types of conditions -> the codes of errors that are of them."""

_ANY = ("ERROR", "CONDITION", "SERIOUS-CONDITION")


def _catches(kind: object, problem: FormError) -> bool:
    """Whether a handler of this type takes an error. None takes that evaluation does not end, or that a form of
    Common Lisp is not here: there it would be no error."""
    if problem.diagnostic.code in ("runaway", "not-built"):
        return False
    if isinstance(kind, Cons) and kind.car is intern("OR"):
        return any(_catches(each, problem) for each in elements(kind.cdr))
    name = kind.name if isinstance(kind, Symbol) else ""
    return (
        kind is T
        or name in _ANY
        or (name and name == problem.condition)
        or problem.diagnostic.code in _KINDS.get(name, ())
    )


@special("ignore-errors")
def _ignore_errors(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    try:
        return interpreter.progn(form.cdr, scope)
    except FormError as problem:
        if not _catches(T, problem):
            raise
        return NIL


@special("handler-case")
def _handler_case(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    """`(handler-case form (type (variable) handler...) ... (:no-error (variable...) form...))`."""
    body, *clauses = arguments(form, 1)
    parts = list(_clauses(clauses))
    try:
        values = _all_values(interpreter, body, scope)
    except FormError as problem:
        for kind, params, handler in parts:
            if _catches(kind, problem):
                return _handle(interpreter, params, [problem.diagnostic.problem], handler, scope)
        raise
    for kind, params, handler in parts:
        if kind is intern(":NO-ERROR"):
            return _handle(interpreter, params, values, handler, scope)
    return values[0] if len(values) == 1 else Values(values)


def _clauses(clauses: list[object]) -> Iterator[tuple[object, list[object], list[object]]]:
    for clause in clauses:
        parts = elements(clause)
        if len(parts) < 2:
            raise fail("bad-clause", f"`{text(clause, 60)}` is not (type (variable) form...)")
        yield parts[0], elements(parts[1]), parts[2:]


def _handle(
    interpreter: Interpreter, params: list[object], values: list[object], handler: list[object], scope: Scope
) -> object:
    inner = Scope(scope)
    for name, value in zip(params, [*values, *[NIL] * len(params)], strict=False):
        inner.variables[name_of(name, "a handler")] = value
    return interpreter.progn(lisp_list(handler), inner)
