"""Functions of Common Lisp that take functions: `mapcar`, `reduce`, `sort` and their kin."""

from __future__ import annotations

from collections.abc import Callable
from functools import cmp_to_key, reduce
from typing import TYPE_CHECKING, Any

from bpflisp.syntax.data import (
    Function,
    append,
    coerce,
    itself,
    keywords_of,
    like,
    sequence,
    truth,
)
from bpflisp.syntax.forms import NIL, cells, elements, lisp_list
from bpflisp.syntax.searching import options_of, window

if TYPE_CHECKING:
    from bpflisp.syntax.evaluator import Interpreter


class _Sequences:
    """Functions that take functions: they need the interpreter to resolve names."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter

    def of(self, designator: Any) -> Callable[..., Any]:
        return self.interpreter.function(designator)

    def mapcar(self, function: Any, *lists: Any) -> object:
        chosen = self.of(function)
        return lisp_list(chosen(*items) for items in zip(*map(sequence, lists), strict=False))

    def mapc(self, function: Any, *lists: Any) -> object:
        self.mapcar(function, *lists)
        return lists[0]

    def mapcan(self, function: Any, *lists: Any) -> object:
        return append(*elements(self.mapcar(function, *lists)))

    def maplist(self, function: Any, *lists: Any) -> object:
        chosen = self.of(function)
        return lisp_list(chosen(*rests) for rests in zip(*map(cells, lists), strict=False))

    def mapl(self, function: Any, *lists: Any) -> object:
        self.maplist(function, *lists)
        return lists[0]

    def mapcon(self, function: Any, *lists: Any) -> object:
        return append(*elements(self.maplist(function, *lists)))

    def map_into(self, target: Any, function: Any, *lists: Any) -> object:
        """Results into the places of a sequence, as many as there are."""
        mapped = elements(self.mapcar(function, *lists))
        if isinstance(target, list):
            target[: len(mapped)] = mapped[: len(target)]
            return target
        for cell, value in zip(cells(target), mapped, strict=False):
            cell.car = value
        return target

    def map_to(self, kind: Any, function: Any, *lists: Any) -> object:
        mapped = self.mapcar(function, *lists)
        if kind is NIL:
            return NIL
        return coerce(mapped, kind)

    def apply(self, function: Any, *args: Any) -> object:
        return self.of(function)(*args[:-1], *elements(args[-1]))

    def funcall(self, function: Any, *args: Any) -> object:
        return self.of(function)(*args)

    def reduce(self, function: Any, items: Any, *rest: Any) -> object:
        given = keywords_of(rest)
        options = options_of(rest, "KEY", "START", "END", "FROM-END", "INITIAL-VALUE")
        chosen = self.of(function)
        part = window(items, options)
        values = part.values[part.start : part.end]
        if "KEY" in options:
            key = self.of(options["KEY"])
            values = [key(value) for value in values]
        if part.backwards:
            values, forward = values[::-1], chosen
            chosen = lambda a, b: forward(b, a)  # noqa: E731
        if "INITIAL-VALUE" in given:
            return reduce(chosen, values, given["INITIAL-VALUE"])
        return reduce(chosen, values) if values else chosen()

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
    names = [name for name in vars(_Sequences) if not name.startswith("_") and name not in ("of", "map_to")]
    table: dict[str, Function] = {name.upper().replace("_", "-"): getattr(library, name) for name in names}
    return table | {
        "MAP": library.map_to, "STABLE-SORT": library.sort,
    }  # fmt: skip
