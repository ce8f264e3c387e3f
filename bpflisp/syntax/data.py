"""What the library functions share: truth, equality, sequences, hash tables, keyword arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

from bpflisp.syntax.forms import NIL, Character, Cons, Symbol, T, cells, elements, fail, lisp_list, text

Function = Callable[..., object]

MAX_BITS = 1 << 16
"""How many bits a number may have at compile time: more is a mistake, and would take all memory."""

MAX_ELEMENTS = 1 << 17


def truth(value: object) -> object:
    """Python's truth as Lisp's."""
    return T if value else NIL


class Table:
    """A hash table; keys compare by `equal`, or by `equalp`."""

    def __init__(self, *, equalp: bool = False) -> None:
        self._items: dict[object, tuple[object, object]] = {}
        self._key = _folded if equalp else _hashable

    def get(self, key: object, default: object = NIL) -> object:
        """The value of a key, or the default."""
        return self._items.get(self._key(key), (key, default))[1]

    def has(self, key: object) -> bool:
        """Whether the key is there."""
        return self._key(key) in self._items

    def set(self, key: object, value: object) -> None:
        """Give a key its value."""
        self._items[self._key(key)] = (key, value)

    def remove(self, key: object) -> bool:
        """Take a key out; whether it was there."""
        return self._items.pop(self._key(key), None) is not None

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


class Output:
    """What `with-output-to-string` collects."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.size = 0

    def write(self, piece: str) -> None:
        """Add a piece; an error beyond a million characters."""
        self.size += len(piece)
        if self.size > 1 << 20:
            raise fail("too-big", "more than a million characters are written here")
        self.parts.append(piece)


def _hashable(key: object) -> object:
    if isinstance(key, Cons):
        return ("cons", tuple(_hashable(cell.car) for cell in cells(key)))
    if isinstance(key, list):
        return ("vector", tuple(_hashable(item) for item in key))
    return (type(key), key)


def _folded(key: object) -> object:
    """The same for `equalp`: the case of letters and the type of numbers make no difference."""
    if isinstance(key, Cons):
        return ("cons", tuple(_folded(cell.car) for cell in cells(key)))
    if isinstance(key, list | str):
        return ("vector", tuple(_folded(item) for item in sequence(key)))
    if isinstance(key, Character):
        return ("char", key.char.lower())
    return ("number", key) if isinstance(key, int | float | Fraction) else (type(key), key)


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


def equalp(a: object, b: object) -> bool:
    """The same structure, whatever the case of letters and the type of numbers; vectors by their elements."""
    while isinstance(a, Cons) and isinstance(b, Cons):
        if not equalp(a.car, b.car):
            return False
        a, b = a.cdr, b.cdr
    if isinstance(a, list | str) and isinstance(b, list | str):
        return len(a) == len(b) and all(map(equalp, sequence(a), sequence(b)))
    if isinstance(a, Character) and isinstance(b, Character):
        return a.char.lower() == b.char.lower()
    numbers = isinstance(a, int | float | Fraction) and isinstance(b, int | float | Fraction)
    return a == b if numbers else eql(a, b)


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


def string_of(value: Any) -> str:
    """A string, or the name of a symbol or character."""
    if isinstance(value, Symbol):
        return value.name.removeprefix(":")
    if isinstance(value, Character):
        return value.char
    if not isinstance(value, str):
        raise TypeError(f"{text(value)} is no string")
    return value


def keywords_of(args: tuple[Any, ...]) -> dict[str, Any]:
    """The keyword arguments at the end of a call."""
    if len(args) % 2:
        raise TypeError("keyword arguments come in pairs")
    return {key.name[1:]: value for key, value in zip(args[::2], args[1::2], strict=True)}


def itself(item: Any) -> Any:
    """The key where none is given."""
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
    if name in ("FLOAT", "SINGLE-FLOAT", "DOUBLE-FLOAT") and isinstance(value, int | Fraction):
        return float(value)
    return value


def length(items: Any) -> int:
    """The number of elements."""
    return len(items) if isinstance(items, str | list | Table) else len(elements(items))


def bounded(count: int) -> None:
    """Refuse to make so many elements."""
    if count > MAX_ELEMENTS:
        raise fail("too-big", f"more than {MAX_ELEMENTS} elements")
