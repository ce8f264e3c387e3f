"""The library of Common Lisp functions that macros use, as Python callables. Truth is anything but nil."""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from bpflisp.syntax import searching, sequences
from bpflisp.syntax.arithmetic import NUMBERS
from bpflisp.syntax.costs import charged
from bpflisp.syntax.data import (
    Function,
    Table,
    eql,
    equal,
    equalp,
    truth,
)
from bpflisp.syntax.forms import NIL, Character, Cons, Symbol, T, elements, fail, intern, lisp_list, text
from bpflisp.syntax.lists import LISTS
from bpflisp.syntax.more import further
from bpflisp.syntax.printing import printing
from bpflisp.syntax.strings import STRINGS

if TYPE_CHECKING:
    from bpflisp.syntax.evaluator import Interpreter


# Predicates, symbols, strings, hash tables

_TYPES: dict[str, Callable[[object], bool]] = {
    "INTEGER": lambda v: isinstance(v, int), "FIXNUM": lambda v: isinstance(v, int) and abs(v) < 1 << 62,
    "NUMBER": lambda v: isinstance(v, int | float | Fraction), "FLOAT": lambda v: isinstance(v, float),
    "RATIO": lambda v: isinstance(v, Fraction), "SYMBOL": lambda v: isinstance(v, Symbol),
    "KEYWORD": lambda v: isinstance(v, Symbol) and v.is_keyword, "STRING": lambda v: isinstance(v, str),
    "CHARACTER": lambda v: isinstance(v, Character), "CONS": lambda v: isinstance(v, Cons),
    "LIST": lambda v: isinstance(v, Cons) or v is NIL, "NULL": lambda v: v is NIL,
    "ATOM": lambda v: not isinstance(v, Cons), "VECTOR": lambda v: isinstance(v, list | str),
    "FUNCTION": lambda v: callable(v), "HASH-TABLE": lambda v: isinstance(v, Table), "T": lambda v: True,
    "UNSIGNED-BYTE": lambda v: isinstance(v, int) and v >= 0,
}  # fmt: skip


_MORE_TYPES: dict[str, Callable[[object], bool]] = {
    "REAL": _TYPES["NUMBER"], "RATIONAL": lambda v: isinstance(v, int | Fraction), "BIT": lambda v: v in (0, 1),
    "BOOLEAN": lambda v: v is NIL or v is T, "SIMPLE-STRING": _TYPES["STRING"], "SIMPLE-VECTOR": _TYPES["VECTOR"],
    "SEQUENCE": lambda v: isinstance(v, list | str | Cons) or v is NIL, "ARRAY": _TYPES["VECTOR"],
    "STANDARD-CHAR": _TYPES["CHARACTER"], "BIGNUM": lambda v: isinstance(v, int) and abs(v) >= 1 << 62,
}  # fmt: skip
"""Types without a predicate of their name."""


def is_of_type(value: object, kind: object, interpreter: Interpreter | None = None) -> bool:
    """Whether a value is of the type that a specifier names."""
    if isinstance(kind, Symbol) and kind.name in _TYPES:
        return _TYPES[kind.name](value)
    if isinstance(kind, Symbol) and kind.name in _MORE_TYPES:
        return _MORE_TYPES[kind.name](value)
    if interpreter and isinstance(kind, Symbol) and kind in interpreter.types:
        return is_of_type(value, interpreter.types[kind], interpreter)
    if isinstance(kind, Cons) and isinstance(kind.car, Symbol):
        rest = elements(kind.cdr)
        match kind.car.name:
            case "OR":
                return any(is_of_type(value, each, interpreter) for each in rest)
            case "AND":
                return all(is_of_type(value, each, interpreter) for each in rest)
            case "NOT":
                return not is_of_type(value, rest[0], interpreter)
            case "MEMBER" | "EQL":
                return any(eql(value, each) for each in rest)
            case "UNSIGNED-BYTE":
                return isinstance(value, int) and 0 <= value < 1 << rest[0]  # type: ignore[operator]
            case "SIGNED-BYTE":
                return isinstance(value, int) and -(1 << rest[0] - 1) <= value < 1 << rest[0] - 1  # type: ignore[operator]
            case "SATISFIES":
                return interpreter.function(rest[0])(value) is not NIL if interpreter else False
            case "INTEGER" | "MOD" | "REAL" | "RATIONAL" | "NUMBER":
                return _in_range(value, kind.car.name, rest)
            case name if name in _TYPES:
                return _TYPES[name](value)
    raise fail("unknown-type", f"`{text(kind)}` is no type that is known at compile time")


