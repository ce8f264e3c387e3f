"""Control: `progn`, tests and choices, loops, `return`."""

from __future__ import annotations

from bpflisp.front import tree
from bpflisp.front.check import CORE, Checker, core, library
from bpflisp.front.check_arithmetic import head_of, is_known, is_zero
from bpflisp.front.check_binding import typed_by_declarations
from bpflisp.front.tree import Local, LoopMark, Tree
from bpflisp.front.types import NEVER, U64, UNKNOWN, Never, Number, Pointer, join
from bpflisp.spec.isa import Op
from bpflisp.syntax.forms import NIL, Cons, Symbol, T, cells, element_span, elements, fail, intern, text

_DEFAULTS = (T, intern("OTHERWISE"))

MAX_UNROLLED = 256
"""Elements of a `dolist`: the body is there once for each."""


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
        if isinstance(clause.car, Symbol) and clause.car.name in CORE and checker.find(clause.car) is None:
            problem = f"`{text(clause, 60)}` is no clause of `cond`: it has no test"
            raise fail("bad-clause", problem, element_span(cell), help=f"two parentheses: ({text(clause, 60)} body...)")
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
    seen: set[int] = set()
    clauses = [_case_clause(checker, cell, read, seen) for cell in args[1:]]
    default = next((cell for cell, (test, _) in zip(args[1:], clauses, strict=True) if test is None), None)
    if default is not None and default.cdr is not NIL:
        checker.warn("unreachable", "the clauses after this one are never reached", element_span(default))
    result: Tree = _zero(checker)
    for test, body in reversed(clauses):
        result = body if test is None else choose(checker, test, body, result)
    bind = tree.Assign(local=local, value=key, type=key.type, span=key.span)
    return tree.Progn(items=[bind, result], type=result.type, span=checker.span)


def _case_clause(checker: Checker, cell: Cons, key: Tree, seen: set[int]) -> tuple[Tree | None, Tree]:
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
        if value.value in seen:
            problem = f"the case `{text(candidate.car, 40)}` stands in a clause before this one"
            checker.warn("duplicate-case", problem, element_span(candidate))
        seen.add(value.value)
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
    return negation(checker, checker.value(checker.args(form, 1, 1)[0]))


def negation(checker: Checker, value: Tree) -> Tree:
    """1 of 0, else 0."""
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
    """`(dotimes (variable count [result]) body...)`: the variable counts from 0; the count is evaluated once.

    Its value is the result's, 0 where there is none. The verifier has to see that a count that is not known when
    compiling is not too large.
    """
    args = checker.args(form, 1)
    head = list(cells(args[0].car)) if isinstance(args[0].car, Cons) else []
    if len(head) not in (2, 3):
        raise fail("bad-loop", f"`{text(args[0].car)}` is not (variable count)", element_span(args[0]))
    name = _loop_variable(checker, head[0], args[0])
    limit = checker.value(head[1])
    if isinstance(limit, tree.Number) and limit.value >> 63 and is_known(limit):
        raise fail("bad-loop", f"`dotimes` cannot count to {limit.value - (1 << 64)}", element_span(head[1]))
    if isinstance(limit.type, Pointer):
        raise fail("bad-loop", f"`dotimes` counts to a number, not to {limit.type.name}", element_span(head[1]))
    signed = isinstance(limit.type, Number) and limit.type.signed
    setup: list[Tree] = []
    if len(head) == 3 and not isinstance(limit, tree.Number):
        local = Local("limit", limit.type)
        setup.append(tree.Assign(local=local, value=limit, type=limit.type, span=limit.span))
        limit = tree.Read(local=local, type=limit.type, span=limit.span)
    counter = Local(name.name, U64)
    with checker.scope() as scope:
        scope[name] = counter
        body, mark = _loop_body(checker, form)
        count = tree.Count(local=counter, limit=limit, body=body, mark=mark, signed=signed, span=checker.span)
        if len(head) < 3:
            return count
        last = tree.Assign(local=counter, value=limit, type=U64, span=checker.span)
        result = checker.value(head[2])
    return tree.Progn(items=[*setup, count, last, result], type=result.type, span=checker.span)


def _loop_variable(checker: Checker, cell: Cons, head: Cons) -> Symbol:
    """The name that a loop binds."""
    name = cell.car
    if not isinstance(name, Symbol) or name in (NIL, T) or name.is_keyword:
        raise fail("bad-loop", f"`{text(head.car)}` does not start with a variable", element_span(head))
    if name in checker.unit.interpreter.constants:
        raise fail("bad-name", f"`{text(name)}` is a constant, and cannot be bound", element_span(cell))
    return name


def _loop_body(checker: Checker, form: Cons) -> tuple[Tree, LoopMark]:
    """What stands after a loop's head, in which `break` and `continue` mean this loop.

    Declarations at its beginning are passed over: a counter is a word whatever is said of it.
    """
    mark = LoopMark(len(checker.cleanups))
    checker.loops.append(mark)
    _, _, forms = typed_by_declarations(checker, form.cdr.cdr if isinstance(form.cdr, Cons) else NIL)
    body = checker.progn(forms)
    checker.loops.pop()
    return body, mark


@library("dolist")
def _dolist(checker: Checker, form: Cons) -> Tree:
    """`(dolist (variable list) body...)`: the list is known when compiling, and its elements are numbers."""
    args = checker.args(form, 1)
    head = list(cells(args[0].car)) if isinstance(args[0].car, Cons) else []
    if len(head) != 2:
        raise fail("bad-loop", f"`{text(args[0].car)}` is not (variable list)", element_span(args[0]))
    name = _loop_variable(checker, head[0], args[0])
    numbers = _numbers(checker, head[1])
    local = Local(name.name, U64)
    with checker.scope() as scope:
        scope[name] = local
        body, mark = _loop_body(checker, form)
    return tree.Each(local=local, values=numbers, body=body, mark=mark, span=checker.span)


def _numbers(checker: Checker, cell: Cons) -> list[int]:
    """The numbers of a list that is quoted, or a constant's value."""
    form: object = cell.car
    interpreter = checker.unit.interpreter
    if isinstance(form, Cons) and form.car is intern("QUOTE"):
        form = form.cdr.car if isinstance(form.cdr, Cons) else NIL
    elif isinstance(form, Symbol) and form in interpreter.constants:
        form = interpreter.variables[form]
    elif form is not NIL:
        problem = f"the list of `dolist` must be known when compiling, and `{text(form, 60)}` is not"
        raise fail("not-constant", problem, element_span(cell), help="a quoted list, or a constant that is a list")
    items = elements(form)
    if len(items) > MAX_UNROLLED:
        raise fail("too-big", f"`dolist` goes through at most {MAX_UNROLLED} elements, not {len(items)}")
    return [_element(checker, item, cell) for item in items]


def _element(checker: Checker, item: object, cell: Cons) -> int:
    node = checker.form(item)
    if not isinstance(node, tree.Number):
        raise fail("not-constant", f"`{text(item, 60)}` in the list of `dolist` is no number", element_span(cell))
    return node.value


@library("while", "until")
def _while(checker: Checker, form: Cons) -> Tree:
    """As long as the test is not 0 (`until`: as long as it is). The verifier has to see that it ends; it gives 0."""
    test = checker.value(checker.args(form, 1)[0])
    if head_of(form) == "UNTIL":
        test = negation(checker, test)
    body, mark = _loop_body(checker, form)
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
    raise fail("bad-declare", "`declare` stands at the head of a body of `let` or of a loop alone")
