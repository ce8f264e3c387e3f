"""Functions of Common Lisp that take functions: `mapcar`, `find`, `sort` and their kin."""

from __future__ import annotations

from collections.abc import Callable
from functools import cmp_to_key, reduce
from typing import TYPE_CHECKING, Any

from bpflisp.syntax.data import (
    Function,
    append,
    coerce,
    eql,
    itself,
    keywords_of,
    like,
    sequence,
    truth,
)
from bpflisp.syntax.forms import NIL, Cons, cells, elements, lisp_list

if TYPE_CHECKING:
    from bpflisp.syntax.evaluator import Interpreter


class _Sequences:
    """Functions that take functions: they need the interpreter to resolve names."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter

    def of(self, designator: Any) -> Callable[..., Any]:
        return self.interpreter.function(designator)

    def _tester(self, options: dict[str, Any]) -> Callable[[Any, Any], bool]:
        key = self.of(options["KEY"]) if options.get("KEY", NIL) is not NIL else None
        if "TEST" not in options:
            test: Callable[[Any, Any], Any] = lambda a, b: truth(eql(a, b))  # noqa: E731
        else:
            test = self.of(options["TEST"])
        return lambda item, other: test(item, key(other) if key else other) is not NIL

    def _predicate(self, function: Any, options: dict[str, Any]) -> Callable[[Any], bool]:
        chosen = self.of(function)
        key = self.of(options["KEY"]) if options.get("KEY", NIL) is not NIL else None
        return lambda item: chosen(key(item) if key else item) is not NIL

    def mapcar(self, function: Any, *lists: Any) -> object:
        chosen = self.of(function)
        return lisp_list(chosen(*items) for items in zip(*map(sequence, lists), strict=False))

    def mapc(self, function: Any, *lists: Any) -> object:
        self.mapcar(function, *lists)
        return lists[0]

    def mapcan(self, function: Any, *lists: Any) -> object:
        return append(*elements(self.mapcar(function, *lists)))

    def maplist(self, function: Any, items: Any) -> object:
        chosen = self.of(function)
        return lisp_list(chosen(cell) for cell in cells(items))

    def map_into(self, kind: Any, function: Any, *lists: Any) -> object:
        mapped = self.mapcar(function, *lists)
        if kind is NIL:
            return NIL
        return coerce(mapped, kind)

    def apply(self, function: Any, *args: Any) -> object:
        return self.of(function)(*args[:-1], *elements(args[-1]))

    def funcall(self, function: Any, *args: Any) -> object:
        return self.of(function)(*args)

    def reduce(self, function: Any, items: Any, *rest: Any) -> object:
        options = keywords_of(rest)
        chosen = self.of(function)
        values = sequence(items)
        if options.get("KEY", NIL) is not NIL:
            key = self.of(options["KEY"])
            values = [key(value) for value in values]
        if options.get("FROM-END", NIL) is not NIL:
            values, forward = values[::-1], chosen
            chosen = lambda a, b: forward(b, a)  # noqa: E731
        if "INITIAL-VALUE" in options:
            return reduce(chosen, values, options["INITIAL-VALUE"])
        return reduce(chosen, values) if values else chosen()

    def remove_if(self, test: Any, items: Any, *rest: Any) -> object:
        holds = self._predicate(test, keywords_of(rest))
        return like(items, [item for item in sequence(items) if not holds(item)])

    def remove_if_not(self, test: Any, items: Any, *rest: Any) -> object:
        holds = self._predicate(test, keywords_of(rest))
        return like(items, [item for item in sequence(items) if holds(item)])

    def remove(self, item: Any, items: Any, *rest: Any) -> object:
        same = self._tester(keywords_of(rest))
        return like(items, [other for other in sequence(items) if not same(item, other)])

    def substitute(self, new: Any, old: Any, items: Any, *rest: Any) -> object:
        same = self._tester(keywords_of(rest))
        return like(items, [new if same(old, other) else other for other in sequence(items)])

    def remove_duplicates(self, items: Any, *rest: Any) -> object:
        same = self._tester(keywords_of(rest))
        kept: list[Any] = []
        for item in reversed(sequence(items)):
            if not any(same(item, other) for other in kept):
                kept.append(item)
        return like(items, kept[::-1])

    def find(self, item: Any, items: Any, *rest: Any) -> object:
        same = self._tester(keywords_of(rest))
        return next((other for other in sequence(items) if same(item, other)), NIL)

    def find_if(self, test: Any, items: Any, *rest: Any) -> object:
        holds = self._predicate(test, keywords_of(rest))
        return next((item for item in sequence(items) if holds(item)), NIL)

    def position(self, item: Any, items: Any, *rest: Any) -> object:
        same = self._tester(keywords_of(rest))
        return next((at for at, other in enumerate(sequence(items)) if same(item, other)), NIL)

    def position_if(self, test: Any, items: Any, *rest: Any) -> object:
        holds = self._predicate(test, keywords_of(rest))
        return next((at for at, item in enumerate(sequence(items)) if holds(item)), NIL)

    def count(self, item: Any, items: Any, *rest: Any) -> object:
        same = self._tester(keywords_of(rest))
        return sum(same(item, other) for other in sequence(items))

    def count_if(self, test: Any, items: Any, *rest: Any) -> object:
        holds = self._predicate(test, keywords_of(rest))
        return sum(holds(item) for item in sequence(items))

    def member(self, item: Any, items: Any, *rest: Any) -> object:
        same = self._tester(keywords_of(rest))
        return next((cell for cell in cells(items) if same(item, cell.car)), NIL)

    def assoc(self, item: Any, items: Any, *rest: Any) -> object:
        same = self._tester(keywords_of(rest))
        return next((pair for pair in elements(items) if isinstance(pair, Cons) and same(item, pair.car)), NIL)

    def some(self, test: Any, *lists: Any) -> object:
        chosen = self.of(test)
        for items in zip(*map(sequence, lists), strict=False):
            value = chosen(*items)
            if value is not NIL:
                return value
        return NIL

    def every(self, test: Any, *lists: Any) -> object:
        chosen = self.of(test)
        return truth(all(chosen(*items) is not NIL for items in zip(*map(sequence, lists), strict=False)))

    def notany(self, test: Any, *lists: Any) -> object:
        return truth(self.some(test, *lists) is NIL)

    def sort(self, items: Any, test: Any, *rest: Any) -> object:
        options = keywords_of(rest)
        before = self.of(test)
        key: Callable[[Any], Any] = itself
        if options.get("KEY", NIL) is not NIL:
            key = self.of(options["KEY"])

        def order(a: Any, b: Any) -> int:
            if before(key(a), key(b)) is not NIL:
                return -1
            return 1 if before(key(b), key(a)) is not NIL else 0

        return like(items, sorted(sequence(items), key=cmp_to_key(order)))

    def maphash(self, function: Any, table: Any) -> object:
        chosen = self.of(function)
        for key, value in zip(table.keys(), table.values(), strict=True):
            chosen(key, value)
        return NIL

    def complement(self, function: Any) -> object:
        chosen = self.of(function)
        return lambda *args: truth(chosen(*args) is NIL)

    def macroexpand_1(self, form: Any, *_: Any) -> object:
        return self.interpreter.macroexpand_1(form)

    def macroexpand(self, form: Any, *_: Any) -> object:
        while (new := self.interpreter.macroexpand_1(form)) is not form:
            form = new
        return form

    def gensym(self, prefix: Any = "G") -> object:
        return self.interpreter.gensym(prefix if isinstance(prefix, str) else "G")

    def fboundp(self, name: Any) -> object:
        return truth(name in self.interpreter.functions or name in self.interpreter.macros)

    def boundp(self, name: Any) -> object:
        return truth(name in self.interpreter.variables)

    def symbol_value(self, name: Any) -> object:
        return self.interpreter.variable(name, None)

    def eval(self, form: Any) -> object:
        return self.interpreter.value(form, self.interpreter.globals)


def functions(interpreter: Interpreter) -> dict[str, Function]:
    """All of them, by upper-case name."""
    library = _Sequences(interpreter)
    names = [name for name in vars(_Sequences) if not name.startswith("_") and name not in ("of", "map_into")]
    table: dict[str, Function] = {name.upper().replace("_", "-"): getattr(library, name) for name in names}
    return table | {
        "MAP": library.map_into, "DELETE-IF": library.remove_if, "DELETE": library.remove,
        "STABLE-SORT": library.sort, "MAPL": library.mapc, "DELETE-DUPLICATES": library.remove_duplicates,
    }  # fmt: skip
