"""Further functions of Common Lisp at compile time: trees, bytes of numbers, and what is searched for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bpflisp.syntax.data import (
    MAX_BITS,
    Function,
    Table,
    bounded,
    eql,
    equal,
    itself,
    keywords_of,
    like,
    sequence,
    string_of,
    truth,
)
from bpflisp.syntax.forms import NIL, Character, Cons, FormError, Symbol, cells, elements, fail, intern, lisp_list, text

if TYPE_CHECKING:
    from bpflisp.syntax.evaluator import Interpreter


def _sublis(pairs: Any, tree: Any, *_: Any) -> Any:
    for pair in elements(pairs):
        if isinstance(pair, Cons) and eql(pair.car, tree):
            return pair.cdr
    return Cons(_sublis(pairs, tree.car), _sublis(pairs, tree.cdr)) if isinstance(tree, Cons) else tree


def _fill(items: Any, value: Any, *rest: Any) -> Any:
    options = keywords_of(rest)
    start, end = options.get("START", 0), options.get("END", NIL)
    window = slice(start, None if end is NIL else end)
    if isinstance(items, list):
        items[window] = [value] * len(items[window])
    else:
        for cell in list(cells(items))[window]:
            cell.car = value
    return items


def _replaced(part: str) -> Function:
    """`rplaca`, `rplacd`: the cell itself, changed."""

    def run(cell: Any, new: Any) -> object:
        if not isinstance(cell, Cons):
            raise fail("not-a-list", f"`{text(cell)}` has no part to assign to")
        setattr(cell, part, new)
        return cell

    return run


def _type_of(value: Any) -> object:
    """The most specific name of a type that a macro asks for."""
    names = {int: "INTEGER", str: "STRING", float: "FLOAT", list: "VECTOR", Cons: "CONS", Character: "CHARACTER"}
    if value is NIL:
        return intern("NULL")
    if isinstance(value, Symbol):
        return intern("KEYWORD" if value.is_keyword else "SYMBOL")
    return intern(names.get(type(value), "FUNCTION" if callable(value) else "T"))


# Bytes of numbers: (byte size position)


def _byte(size: int, position: int) -> object:
    if size < 0 or position < 0 or size + position > MAX_BITS:
        raise fail("bad-argument", f"there is no byte of {size} bits at {position}")
    return Cons(size, position)


def _mask(byte: Any) -> int:
    _byte(byte.car, byte.cdr)
    return int(((1 << byte.car) - 1) << byte.cdr)


def _ldb(byte: Any, number: int) -> object:
    return (number & _mask(byte)) >> byte.cdr


def _dpb(new: int, byte: Any, number: int) -> object:
    mask = _mask(byte)
    return (number & ~mask) | ((new << byte.cdr) & mask)


def _deposit_field(new: int, byte: Any, number: int) -> object:
    mask = _mask(byte)
    return (number & ~mask) | (new & mask)


def _log(number: Any, base: Any = math.e) -> object:
    return math.log(number, base)


class _Further:
    """Functions that take functions, or read text: they need the interpreter."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter

    def _holds(self, test: Any, rest: tuple[Any, ...]) -> Function:
        options = keywords_of(rest)
        chosen = self.interpreter.function(test)
        key = self.interpreter.function(options["KEY"]) if options.get("KEY", NIL) is not NIL else itself
        return lambda item: chosen(key(item)) is not NIL

    def make_hash_table(self, *rest: Any) -> object:
        """A table; of the tests, `equalp` alone makes a difference."""
        test = keywords_of(rest).get("TEST", NIL)
        equalp = intern("EQUALP")
        return Table(equalp=test is equalp or test is self.interpreter.functions[equalp])

    def merge(self, kind: Any, a: Any, b: Any, test: Any, *rest: Any) -> object:
        """Both sequences in order, sorted as `stable-sort` does."""
        items = [*sequence(a), *sequence(b)]
        bounded(len(items))
        sort: Function = self.interpreter.functions[intern("STABLE-SORT")]
        merged = sort(lisp_list(items), test, *rest)
        return like([] if isinstance(kind, Symbol) and kind.name == "VECTOR" else NIL, elements(merged))

    def notevery(self, test: Any, *lists: Any) -> object:
        """Whether one does not pass."""
        every: Function = self.interpreter.functions[intern("EVERY")]
        return truth(every(test, *lists) is NIL)

    def read_from_string(self, source: Any, *_: Any) -> object:
        """The first form of a text; `#.` in it is not evaluated."""
        from bpflisp.diagnostics import Source
        from bpflisp.syntax.reader import END, Reader

        try:
            form = Reader(Source("string", string_of(source))).read()
        except FormError as problem:
            raise fail("bad-argument", problem.diagnostic.problem) from None
        return NIL if form is END else form

    def symbol_function(self, name: Any) -> object:
        """The function of that name."""
        return self.interpreter.function(name)

    def fdefinition(self, name: Any) -> object:
        """The same."""
        return self.interpreter.function(name)

    def macro_function(self, name: Any, *_: Any) -> object:
        """The macro of that name, or nil."""
        return self.interpreter.macro_of(name) or NIL

    def get(self, name: Any, key: Any, default: Any = NIL) -> object:
        """A symbol's property."""
        getf: Function = self.interpreter.functions[intern("GETF")]
        return getf(self.symbol_plist(name), key, default)

    def symbol_plist(self, name: Any) -> object:
        """All properties of a symbol."""
        if not isinstance(name, Symbol):
            raise fail("bad-argument", f"`{text(name)}` is no symbol, and has no properties")
        return self.interpreter.plists.get(name, NIL)

    def gentemp(self, prefix: Any = "T", *_: Any) -> object:
        """A symbol that was not there."""
        return self.interpreter.gensym(string_of(prefix))

    def find_symbol(self, name: Any, *_: Any) -> object:
        """The symbol of that name, if something is defined by it."""
        symbol = intern(string_of(name))
        interpreter = self.interpreter
        known = symbol in interpreter.functions or symbol in interpreter.macros or symbol in interpreter.variables
        return symbol if known or symbol in interpreter.special else NIL


MORE: dict[str, Function] = {
    "SUBLIS": _sublis, "FILL": _fill,
    "TREE-EQUAL": lambda a, b, *_: truth(equal(a, b)), "CONSTANTLY": lambda value: lambda *_: value,
    "BYTE": _byte, "LDB": _ldb, "DPB": _dpb, "DEPOSIT-FIELD": _deposit_field, "LOG": _log,
    "LDB-TEST": lambda byte, number: truth(_ldb(byte, number)), "BYTE-SIZE": lambda byte: byte.car,
    "BYTE-POSITION": lambda byte: byte.cdr, "SQRT": math.sqrt,
    "MASK-FIELD": lambda byte, number: number & _mask(byte),
    "RPLACA": _replaced("car"), "RPLACD": _replaced("cdr"), "TYPE-OF": _type_of,
    "ARRAYP": lambda value: truth(isinstance(value, list | str)), "ARRAY-RANK": lambda _: 1,
    "COPY-ALIST": lambda pairs: lisp_list(
        Cons(each.car, each.cdr) if isinstance(each, Cons) else each for each in elements(pairs)
    ),
}  # fmt: skip


def further(interpreter: Interpreter) -> dict[str, Function]:
    """All of them, by upper-case name."""
    library = _Further(interpreter)
    names = [name for name in vars(_Further) if not name.startswith("_")]
    return MORE | {name.upper().replace("_", "-"): getattr(library, name) for name in names}
