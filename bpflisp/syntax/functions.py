"""The library of Common Lisp functions that macros use, as Python callables. Truth is anything but nil."""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from bpflisp.syntax import sequences
from bpflisp.syntax.arithmetic import NUMBERS
from bpflisp.syntax.costs import charged
from bpflisp.syntax.data import (
    Function,
    Output,
    Table,
    eql,
    equal,
    sequence,
    string_of,
    truth,
)
from bpflisp.syntax.forms import NIL, Character, Cons, Symbol, elements, fail, intern, lisp_list, text
from bpflisp.syntax.lists import LISTS
from bpflisp.syntax.more import further

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


def is_of_type(value: object, kind: object) -> bool:
    """Whether a value is of the type that a specifier names."""
    if isinstance(kind, Symbol) and kind.name in _TYPES:
        return _TYPES[kind.name](value)
    if isinstance(kind, Cons) and isinstance(kind.car, Symbol):
        rest = elements(kind.cdr)
        match kind.car.name:
            case "OR":
                return any(is_of_type(value, each) for each in rest)
            case "AND":
                return all(is_of_type(value, each) for each in rest)
            case "NOT":
                return not is_of_type(value, rest[0])
            case "MEMBER" | "EQL":
                return any(eql(value, each) for each in rest)
            case "UNSIGNED-BYTE":
                return isinstance(value, int) and 0 <= value < 1 << rest[0]  # type: ignore[operator]
            case name if name in _TYPES:
                return _TYPES[name](value)
    raise fail("unknown-type", f"`{text(kind)}` is no type that is known at compile time")


_PREDICATES: dict[str, Function] = {
    "EQ": lambda a, b: truth(eql(a, b)), "EQL": lambda a, b: truth(eql(a, b)),
    "EQUAL": lambda a, b: truth(equal(a, b)),
    "EQUALP": lambda a, b: truth(equal(a, b) or (isinstance(a, str) and isinstance(b, str) and a.lower() == b.lower())),
    "NOT": lambda v: truth(v is NIL), "NULL": lambda v: truth(v is NIL), "ENDP": lambda v: truth(v is NIL),
    "CONSTANTP": lambda v, *_: truth(isinstance(v, int | str) or (isinstance(v, Symbol) and v.is_keyword)),
    "TYPEP": lambda v, kind: truth(is_of_type(v, kind)), "IDENTITY": lambda v: v,
    **{name + ("P" if name not in ("ATOM", "NULL") and "-" not in name else "-P" if "-" in name else ""):
       (lambda v, name=name: truth(_TYPES[name](v))) for name in _TYPES if name not in ("T", "NULL")},
}  # fmt: skip


def _strings(compare: Callable[[str, str], bool]) -> Function:
    return lambda a, b, *_: truth(compare(string_of(a), string_of(b)))


def _search(part: Any, whole: Any, *_: Any) -> object:
    found = string_of(whole).find(string_of(part))
    return NIL if found < 0 else found


def _trim(bag: Any, value: Any) -> object:
    chars = bag if isinstance(bag, str) else "".join(item.char for item in sequence(bag))
    return string_of(value).strip(chars)


def _make_symbol(name: Any) -> object:
    return Symbol(string_of(name))


def _digit_char(char: Any, radix: int = 10) -> object:
    try:
        return int(char.char, radix)
    except ValueError:
        return NIL


_TEXT: dict[str, Function] = {
    "STRING": string_of, "SYMBOL-NAME": string_of, "INTERN": lambda name, *_: intern(string_of(name)),
    "MAKE-SYMBOL": _make_symbol, "MAKE-KEYWORD": lambda name: intern(":" + string_of(name)),
    "STRING=": _strings(operator.eq), "STRING/=": _strings(operator.ne), "STRING<": _strings(operator.lt),
    "STRING>": _strings(operator.gt), "STRING-EQUAL": _strings(lambda a, b: a.lower() == b.lower()),
    "STRING-UPCASE": lambda s: string_of(s).upper(), "STRING-DOWNCASE": lambda s: string_of(s).lower(),
    "STRING-CAPITALIZE": lambda s: string_of(s).title(), "STRING-TRIM": _trim, "SEARCH": _search,
    "CHAR-CODE": lambda c: ord(c.char), "CODE-CHAR": lambda n: Character(chr(n)),
    "CHAR-UPCASE": lambda c: Character(c.char.upper()), "CHAR-DOWNCASE": lambda c: Character(c.char.lower()),
    "CHAR=": lambda a, b: truth(a == b), "ALPHA-CHAR-P": lambda c: truth(c.char.isalpha()),
    "DIGIT-CHAR-P": _digit_char, "UPPER-CASE-P": lambda c: truth(c.char.isupper()),
    "PRIN1-TO-STRING": lambda v: text(v, 10_000), "WRITE-TO-STRING": lambda v, *_: text(v, 10_000),
    "PRINC-TO-STRING": lambda v: text(v, 10_000, readable=False),
    "MAKE-HASH-TABLE": lambda *_: Table(), "HASH-TABLE-COUNT": len, "CLRHASH": lambda t: (t.clear(), t)[1],
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
    raise fail("user-error", message)


def _format(destination: Any, control: Any, *args: Any) -> object:
    """To a string, or into one that `with-output-to-string` makes; what goes to another stream is not written:
    compiling has no output but the object."""
    from bpflisp.syntax.format import format_text

    written = format_text(control, list(args))
    if isinstance(destination, Output):
        destination.write(written)
    return written if destination is NIL else NIL


def _written(readable: bool) -> Function:
    """`princ`, `prin1`, `write-string`: into an output where one is given."""

    from bpflisp.syntax.format import format_text

    def write(value: Any, stream: Any = NIL, *_: Any) -> object:
        if isinstance(stream, Output):
            stream.write(value if isinstance(value, str) and not readable else format_text("~s", [value]))
        return value

    return write


def library(interpreter: Interpreter) -> dict[Symbol, Callable[..., object]]:
    """All functions, by name."""
    others: dict[str, Function] = {
        "GETHASH": _gethash, "VALUES": _values, "ERROR": _error, "WARN": lambda *_: NIL, "FORMAT": _format,
        "PRINT": _written(True), "PRIN1": _written(True), "PRINC": _written(False), "WRITE-STRING": _written(False),
        "WRITE-LINE": _written(False), "WRITE-CHAR": _written(False), "TERPRI": lambda *_: NIL,
        "VALUES-LIST": lambda items: _values(*elements(items)),
    }  # fmt: skip
    every = {**NUMBERS, **LISTS, **_PREDICATES, **_TEXT, **sequences.functions(interpreter), **others}
    every |= further(interpreter)
    return {intern(name): charged(name, function, interpreter.spend) for name, function in every.items()}