def _in_range(value: object, name: str, limits: list[object]) -> bool:
    """`(integer low high)`, `(mod n)`: each limit is a number, `*`, or a number in parentheses, which is outside."""
    if name == "MOD":
        name, limits = "INTEGER", [0, Cons(limits[0], NIL)]
    if not _TYPES["INTEGER" if name == "INTEGER" else "NUMBER"](value):
        return False
    number: Any = value
    for limit, compare in zip(limits, (operator.ge, operator.le), strict=False):
        bound, outside = (limit.car, True) if isinstance(limit, Cons) else (limit, False)
        if isinstance(bound, int | float | Fraction) and (not compare(number, bound) or (outside and number == bound)):
            return False
    return True


_PREDICATES: dict[str, Function] = {
    "EQ": lambda a, b: truth(eql(a, b)), "EQL": lambda a, b: truth(eql(a, b)),
    "EQUAL": lambda a, b: truth(equal(a, b)),
    "EQUALP": lambda a, b: truth(equalp(a, b)),
    "NOT": lambda v: truth(v is NIL), "NULL": lambda v: truth(v is NIL), "ENDP": lambda v: truth(v is NIL),
    "CONSTANTP": lambda v, *_: truth(isinstance(v, int | str) or (isinstance(v, Symbol) and v.is_keyword)),
    "IDENTITY": lambda v: v,
    **{name + ("P" if name not in ("ATOM", "NULL") and "-" not in name else "-P" if "-" in name else ""):
       (lambda v, name=name: truth(_TYPES[name](v))) for name in _TYPES if name not in ("T", "NULL")},
}  # fmt: skip


_TABLES: dict[str, Function] = {
    "HASH-TABLE-COUNT": len, "CLRHASH": lambda t: (t.clear(), t)[1],
    "REMHASH": lambda key, table: truth(table.remove(key)),
}  # fmt: skip


def _gethash(key: Any, table: Any, default: Any = NIL) -> object:
    from bpflisp.syntax.evaluator import Values

    return Values((table.get(key, default), truth(table.has(key))))


def _values(*items: Any) -> object:
    from bpflisp.syntax.evaluator import Values

    return items[0] if len(items) == 1 else Values(items)


def _error(control: Any, *args: Any) -> object:
    from bpflisp.syntax.format import format_text

    message = format_text(control, list(args)) if isinstance(control, str) else text(lisp_list([control, *args]))
    problem = fail("user-error", message)
    if isinstance(control, Symbol):
        problem.condition = control.name
    raise problem


def library(interpreter: Interpreter) -> dict[Symbol, Callable[..., object]]:
    """All functions, by name."""
    others: dict[str, Function] = {
        "GETHASH": _gethash, "VALUES": _values, "ERROR": _error, "WARN": lambda *_: NIL,
        "TYPEP": lambda value, kind: truth(is_of_type(value, kind, interpreter)),
        "VALUES-LIST": lambda items: _values(*elements(items)),
    }  # fmt: skip
    every = {
        **NUMBERS,
        **LISTS,
        **_PREDICATES,
        **STRINGS,
        **_TABLES,
        **sequences.functions(interpreter),
        **searching.functions(interpreter),
        **others,
    }
    every |= further(interpreter) | printing(interpreter)
    return {intern(name): charged(name, function, interpreter.spend) for name, function in every.items()}
