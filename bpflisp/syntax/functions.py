"""The library of Common Lisp functions that macros use, as Python callables. Truth is anything but nil."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cmp_to_key, reduce
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bpflisp.syntax.forms import NIL, Character, Cons, Symbol, T, cells, elements, fail, intern, lisp_list, text

if TYPE_CHECKING:
    from bpflisp.syntax.evaluator import Interpreter

Function = Callable[..., object]

MAX_BITS = 1 << 16
"""How many bits a number may have at compile time: more is a mistake, and would take all memory."""

MAX_ELEMENTS = 1 << 17


def truth(value: object) -> object:
    """Python's truth as Lisp's."""
    return T if value else NIL


class Table:
    """A hash table; keys compare by `equal`."""

    def __init__(self) -> None:
        self._items: dict[object, tuple[object, object]] = {}

    def get(self, key: object, default: object = NIL) -> object:
        """The value of a key, or the default."""
        return self._items.get(_hashable(key), (key, default))[1]

    def has(self, key: object) -> bool:
        """Whether the key is there."""
        return _hashable(key) in self._items

    def set(self, key: object, value: object) -> None:
        """Give a key its value."""
        self._items[_hashable(key)] = (key, value)

    def remove(self, key: object) -> bool:
        """Take a key out; whether it was there."""
        return self._items.pop(_hashable(key), None) is not None

    def keys(self) -> list[object]:
        """The keys, in the order in which they came."""
        return [key for key, _ in self._items.values()]

    def values(self) -> list[object]:
        """The values, in the order of the keys."""
        return [value for _, value in self._items.values()]

    def clear(self) -> None:
        """Forget all keys."""
        self._items.clear()

    def __len__(self) -> int:
        return len(self._items)


def _hashable(key: object) -> object:
    if isinstance(key, Cons):
        return ("cons", tuple(_hashable(cell.car) for cell in cells(key)))
    if isinstance(key, list):
        return ("vector", tuple(_hashable(item) for item in key))
    return (type(key), key)


# Equality


def eql(a: object, b: object) -> bool:
    """The same object, or the same number or character."""
    if isinstance(a, int | float | Fraction) and isinstance(b, int | float | Fraction):
        return type(a) is type(b) and a == b
    return a is b or (isinstance(a, Character) and a == b)


def equal(a: object, b: object) -> bool:
    """The same structure."""
    while isinstance(a, Cons) and isinstance(b, Cons):
        if not equal(a.car, b.car):
            return False
        a, b = a.cdr, b.cdr
    return eql(a, b) or (isinstance(a, str) and isinstance(b, str) and a == b)


# Sequences


def sequence(value: Any) -> list[Any]:
    """The elements of a list, a vector or a string."""
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        return [Character(char) for char in value]
    return elements(value)


def like(model: Any, items: Iterable[Any]) -> Any:
    """A sequence of the kind of `model`."""
    if isinstance(model, list):
        return list(items)
    if isinstance(model, str):
        return "".join(item.char for item in items)
    return lisp_list(items)


def _string(value: Any) -> str:
    if isinstance(value, Symbol):
        return value.name.removeprefix(":")
    if isinstance(value, Character):
        return value.char
    if not isinstance(value, str):
        raise TypeError(f"{text(value)} is no string")
    return value


def _options(args: tuple[Any, ...]) -> dict[str, Any]:
    """The keyword arguments at the end of a call."""
    if len(args) % 2:
        raise TypeError("keyword arguments come in pairs")
    return {key.name[1:]: value for key, value in zip(args[::2], args[1::2], strict=True)}


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
        options = _options(rest)
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
        holds = self._predicate(test, _options(rest))
        return like(items, [item for item in sequence(items) if not holds(item)])

    def remove_if_not(self, test: Any, items: Any, *rest: Any) -> object:
        holds = self._predicate(test, _options(rest))
        return like(items, [item for item in sequence(items) if holds(item)])

    def remove(self, item: Any, items: Any, *rest: Any) -> object:
        same = self._tester(_options(rest))
        return like(items, [other for other in sequence(items) if not same(item, other)])

    def substitute(self, new: Any, old: Any, items: Any, *rest: Any) -> object:
        same = self._tester(_options(rest))
        return like(items, [new if same(old, other) else other for other in sequence(items)])

    def remove_duplicates(self, items: Any, *rest: Any) -> object:
        same = self._tester(_options(rest))
        kept: list[Any] = []
        for item in reversed(sequence(items)):
            if not any(same(item, other) for other in kept):
                kept.append(item)
        return like(items, kept[::-1])

    def find(self, item: Any, items: Any, *rest: Any) -> object:
        same = self._tester(_options(rest))
        return next((other for other in sequence(items) if same(item, other)), NIL)

    def find_if(self, test: Any, items: Any, *rest: Any) -> object:
        holds = self._predicate(test, _options(rest))
        return next((item for item in sequence(items) if holds(item)), NIL)

    def position(self, item: Any, items: Any, *rest: Any) -> object:
        same = self._tester(_options(rest))
        return next((at for at, other in enumerate(sequence(items)) if same(item, other)), NIL)

    def position_if(self, test: Any, items: Any, *rest: Any) -> object:
        holds = self._predicate(test, _options(rest))
        return next((at for at, item in enumerate(sequence(items)) if holds(item)), NIL)

    def count(self, item: Any, items: Any, *rest: Any) -> object:
        same = self._tester(_options(rest))
        return sum(same(item, other) for other in sequence(items))

    def count_if(self, test: Any, items: Any, *rest: Any) -> object:
        holds = self._predicate(test, _options(rest))
        return sum(holds(item) for item in sequence(items))

    def member(self, item: Any, items: Any, *rest: Any) -> object:
        same = self._tester(_options(rest))
        return next((cell for cell in cells(items) if same(item, cell.car)), NIL)

    def assoc(self, item: Any, items: Any, *rest: Any) -> object:
        same = self._tester(_options(rest))
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
        options = _options(rest)
        before = self.of(test)
        key: Callable[[Any], Any] = _same
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


def _same(item: Any) -> Any:
    return item


def append(*lists: Any) -> object:
    """One list of the elements of all; the last is shared."""
    if not lists:
        return NIL
    items: list[Any] = []
    for each in lists[:-1]:
        items += elements(each)
    return lisp_list(items, lists[-1])


def coerce(value: Any, kind: Any) -> object:
    """A sequence as another kind of sequence."""
    name = kind.name if isinstance(kind, Symbol) else kind.car.name
    if name == "LIST":
        return lisp_list(sequence(value))
    if name in ("VECTOR", "SIMPLE-VECTOR", "ARRAY"):
        return list(sequence(value))
    if name in ("STRING", "SIMPLE-STRING"):
        return value if isinstance(value, str) else "".join(item.char for item in sequence(value))
    return value


# Numbers


def _number(value: Any) -> Any:
    if isinstance(value, int | float | Fraction) and not isinstance(value, bool):
        return value
    raise TypeError(f"`{text(value)}` is no number")


def _integer(value: Any) -> int:
    if isinstance(value, int):
        return value
    raise TypeError(f"`{text(value)}` is no whole number")


def _plain(value: Any) -> Any:
    """A fraction that is whole, as an integer; a number with too many bits is refused."""
    if isinstance(value, Fraction) and value.denominator == 1:
        return value.numerator
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise fail("too-big", f"a number of more than {MAX_BITS} bits")
    return value


def _add(*numbers: Any) -> Any:
    return _plain(sum(map(_number, numbers)))


def _multiply(*numbers: Any) -> Any:
    return reduce(lambda a, b: _plain(a * _number(b)), numbers, 1)


def _subtract(head: Any, *rest: Any) -> Any:
    return _plain(_number(head) - sum(map(_number, rest)) if rest else -_number(head))


def _divide(head: Any, *rest: Any) -> Any:
    total = _number(head)
    for number in rest or (total,):
        if not rest:
            total = 1
        exact = isinstance(total, int | Fraction) and isinstance(number, int | Fraction)
        total = Fraction(total) / Fraction(number) if exact else total / number
    return _plain(total)


def _chain(compare: Callable[[Any, Any], bool]) -> Function:
    def chained(*numbers: Any) -> object:
        values = [_number(number) for number in numbers]
        return truth(all(compare(a, b) for a, b in pairwise(values)))

    return chained


def _different(*numbers: Any) -> object:
    values = [_number(number) for number in numbers]
    return truth(len(set(values)) == len(values))


def _shift(number: Any, count: Any) -> Any:
    if count > 0 and number and _integer(number).bit_length() + count > MAX_BITS:
        raise fail("too-big", f"a number of more than {MAX_BITS} bits")
    return number << count if count >= 0 else number >> -count


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and abs(base) > 1 and abs(exponent) * base.bit_length() > MAX_BITS:
        raise fail("too-big", f"a number of more than {MAX_BITS} bits")
    if isinstance(base, int) and isinstance(exponent, int) and exponent < 0:
        return _plain(Fraction(base) ** exponent)
    return _plain(base**exponent)


def _division(rounding: str) -> Function:
    def divide(dividend: Any, divisor: Any = 1) -> object:
        from bpflisp.syntax.evaluator import Values

        exact = Fraction(dividend) / Fraction(divisor)
        match rounding:
            case "floor":
                quotient = exact.numerator // exact.denominator
            case "ceiling":
                quotient = -(-exact.numerator // exact.denominator)
            case "truncate":
                quotient = int(exact)
            case _:
                quotient = round(exact)
        return Values((quotient, _plain(dividend - quotient * divisor)))

    return divide


def _remainder(dividend: Any, divisor: Any) -> Any:
    return dividend - divisor * int(Fraction(dividend) / Fraction(divisor))


def _parse_integer(value: Any, *rest: Any) -> object:
    options = _options(rest)
    if options.get("JUNK-ALLOWED", NIL) is not NIL:
        try:
            return int(value, options.get("RADIX", 10))
        except ValueError:
            return NIL
    return int(value, options.get("RADIX", 10))


_NUMBERS: dict[str, Function] = {
    "+": _add, "*": _multiply, "-": _subtract, "/": _divide,
    "=": _chain(operator.eq), "<": _chain(operator.lt), ">": _chain(operator.gt), "<=": _chain(operator.le),
    ">=": _chain(operator.ge), "/=": _different,
    "1+": lambda n: _number(n) + 1, "1-": lambda n: _number(n) - 1,
    "MOD": lambda a, b: _number(a) % _number(b), "REM": _remainder, "ABS": lambda n: abs(_number(n)),
    "MIN": lambda *ns: min(map(_number, ns)), "MAX": lambda *ns: max(map(_number, ns)),
    "FLOOR": _division("floor"), "CEILING": _division("ceiling"), "TRUNCATE": _division("truncate"),
    "ROUND": _division("round"), "EXPT": _power, "ASH": _shift, "<<": _shift,
    ">>": lambda n, count: _shift(n, -count),
    "LOGAND": lambda *ns: reduce(operator.and_, map(_integer, ns), -1),
    "LOGIOR": lambda *ns: reduce(operator.or_, map(_integer, ns), 0),
    "LOGXOR": lambda *ns: reduce(operator.xor, map(_integer, ns), 0),
    "LOGNOT": lambda n: ~_integer(n),
    "LOGTEST": lambda a, b: truth(a & b), "LOGBITP": lambda bit, n: truth(n >> bit & 1),
    "LOGCOUNT": lambda n: (n if n >= 0 else ~n).bit_count(),
    "INTEGER-LENGTH": lambda n: (n if n >= 0 else ~n).bit_length(),
    "ISQRT": lambda n: math.isqrt(n), "GCD": lambda *ns: math.gcd(*ns),
    "LCM": lambda *ns: math.lcm(*ns), "SIGNUM": lambda n: (n > 0) - (n < 0),
    "ZEROP": lambda n: truth(_number(n) == 0), "PLUSP": lambda n: truth(_number(n) > 0),
    "MINUSP": lambda n: truth(_number(n) < 0), "EVENP": lambda n: truth(_integer(n) % 2 == 0),
    "ODDP": lambda n: truth(_integer(n) % 2), "PARSE-INTEGER": _parse_integer,
    "NUMERATOR": lambda n: Fraction(n).numerator, "DENOMINATOR": lambda n: Fraction(n).denominator,
}  # fmt: skip
_NUMBERS["BIT-AND"], _NUMBERS["BIT-OR"], _NUMBERS["BIT-XOR"] = (_NUMBERS[n] for n in ("LOGAND", "LOGIOR", "LOGXOR"))


# Lists


def car(value: Any) -> Any:
    """The first element; nil of nil."""
    if value is NIL:
        return NIL
    if not isinstance(value, Cons):
        raise TypeError(f"`{text(value)}` is no list")
    return value.car


def cdr(value: Any) -> Any:
    """All but the first element; nil of nil."""
    if value is NIL:
        return NIL
    if not isinstance(value, Cons):
        raise TypeError(f"`{text(value)}` is no list")
    return value.cdr


def _path(steps: str) -> Function:
    def follow(value: Any) -> Any:
        for step in reversed(steps):
            value = car(value) if step == "A" else cdr(value)
        return value

    return follow


def nthcdr(count: int, items: Any) -> Any:
    """The list without its first elements."""
    for _ in range(min(count, MAX_ELEMENTS)):
        items = cdr(items)
    return items


def _last(items: Any, count: int = 1) -> Any:
    found = list(cells(items))
    return found[-count] if len(found) >= count > 0 else items


def _subseq(items: Any, start: int, end: Any = NIL) -> Any:
    stop = None if end is NIL else end
    values = sequence(items)
    if not 0 <= start <= len(values) or (stop is not None and not start <= stop <= len(values)):
        raise ValueError(f"the sequence has {len(values)} elements")
    return items[start:stop] if isinstance(items, str) else like(items, values[start:stop])


def _elt(items: Any, index: int) -> Any:
    values = sequence(items)
    if not 0 <= index < len(values):
        raise LookupError(f"the sequence has {len(values)} elements")
    return values[index]


def _length(items: Any) -> int:
    return len(items) if isinstance(items, str | list | Table) else len(elements(items))


def _make_list(count: int, *rest: Any) -> object:
    _bounded(count)
    return lisp_list([_options(rest).get("INITIAL-ELEMENT", NIL)] * count)


def _make_array(count: Any, *rest: Any) -> object:
    options = _options(rest)
    size = elements(count)[0] if isinstance(count, Cons) else count
    _bounded(size)  # type: ignore[arg-type]
    if "INITIAL-CONTENTS" in options:
        return list(sequence(options["INITIAL-CONTENTS"]))
    return [options.get("INITIAL-ELEMENT", 0)] * size  # type: ignore[operator]


def _bounded(count: int) -> None:
    if count > MAX_ELEMENTS:
        raise fail("too-big", f"more than {MAX_ELEMENTS} elements")


def _getf(plist: Any, key: Any, default: Any = NIL) -> Any:
    items = elements(plist)
    return next((value for name, value in zip(items[::2], items[1::2], strict=False) if name is key), default)


def _list_star(*items: Any) -> object:
    return lisp_list(items[:-1], items[-1])


def _copy_tree(value: Any) -> Any:
    return Cons(_copy_tree(value.car), _copy_tree(value.cdr)) if isinstance(value, Cons) else value


def _concatenate(kind: Any, *parts: Any) -> object:
    _bounded(sum(_length(part) for part in parts))
    if all(isinstance(part, str) for part in parts) and isinstance(kind, Symbol) and kind.name == "STRING":
        return "".join(parts)
    return coerce(lisp_list(item for part in parts for item in sequence(part)), kind)


def _union(a: Any, b: Any, *_: Any) -> object:
    items = elements(a)
    return lisp_list(items + [item for item in elements(b) if not any(equal(item, other) for other in items)])


def _intersection(a: Any, b: Any, *_: Any) -> object:
    others = elements(b)
    return lisp_list(item for item in elements(a) if any(equal(item, other) for other in others))


def _set_difference(a: Any, b: Any, *_: Any) -> object:
    others = elements(b)
    return lisp_list(item for item in elements(a) if not any(equal(item, other) for other in others))


_LISTS: dict[str, Function] = {
    "CONS": Cons, "LIST": lambda *items: lisp_list(items), "LIST*": _list_star, "APPEND": append, "NCONC": append,
    **{name: _path(name[1:-1]) for name in (
        "CAR", "CDR", "CAAR", "CADR", "CDAR", "CDDR", "CADDR", "CDDDR", "CADDDR", "CAADR", "CDADR", "CADAR", "CDDAR",
    )},
    "FIRST": car, "REST": cdr, "SECOND": _path("AD"), "THIRD": _path("ADD"), "FOURTH": _path("ADDD"),
    "FIFTH": _path("ADDDD"), "NTH": lambda n, items: car(nthcdr(n, items)), "NTHCDR": nthcdr,
    "LAST": _last, "BUTLAST": lambda items, n=1: lisp_list(elements(items)[: -n or None]),
    "REVERSE": lambda items: items[::-1] if isinstance(items, str) else like(items, sequence(items)[::-1]),
    "NREVERSE": lambda items: items[::-1] if isinstance(items, str) else like(items, sequence(items)[::-1]),
    "LENGTH": _length, "LIST-LENGTH": _length, "SUBSEQ": _subseq, "ELT": _elt, "AREF": _elt, "SVREF": _elt,
    "CHAR": _elt, "MAKE-LIST": _make_list, "MAKE-ARRAY": _make_array, "VECTOR": lambda *items: list(items),
    "GETF": _getf, "COPY-LIST": lambda items: lisp_list(elements(items)), "COPY-TREE": _copy_tree,
    "COPY-SEQ": lambda items: items if isinstance(items, str) else like(items, sequence(items)),
    "CONCATENATE": _concatenate, "COERCE": coerce, "UNION": _union, "INTERSECTION": _intersection,
    "SET-DIFFERENCE": _set_difference, "ACONS": lambda k, v, items: Cons(Cons(k, v), items),
    "PAIRLIS": lambda ks, vs: lisp_list(Cons(k, v) for k, v in zip(elements(ks), elements(vs), strict=True)),
}  # fmt: skip


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
    return lambda a, b, *_: truth(compare(_string(a), _string(b)))


def _search(part: Any, whole: Any, *_: Any) -> object:
    found = _string(whole).find(_string(part))
    return NIL if found < 0 else found


def _trim(bag: Any, value: Any) -> object:
    chars = bag if isinstance(bag, str) else "".join(item.char for item in sequence(bag))
    return _string(value).strip(chars)


def _make_symbol(name: Any) -> object:
    return Symbol(_string(name))


def _digit_char(char: Any, radix: int = 10) -> object:
    try:
        return int(char.char, radix)
    except ValueError:
        return NIL


_TEXT: dict[str, Function] = {
    "STRING": _string, "SYMBOL-NAME": _string, "INTERN": lambda name, *_: intern(_string(name)),
    "MAKE-SYMBOL": _make_symbol, "MAKE-KEYWORD": lambda name: intern(":" + _string(name)),
    "STRING=": _strings(operator.eq), "STRING/=": _strings(operator.ne), "STRING<": _strings(operator.lt),
    "STRING>": _strings(operator.gt), "STRING-EQUAL": _strings(lambda a, b: a.lower() == b.lower()),
    "STRING-UPCASE": lambda s: _string(s).upper(), "STRING-DOWNCASE": lambda s: _string(s).lower(),
    "STRING-CAPITALIZE": lambda s: _string(s).title(), "STRING-TRIM": _trim, "SEARCH": _search,
    "CHAR-CODE": lambda c: ord(c.char), "CODE-CHAR": lambda n: Character(chr(n)),
    "CHAR-UPCASE": lambda c: Character(c.char.upper()), "CHAR-DOWNCASE": lambda c: Character(c.char.lower()),
    "CHAR=": lambda a, b: truth(a == b), "ALPHA-CHAR-P": lambda c: truth(c.char.isalpha()),
    "DIGIT-CHAR-P": _digit_char, "UPPER-CASE-P": lambda c: truth(c.char.isupper()),
    "PRIN1-TO-STRING": lambda v: text(v, 10_000), "WRITE-TO-STRING": lambda v, *_: text(v, 10_000),
    "PRINC-TO-STRING": lambda v: text(v, 10_000, readable=False),
    "MAKE-HASH-TABLE": lambda *_: Table(), "HASH-TABLE-COUNT": len, "CLRHASH": lambda t: (t.clear(), t)[1],
    "REMHASH": lambda key, table: truth(table.remove(key)),
    "PRINT": lambda v, *_: v, "PRINC": lambda v, *_: v, "PRIN1": lambda v, *_: v, "TERPRI": lambda *_: NIL,
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
    """To a string; what goes to a stream is not written: compiling has no output but the object."""
    from bpflisp.syntax.format import format_text

    written = format_text(control, list(args))
    return written if destination is NIL else NIL


def library(interpreter: Interpreter) -> dict[Symbol, Callable[..., object]]:
    """All functions, by name."""
    sequences = _Sequences(interpreter)
    methods = {
        name.upper().replace("_", "-"): getattr(sequences, name)
        for name in vars(_Sequences)
        if not name.startswith("_") and name not in ("of", "map_into")
    }
    aliases: dict[str, Function] = {
        "MAP": sequences.map_into, "DELETE-IF": sequences.remove_if, "DELETE": sequences.remove,
        "STABLE-SORT": sequences.sort, "MAPL": sequences.mapc, "GETHASH": _gethash, "VALUES": _values,
        "ERROR": _error, "WARN": lambda *_: NIL, "FORMAT": _format, "DELETE-DUPLICATES": sequences.remove_duplicates,
        "VALUES-LIST": lambda items: _values(*elements(items)),
    }  # fmt: skip
    every = {**_NUMBERS, **_LISTS, **_PREDICATES, **_TEXT, **methods, **aliases}
    return {intern(name): function for name, function in every.items()}
