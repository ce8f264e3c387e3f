"""Control: `progn`, tests and choices, loops, `return`."""

from __future__ import annotations

from bpflisp.front import tree
from bpflisp.front.check import Checker, core, library
from bpflisp.front.check_arithmetic import head_of, is_known, is_zero
from bpflisp.front.tree import Local, LoopMark, Tree
from bpflisp.front.types import NEVER, U64, UNKNOWN, Never, join
from bpflisp.spec.isa import Op
from bpflisp.syntax.forms import NIL, Cons, Symbol, T, cells, element_span, fail, intern, text

_DEFAULTS = (T, intern("OTHERWISE"))


def _zero(checker: Checker) -> tree.Number:
    return tree.Number(value=0, span=checker.span)


def choose(checker: Checker, test: Tree, then: Tree, other: Tree) -> Tree:
    """`if`, decided where the test is a number that is known."""
    if isinstance(test, tree.Number) and is_known(test):
        return then if test.value else other
    kind = join(then.type, other.type, is_zero(then), is_zero(other))
    if isinstance(test.type, Never):
        kind = NEVER
    return tree.If(test=test, then=then, other=other, type=kind, span=checker.span)


@core("progn")
def _progn(checker: Checker, form: Cons) -> Tree:
    return checker.progn(form.cdr)


@core("if")
def _if(checker: Checker, form: Cons) -> Tree:
    args = checker.args(form, 2, 3)
    test, then = checker.value(args[0]), checker.value(args[1])
    return choose(checker, test, then, checker.value(args[2]) if len(args) > 2 else _zero(checker))


@core("when", "unless")
def _when(checker: Checker, form: Cons) -> Tree:
    """A body that is skipped gives 0."""
    test = checker.value(checker.args(form, 1)[0])
    assert isinstance(form.cdr, Cons)
    body = checker.progn(form.cdr.cdr)
    if head_of(form) == "WHEN":
        return choose(checker, test, body, _zero(checker))
    return choose(checker, test, _zero(checker), body)


@core("cond")
def _cond(checker: Checker, form: Cons) -> Tree:
    """The first clause whose test is not 0; a clause without a body gives its test."""
    clauses: list[tuple[Tree, Tree | None]] = []
    for cell in cells(form.cdr):
        clause = cell.car
        if not isinstance(clause, Cons):
            raise fail(
                "bad-clause", f"`{text(clause)}` is no clause of `cond`", element_span(cell), help="((test) body...)"
            )
        test = tree.Number(value=1, span=checker.span) if clause.car in _DEFAULTS else checker.value(clause)
        body = checker.progn(clause.cdr) if clause.cdr is not NIL else None
        clauses.append((test, body))
        if isinstance(test, tree.Number) and test.value and is_known(test) and cell.cdr is not NIL:
            checker.warn("unreachable", "the clauses after this one are never reached", element_span(cell))
            break
    result: Tree = _zero(checker)
    for test, body in reversed(clauses):
        if body is None:
            result = _logic(checker, False, [test, result])
        else:
            result = choose(checker, test, body, result)
    return result


@core("case")
def _case(checker: Checker, form: Cons) -> Tree:
    """Clauses of a number, of a list of numbers, or of `t`; the key is evaluated once."""
    args = checker.args(form, 1)
    key = checker.value(args[0])
    local = Local("key", key.type)
    read = tree.Read(local=local, type=key.type, span=key.span)
    clauses = [_case_clause(checker, cell, read) for cell in args[1:]]
    result: Tree = _zero(checker)
    for test, body in reversed(clauses):
        result = body if test is None else choose(checker, test, body, result)
    bind = tree.Assign(local=local, value=key, type=key.type, span=key.span)
    return tree.Progn(items=[bind, result], type=result.type, span=checker.span)


def _case_clause(checker: Checker, cell: Cons, key: Tree) -> tuple[Tree | None, Tree]:
    clause = cell.car
    if not isinstance(clause, Cons):
        raise fail(
            "bad-clause", f"`{text(clause)}` is no clause of `case`", element_span(cell), help="(number body...)"
        )
    if clause.car in _DEFAULTS:
        return None, checker.progn(clause.cdr)
    candidates = list(cells(clause.car)) if isinstance(clause.car, Cons) else [clause]
    tests: list[Tree] = []
    for candidate in candidates:
        value = tree.Number(value=checker.constant(candidate, "a case") & ((1 << 64) - 1))
        tests.append(tree.Compare(op=Op.EQ, left=key, right=value, span=checker.span))
    test = tests[0] if len(tests) == 1 else _logic(checker, False, tests)
    return test, checker.progn(clause.cdr)


