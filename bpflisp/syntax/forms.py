"""Forms: what the reader makes, macros take apart and put together, and the checker reads.

A form is an integer, a float, a fraction, a string, a `Character`, a `Symbol`, a `Cons`, a Python list (a vector), or
what else the evaluator may put there (a hash table, a function). Lists are cons cells, because macros share and mutate
them. A cell that the reader made knows its span, so an error is shown at the user's own text even after macros moved
the cell; a cell that a macro made has none, and the error falls back on the nearest cell around it that has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache

from bpflisp.diagnostics import Diagnostic, Span, error
from bpflisp.lean import dataclass


class Symbol:
    """A name, in upper case; a keyword keeps its colon. Interned ones are equal if and only if they are identical."""

    __slots__ = ("interned", "name")

    def __init__(self, name: str, *, interned: bool = False) -> None:
        self.name = name
        self.interned = interned

    @property
    def is_keyword(self) -> bool:
        """Whether it is written with a colon, and so means itself."""
        return self.name.startswith(":")

    def __repr__(self) -> str:
        return self.name.lower() if self.interned else f"#:{self.name.lower()}"


@cache
def intern(name: str) -> Symbol:
    """The one symbol of this name; the caller has folded the case."""
    return Symbol(name, interned=True)


def symbol(name: str) -> Symbol:
    """The one symbol of this name, in whatever case it is written here."""
    return intern(name.upper())


NIL = intern("NIL")
T = intern("T")
QUOTE = intern("QUOTE")
FUNCTION = intern("FUNCTION")
QUASIQUOTE = intern("QUASIQUOTE")
UNQUOTE = intern("UNQUOTE")
UNQUOTE_SPLICING = intern("UNQUOTE-SPLICING")


class Cons:
    """A pair. `span` is that of the list that starts here, `car_span` that of an atom in the car: None if not read."""

    __slots__ = ("car", "car_span", "cdr", "span")

    def __init__(self, car: object, cdr: object, span: Span | None = None, car_span: Span | None = None) -> None:
        self.car = car
        self.cdr = cdr
        self.span = span
        self.car_span = car_span

    def __repr__(self) -> str:
        return text(self)


@dataclass(frozen=True, slots=True)
class Character:
    """A character object, as `#\\a` reads."""

    char: str


class FormError(Exception):
    """Something is wrong with a form: the diagnostic to show for it, whose span may still be unknown.

    `condition`: the type that `error` was given, in upper case.
    """

    condition = ""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(diagnostic.headline)


def fail(code: str, problem: str, span: Span | None = None, *, because: str = "", help: str = "") -> FormError:
    """The exception to raise for an error."""
    return FormError(error(code, problem, span, because=because, help=help))


def lisp_list(items: Iterable[object], tail: object = NIL, span: Span | None = None) -> object:
    """A list of the items, ending in `tail`. Only its first cell has the span."""
    result = tail
    for item in reversed(list(items)):
        result = Cons(item, result)
    if isinstance(result, Cons) and result is not tail:
        result.span = span
    return result


def build(head: str, *items: object, span: Span | None = None) -> Cons:
    """The form `(head items...)`."""
    form = lisp_list([symbol(head), *items], span=span)
    assert isinstance(form, Cons)
    return form


def cells(form: object) -> Iterator[Cons]:
    """The cells of a list, one for each element; a dotted end is passed over, a circle is refused."""
    count = 0
    while isinstance(form, Cons):
        yield form
        form = form.cdr
        count += 1
        if count > MAX_LIST:
            raise fail("too-big", f"this list has more than {MAX_LIST} elements, or is circular")


MAX_LIST = 200_000


def elements(form: object) -> list[object]:
    """The elements of a proper list. Raises FormError for anything else."""
    if form is not NIL and not isinstance(form, Cons):
        raise fail("not-a-list", f"a list is expected here, not `{text(form)}`")
    items: list[object] = []
    end: object = NIL
    for cell in cells(form):
        items.append(cell.car)
        end = cell.cdr
    if end is not NIL:
        raise fail("dotted-list", f"this list ends in `. {text(end)}`, where a plain list is expected", span_of(form))
    return items


def span_of(form: object) -> Span | None:
    """Where a list was read, if it was."""
    return form.span if isinstance(form, Cons) else None


def element_span(cell: Cons) -> Span | None:
    """Where the element in a cell was read, if it was."""
    return cell.car.span if isinstance(cell.car, Cons) else cell.car_span


_PREFIXES = {QUOTE: "'", FUNCTION: "#'", QUASIQUOTE: "`", UNQUOTE: ",", UNQUOTE_SPLICING: ",@"}


def text(form: object, limit: int = 200, *, readable: bool = True) -> str:
    """A form as Lisp text, in lower case; cut off after about `limit` characters. Plain `princ` if not readable."""
    parts: list[str] = []
    _write(form, parts, [limit], readable)
    return "".join(parts)


def _write(form: object, parts: list[str], left: list[int], readable: bool) -> None:
    if left[0] <= 0:
        if parts and parts[-1] != "...":
            parts.append("...")
        return
    if isinstance(form, Cons):
        _write_list(form, parts, left, readable)
        return
    word = atom_text(form, readable=readable)
    left[0] -= len(word) + 1
    parts.append(word)


def _write_list(form: Cons, parts: list[str], left: list[int], readable: bool) -> None:
    if isinstance(form.car, Symbol) and form.car in _PREFIXES and isinstance(form.cdr, Cons) and form.cdr.cdr is NIL:
        parts.append(_PREFIXES[form.car])
        _write(form.cdr.car, parts, left, readable)
        return
    separator = "("
    end: object = form
    while isinstance(end, Cons) and left[0] > 0:
        parts.append(separator)
        left[0] -= 1
        _write(end.car, parts, left, readable)
        separator = " "
        end = end.cdr
    if left[0] <= 0 and end is not NIL:
        parts.append(" ...")
    elif end is not NIL:
        parts.append(" . ")
        _write(end, parts, left, readable)
    parts.append(")")


def atom_text(form: object, *, readable: bool = True) -> str:
    """What is not a list, as Lisp text."""
    match form:
        case Symbol():
            name = form.name.lower()
            return name if form.interned or not readable else f"#:{name}"
        case bool():
            return "t" if form else "nil"
        case str():
            return '"' + form.replace("\\", "\\\\").replace('"', '\\"') + '"' if readable else form
        case Character():
            return f"#\\{_CHARACTER_NAMES.get(form.char, form.char)}" if readable else form.char
        case Fraction():
            return f"{form.numerator}/{form.denominator}"
        case int() | float():
            return str(form)
        case list():
            return f"#({' '.join(text(item, readable=readable) for item in form)})"
    return f"#<{type(form).__name__.lower()}>"


CHARACTERS = {
    "space": " ", "newline": "\n", "linefeed": "\n", "tab": "\t", "return": "\r", "nul": "\0", "null": "\0",
    "page": "\f", "backspace": "\b", "escape": "\x1b", "rubout": "\x7f", "delete": "\x7f",
}  # fmt: skip
"""Names of characters after `#\\`."""

_CHARACTER_NAMES = {char: name for name, char in reversed(CHARACTERS.items())}
