"""Blocks and the loops that are one: `block`, `return-from`, `dolist`, `dotimes`, `do`."""

from __future__ import annotations

from collections.abc import Sequence

from bpflisp.syntax.evaluator import BlockExit, Interpreter, Scope
from bpflisp.syntax.forms import (
    NIL,
    Cons,
    Symbol,
    elements,
    fail,
    intern,
    lisp_list,
    text,
)
from bpflisp.syntax.special import arguments, name_of, special


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