def _logic(checker: Checker, conjunction: bool, items: list[Tree]) -> Tree:
    kind = items[-1].type
    for item in items[:-1] if not conjunction else []:
        kind = join(item.type, kind, is_zero(item), is_zero(items[-1]))
    if any(item.type is UNKNOWN for item in items):
        kind = UNKNOWN
    if isinstance(items[0].type, Never):
        kind = NEVER
    elif isinstance(kind, Never):
        kind = U64
    return tree.Logic(conjunction=conjunction, items=items, type=kind, span=checker.span)


@core("and", "or")
def _and_or(checker: Checker, form: Cons) -> Tree:
    conjunction = head_of(form) == "AND"
    items = [checker.value(cell) for cell in cells(form.cdr)]
    # What is known to pass, and is not the last, takes no part; what is known to stop ends the list.
    kept: list[Tree] = []
    for index, item in enumerate(items):
        if is_known(item) and isinstance(item, tree.Number):
            if bool(item.value) is conjunction and index < len(items) - 1:
                continue
            if bool(item.value) is not conjunction:
                kept.append(item)
                break
        kept.append(item)
    if not kept:
        return tree.Number(value=int(conjunction), span=checker.span)
    return kept[0] if len(kept) == 1 else _logic(checker, conjunction, kept)


@core("not")
def _not(checker: Checker, form: Cons) -> Tree:
    value = checker.value(checker.args(form, 1, 1)[0])
    if isinstance(value, tree.Number) and is_known(value):
        return tree.Number(value=int(not value.value), span=checker.span)
    kind = UNKNOWN if value.type is UNKNOWN else U64
    return tree.Not(operand=value, type=kind, span=checker.span)


@core("return")
def _return(checker: Checker, form: Cons) -> Tree:
    """Leave the program, after what has to be released."""
    args = checker.args(form, 0, 1)
    value = checker.value(args[0]) if args else _zero(checker)
    return tree.Return(value=value, cleanups=checker.cleanups[::-1], type=NEVER, span=checker.span)


# Loops


@core("dotimes")
def _dotimes(checker: Checker, form: Cons) -> Tree:
    """The variable counts from 0; the count is known when compiling. Its value is 0."""
    args = checker.args(form, 1)
    head = list(cells(args[0].car)) if isinstance(args[0].car, Cons) else []
    if len(head) != 2 or not isinstance(head[0].car, Symbol) or head[0].car is NIL:
        raise fail("bad-loop", f"`{text(args[0].car)}` is not (variable count)", element_span(args[0]))
    count = checker.constant(head[1], "the count of `dotimes`")
    if count < 0:
        raise fail("bad-loop", f"`dotimes` cannot count to {count}", element_span(head[1]))
    name = head[0].car
    if name in checker.unit.interpreter.constants:
        raise fail("bad-name", f"`{text(name)}` is a constant, and cannot be bound", element_span(head[0]))
    local = Local(name.name, U64)
    mark = LoopMark(len(checker.cleanups))
    checker.loops.append(mark)
    with checker.scope() as scope:
        scope[name] = local
        body = checker.progn(form.cdr.cdr if isinstance(form.cdr, Cons) else NIL)
    checker.loops.pop()
    limit = tree.Number(value=count, span=checker.span)
    return tree.Count(local=local, limit=limit, body=body, mark=mark, span=checker.span)


@library("while")
def _while(checker: Checker, form: Cons) -> Tree:
    """As long as the test is not 0. The verifier has to see that it ends. Its value is 0."""
    mark = LoopMark(len(checker.cleanups))
    test = checker.value(checker.args(form, 1)[0])
    checker.loops.append(mark)
    assert isinstance(form.cdr, Cons)
    body = checker.progn(form.cdr.cdr)
    checker.loops.pop()
    endless = isinstance(test, tree.Number) and is_known(test) and test.value != 0 and not mark.broken
    return tree.While(test=test, body=body, mark=mark, type=NEVER if endless else U64, span=checker.span)


@library("break", "continue")
def _leave(checker: Checker, form: Cons) -> Tree:
    """Leave the innermost loop, or go on with its next turn."""
    checker.args(form, 0, 0)
    again = head_of(form) == "CONTINUE"
    if not checker.loops:
        raise fail("bad-loop", f"`{text(form.car)}` outside of a loop")
    mark = checker.loops[-1]
    mark.broken = mark.broken or not again
    cleanups = checker.cleanups[mark.cleanups :][::-1]
    return tree.Leave(mark=mark, again=again, cleanups=cleanups, type=NEVER, span=checker.span)


@core("quote", "function", "lambda", "quasiquote")
def _no_value(checker: Checker, form: Cons) -> Tree:
    raise fail("bad-literal", f"`{text(form, 60)}` is no value of a BPF program, which knows integers alone")


@core("declare")
def _declare(checker: Checker, form: Cons) -> Tree:
    raise fail("bad-declare", "`declare` stands at the head of a `let`'s body alone")
