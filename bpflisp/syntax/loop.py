"""`loop` at compile time: for, with, repeat, while, until, do, collect and its kin, when/unless/if, finally, return.

A loop is compiled to clauses in the order of the text; each turn runs them in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count as counting
from typing import Any

from bpflisp.lean import dataclass, field
from bpflisp.syntax import lambda_list
from bpflisp.syntax.evaluator import BlockExit, Interpreter, Scope
from bpflisp.syntax.forms import NIL, Cons, Symbol, T, cells, elements, fail, intern, lisp_list, span_of, text
from bpflisp.syntax.special import special


class _Ended(Exception):  # noqa: N818  (no error)
    """The loop is over: an iteration is exhausted, or `while` does not hold."""


Step = Callable[[], object]


@dataclass(slots=True)
class _Loop:
    interpreter: Interpreter
    scope: Scope
    tokens: list[object]
    at: int = 0
    steps: list[Step] = field(default_factory=list)
    finally_forms: list[object] = field(default_factory=list)
    pending: list[tuple[object, object]] | None = None
    result: Any = None
    collected: dict[Symbol | None, Any] = field(default_factory=dict)
    result_kind: str = ""

    # Tokens

    def word(self) -> str:
        """The loop keyword that comes next, if one does."""
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        return token.name.lstrip(":") if isinstance(token, Symbol) else ""

    def take(self, *words: str) -> bool:
        """Pass over one of these keywords."""
        if self.word() in words:
            self.at += 1
            return True
        return False

    def form(self) -> object:
        """The form that comes next."""
        if self.at >= len(self.tokens):
            raise fail("bad-loop", "this `loop` ends where a form is expected")
        self.at += 1
        return self.tokens[self.at - 1]

    def value(self, form: object) -> Any:
        return self.interpreter.value(form, self.scope)

    def together(self, *steps: Step) -> None:
        """Steps that `and` joins: all values are computed before the first name is bound."""
        if self.pending is not None:
            for step in steps:
                step()
            return
        self.pending = []
        try:
            for step in steps:
                step()
            pending = self.pending
        finally:
            self.pending = None
        for pattern, value in pending:
            self.bind(pattern, value)

    def bind(self, pattern: object, value: object) -> None:
        """Bind a name, or the names of a list, of the loop."""
        if self.pending is not None:
            self.pending.append((pattern, value))
            return

        def one(name: Symbol, item: object) -> None:
            self.scope.variables[name] = item

        if isinstance(pattern, Symbol):
            if pattern is not NIL:
                one(pattern, value)
        else:
            params = lambda_list.parse(_lenient(pattern), nested=True)
            lambda_list.bind_pattern(params, value, one, self.value)


def _lenient(pattern: object) -> object:
    """`loop` destructures shorter and longer lists alike: everything is optional."""
    if not isinstance(pattern, Cons):
        return pattern
    items: list[object] = [intern("&OPTIONAL")]
    rest: object = pattern
    while isinstance(rest, Cons):
        name = Symbol("PASSED-OVER") if rest.car is NIL else rest.car
        items.append(name if isinstance(name, Symbol) else Cons(_lenient(name), NIL))
        rest = rest.cdr
    return lisp_list(items, rest if rest is not NIL else Cons(intern("&REST"), Cons(Symbol("REST"), NIL)))


_COLLECTORS = {
    "COLLECT": "list", "COLLECTING": "list", "APPEND": "append", "APPENDING": "append", "NCONC": "append",
    "NCONCING": "append", "SUM": "sum", "SUMMING": "sum", "COUNT": "count", "COUNTING": "count", "MAXIMIZE": "max",
    "MAXIMIZING": "max", "MINIMIZE": "min", "MINIMIZING": "min",
}  # fmt: skip


@special("loop")
def _loop(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    tokens = elements(form.cdr)
    inner = Scope(scope)
    block = object()
    inner.blocks[NIL] = block
    try:
        if not tokens or isinstance(tokens[0], Cons):
            while True:
                interpreter.fuel -= 1
                interpreter.eval(Cons(intern("PROGN"), form.cdr), inner)
        return _run(_Loop(interpreter, inner, tokens), inner, block)
    except BlockExit as leaving:
        if leaving.block is not block:
            raise
        return leaving.value


def _run(loop: _Loop, scope: Scope, block: object) -> object:
    if loop.take("NAMED"):
        name = loop.form()
        if isinstance(name, Symbol):
            scope.blocks[name] = block
    while loop.at < len(loop.tokens):
        loop.steps.append(_clause(loop))
    try:
        while True:
            loop.interpreter.eval(NIL, scope)
            for step in loop.steps:
                step()
    except _Ended:
        for form in loop.finally_forms:
            loop.interpreter.eval(form, scope)
    return _result(loop)


def _result(loop: _Loop) -> object:
    value = loop.collected.get(None)
    if loop.result is not None:
        return loop.result
    if loop.result_kind in ("list", "append"):
        return lisp_list(value or [])
    if loop.result_kind in ("sum", "count"):
        return value or 0
    return NIL if value is None else value


def _clause(loop: _Loop) -> Step:
    """The clause that starts here, as what it does each turn."""
    word = loop.word()
    if word in ("FOR", "AS"):
        return _for(loop)
    if word in ("WITH", "REPEAT", "WHILE", "UNTIL", "INITIALLY", "FINALLY"):
        return _simple_clause(loop, word)
    if word in ("ALWAYS", "NEVER", "THEREIS"):
        return _decision(loop, word)
    return _selectable(loop)


def _simple_clause(loop: _Loop, word: str) -> Step:
    loop.at += 1
    if word == "WITH":
        bound = [(loop.form(), loop.value(loop.form()) if loop.take("=") else NIL)]
        while loop.take("AND"):
            bound.append((loop.form(), loop.value(loop.form()) if loop.take("=") else NIL))
        for pattern, value in bound:
            loop.bind(pattern, value)
        return _nothing
    if word == "REPEAT":
        turns = iter(range(loop.value(loop.form())))
        return lambda: _advance(turns)
    if word in ("WHILE", "UNTIL"):
        test = loop.form()
        return lambda: _end_unless((loop.value(test) is not NIL) is (word == "WHILE"))
    forms = []
    while loop.at < len(loop.tokens) and isinstance(loop.tokens[loop.at], Cons):
        forms.append(loop.form())
    if word == "INITIALLY":
        for form in forms:
            loop.value(form)
    elif loop.take("RETURN"):
        forms.append(lisp_list([intern("RETURN"), loop.form()]))
    loop.finally_forms += forms if word == "FINALLY" else []
    return _nothing


def _nothing() -> None:
    pass


def _end_unless(holds: bool) -> None:
    if not holds:
        raise _Ended


def _advance(items: Iterator[object]) -> object:
    try:
        return next(items)
    except StopIteration:
        raise _Ended from None


def _decision(loop: _Loop, word: str) -> Step:
    loop.at += 1
    test = loop.form()
    if word != "THEREIS":
        loop.collected.setdefault(None, T)

    def step() -> None:
        value = loop.value(test)
        if word == "THEREIS" and value is not NIL:
            raise BlockExit(loop.scope.blocks[NIL], value)
        if word != "THEREIS" and (value is not NIL) is not (word == "ALWAYS"):
            raise BlockExit(loop.scope.blocks[NIL], NIL)

    return step


def _selectable(loop: _Loop) -> Step:
    """A clause that `when` may guard."""
    word = loop.word()
    loop.at += 1
    if word in ("WHEN", "IF", "UNLESS"):
        return _conditional(loop, word)
    if word in ("DO", "DOING"):
        forms = []
        while loop.at < len(loop.tokens) and isinstance(loop.tokens[loop.at], Cons):
            forms.append(loop.form())
        return lambda: [loop.value(form) for form in forms]
    if word == "RETURN":
        result = loop.form()

        def leave() -> None:
            raise BlockExit(loop.scope.blocks[NIL], loop.value(result))

        return leave
    if word in _COLLECTORS:
        return _collector(loop, _COLLECTORS[word])
    raise fail("bad-loop", f"`{text(loop.tokens[loop.at - 1])}` starts no clause of `loop` that is known here")


def _conditional(loop: _Loop, word: str) -> Step:
    test = loop.form()
    then = [_selectable(loop)]
    while loop.take("AND"):
        then.append(_selectable(loop))
    other: list[Step] = []
    if loop.take("ELSE"):
        other.append(_selectable(loop))
        while loop.take("AND"):
            other.append(_selectable(loop))
    loop.take("END")

    def step() -> None:
        holds = loop.value(test)
        loop.scope.variables[intern("IT")] = holds
        for chosen in then if (holds is not NIL) is (word != "UNLESS") else other:
            chosen()

    return step


def _collector(loop: _Loop, kind: str) -> Step:
    form = loop.form()
    name: Symbol | None = None
    if loop.take("INTO"):
        into = loop.form()
        name = into if isinstance(into, Symbol) else None
        loop.bind(into, 0 if kind in ("sum", "count") else NIL)
    else:
        loop.result_kind = kind

    def step() -> None:
        value = loop.value(form)
        loop.collected[name] = _combined(kind, loop.collected.get(name), value)
        if name is not None:
            total = loop.collected[name]
            loop.scope.variables[name] = lisp_list(total) if kind in ("list", "append") else total

    return step


def _combined(kind: str, total: Any, value: Any) -> object:
    match kind:
        case "list":
            return [*(total or []), value] if total is None else _extended(total, [value])
        case "append":
            return _extended(total if total is not None else [], elements(value))
        case "sum":
            return (total or 0) + value
        case "count":
            return (total or 0) + (value is not NIL)
        case "max":
            return value if total is None else max(total, value)
    return value if total is None else min(total, value)


def _extended(total: list[object], items: list[object]) -> list[object]:
    total.extend(items)
    return total


def _for(loop: _Loop) -> Step:
    """`for name ...`, and what `and` joins to it."""
    loop.at += 1
    pattern = loop.form()
    if loop.take("OF-TYPE"):
        loop.form()
    else:
        loop.take("FIXNUM", "FLOAT", "T", "NIL")
    word = loop.word()
    if word in ("IN", "ON", "ACROSS"):
        step = _for_each(loop, pattern, word)
    elif word == "=":
        step = _for_equals(loop, pattern)
    elif word in ("BEING",):
        step = _for_hash(loop, pattern)
    else:
        step = _for_number(loop, pattern)
    if loop.word() == "AND":
        following = _for(loop)
        return lambda: loop.together(step, following)
    return step


def _for_each(loop: _Loop, pattern: object, word: str) -> Step:
    loop.at += 1
    collection = loop.value(loop.form())
    by = loop.interpreter.function(loop.value(loop.form())) if loop.take("BY") else None
    if word == "ACROSS":
        from bpflisp.syntax.data import sequence

        items: Iterator[object] = iter(sequence(collection))
    elif not isinstance(collection, Cons) and collection is not NIL:
        problem = f"`loop` goes through a list here, and `{text(collection, 60)}` is none"
        raise fail("not-a-list", problem, span_of(loop.tokens[loop.at - 1]))
    else:
        items = _cells_by(collection, by) if word == "ON" else (cell.car for cell in _cells_by(collection, by))
    loop.bind(pattern, NIL)
    return lambda: loop.bind(pattern, _advance(items))


def _cells_by(collection: Any, by: Callable[..., object] | None) -> Iterator[Cons]:
    if by is None:
        yield from cells(collection)
        return
    while isinstance(collection, Cons):
        yield collection
        collection = by(collection)


def _for_equals(loop: _Loop, pattern: object) -> Step:
    loop.at += 1
    initial = loop.form()
    following = loop.form() if loop.take("THEN") else initial
    turns = counting()
    loop.bind(pattern, NIL)
    return lambda: loop.bind(pattern, loop.value(following if next(turns) else initial))


def _for_hash(loop: _Loop, pattern: object) -> Step:
    loop.at += 1
    loop.take("THE", "EACH")
    keys = loop.take("HASH-KEYS", "HASH-KEY")
    if not keys and not loop.take("HASH-VALUES", "HASH-VALUE"):
        raise fail("bad-loop", "`being` is known here of hash-keys and hash-values alone")
    loop.take("OF", "IN")
    table = loop.value(loop.form())
    using: object = NIL
    if loop.take("USING"):
        using = elements(loop.form())[-1]
    pairs = iter(list(zip(table.keys(), table.values(), strict=True)))

    def step() -> None:
        pair: Any = _advance(pairs)
        loop.bind(pattern, pair[0 if keys else 1])
        loop.bind(using, pair[1 if keys else 0])

    return step


def _for_number(loop: _Loop, pattern: object) -> Step:
    start, limit, step, down, inclusive = 0, None, 1, False, True
    known = True
    while known:
        word = loop.word()
        known = word in ("FROM", "UPFROM", "DOWNFROM", "TO", "UPTO", "BELOW", "DOWNTO", "ABOVE", "BY")
        if not known:
            break
        loop.at += 1
        number = loop.value(loop.form())
        if not isinstance(number, int):
            raise fail("bad-loop", f"`{word.lower()}` needs a whole number, not `{text(number)}`")
        down = down or word in ("DOWNFROM", "DOWNTO", "ABOVE")
        if word in ("FROM", "UPFROM", "DOWNFROM"):
            start = number
        elif word == "BY":
            step = number
        else:
            limit, inclusive = number, word not in ("BELOW", "ABOVE")
    numbers = _numbers(start, limit, -step if down else step, inclusive)
    loop.bind(pattern, NIL)
    return lambda: loop.bind(pattern, _advance(numbers))


def _numbers(start: int, limit: int | None, step: int, inclusive: bool) -> Iterator[int]:
    number = start
    while True:
        if limit is not None:
            beyond = number > limit if step > 0 else number < limit
            if beyond or (number == limit and not inclusive):
                return
        yield number
        number += step
