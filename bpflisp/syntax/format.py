"""`format` at compile time, with the usual parameters of its directives:

    ~a ~s ~w ~d ~x ~b ~o ~r ~f ~$ ~c ~p   ~% ~& ~~ ~t   ~{ ~} ~^ ~[ ~; ~] ~( ~) ~* ~?

Numbers in words (`~r` without a base) and pretty printing (`~<`, `~_`, `~i`) are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from bpflisp.lean import dataclass, field
from bpflisp.syntax.forms import NIL, Character, Cons, Symbol, cells, elements, fail, text

_DIRECTIVE = re.compile(r"~((?:'.|[+-]?\d+|[vV#])?(?:,(?:'.|[+-]?\d+|[vV#])?)*)([:@]*)(.)", re.DOTALL)
_LIMIT = 1 << 20


class _Escape(Exception):  # noqa: N818  (no error)
    """`~^`: no argument is left."""


@dataclass(slots=True)
class _Arguments:
    items: Sequence[Any]
    at: int = 0

    def next(self) -> Any:
        if self.at >= len(self.items):
            raise fail("bad-format", "`format` has too few arguments")
        self.at += 1
        return self.items[self.at - 1]

    @property
    def left(self) -> int:
        return len(self.items) - self.at


@dataclass(slots=True)
class _Output:
    parts: list[str] = field(default_factory=list)
    size: int = 0
    column: int = 0

    def write(self, piece: str) -> None:
        self.size += len(piece)
        if self.size > _LIMIT:
            raise fail("too-big", "`format` writes more than a million characters")
        self.parts.append(piece)
        _, newline, last = piece.rpartition("\n")
        self.column = len(last) if newline else self.column + len(piece)


def format_text(control: Any, args: Sequence[Any]) -> str:
    """What `(format nil control args...)` gives."""
    if not isinstance(control, str):
        raise fail("bad-format", f"`format` needs a string, not `{text(control)}`")
    output = _Output()
    with suppress(_Escape):
        _run(control, _Arguments(args), output)
    return "".join(output.parts)


def _run(control: str, args: _Arguments, output: _Output) -> None:
    at = 0
    while at < len(control):
        tilde = control.find("~", at)
        if tilde < 0:
            output.write(control[at:])
            return
        output.write(control[at:tilde])
        found = _DIRECTIVE.match(control, tilde)
        if not found:
            raise fail("bad-format", f"`{control}` ends in a tilde")
        at = _directive(control, found, args, output)


def _directive(control: str, found: re.Match[str], args: _Arguments, output: _Output) -> int:
    """Do one directive; gives where the text goes on."""
    name = found[3].lower()
    params = [_parameter(piece, args) for piece in found[1].split(",")] if found[1] else []
    if name in "{[(":
        close = {"{": "}", "[": "]", "(": ")"}[name]
        body, end = _enclosed(control, found.end(), name, close)
        if name == "{":
            _iterate(body, found[2], params, args, output)
        elif name == "[":
            _choose(body, found[2], params, args, output)
        else:
            output.write(_cased(body, found[2], args))
        return end
    if name == "\n":
        rest = control[found.end() :]
        return found.end() + len(rest) - len(rest.lstrip())
    if name == "&":
        count = params[0] if params and isinstance(params[0], int) else 1
        output.write("\n" * min(count - (not output.column) if count else 0, _LIMIT))
    elif name == "t":
        output.write(_tabulated(output.column, found[2], params))
    elif name == "?":
        inner = args.next()
        if not isinstance(inner, str):
            raise fail("bad-format", f"`~?` takes a string, not `{text(inner)}`")
        _run(inner, args if "@" in found[2] else _Arguments(elements(args.next())), output)
    else:
        output.write(_simple(name, found[2], params, args))
    return found.end()


def _tabulated(column: int, flags: str, params: list[Any]) -> str:
    """`~column,stepT`: spaces up to a column, beyond it to the next step; with `@`, so many and up to a step."""
    target, step = (params[at] if len(params) > at and isinstance(params[at], int) else 1 for at in (0, 1))
    if "@" in flags:
        spaces = target + (-(column + target) % step if step else 0)
    elif column < target:
        spaces = target - column
    else:
        spaces = step - (column - target) % step if step else 0
    return " " * min(spaces, _LIMIT)


def _parameter(piece: str, args: _Arguments) -> Any:
    if not piece:
        return None
    if piece in "vV":
        value = args.next()
        return None if value is NIL else value.char if isinstance(value, Character) else value
    if piece == "#":
        return args.left
    return piece[1] if piece[0] == "'" else int(piece)


def _enclosed(control: str, start: int, opening: str, closing: str) -> tuple[str, int]:
    depth, at = 1, start
    while True:
        found = _DIRECTIVE.search(control, at)
        if not found:
            raise fail("bad-format", f"`~{opening}` is never closed in `{control}`")
        depth += (found[3] == opening) - (found[3] == closing)
        if depth == 0:
            return control[start : found.start()], found.end()
        at = found.end()


def _iterate(body: str, flags: str, params: list[Any], args: _Arguments, output: _Output) -> None:
    items = args if "@" in flags else _Arguments(elements(args.next()))
    most = params[0] if params and params[0] is not None else _LIMIT
    try:
        for _ in range(most):
            if not items.left:
                break
            before = items.at
            if ":" in flags:
                try:
                    _run(body, _Arguments(elements(items.next())), output)
                except _Escape:
                    continue
            else:
                _run(body, items, output)
            if items.at == before:
                break
    except _Escape:
        pass


def _clauses(body: str) -> tuple[list[str], bool]:
    """What `~;` parts, and whether `~:;` stands before the last: it is for all other numbers."""
    parts, depth, start, default = [], 0, 0, False
    for found in _DIRECTIVE.finditer(body):
        depth += (found[3] in "[{") - (found[3] in "]}")
        if found[3] == ";" and depth == 0:
            parts.append(body[start : found.start()])
            start, default = found.end(), ":" in found[2]
    return [*parts, body[start:]], default


def _choose(body: str, flags: str, params: list[Any], args: _Arguments, output: _Output) -> None:
    clauses, default = _clauses(body)
    value = params[0] if params and params[0] is not None else args.next()
    if ":" in flags:
        index = 0 if value is NIL else 1
    elif "@" in flags:
        index = 0 if value is not NIL else len(clauses)
        args.at -= value is not NIL
    else:
        index = value if isinstance(value, int) else len(clauses)
    if default and not 0 <= index < len(clauses):
        index = len(clauses) - 1
    if 0 <= index < len(clauses):
        _run(clauses[index], args, output)


def _cased(body: str, flags: str, args: _Arguments) -> str:
    inner = _Output()
    _run(body, args, inner)
    written = "".join(inner.parts)
    if flags == ":@" or flags == "@:":
        return written.upper()
    if ":" in flags:
        return written.title()
    return written.capitalize() if "@" in flags else written.lower()


def _simple(name: str, flags: str, params: list[Any], args: _Arguments) -> str:
    count = params[0] if params and isinstance(params[0], int) else 1
    match name:
        case "%":
            return "\n" * min(count, _LIMIT)
        case "~":
            return "~" * min(count, _LIMIT)
        case "a" | "s" | "w":
            value = args.next()
            shown = "()" if value is NIL and ":" in flags else _shown(value, name != "a")
            return _padded(shown, params, left="@" in flags)
        case "d" | "x" | "b" | "o":
            return _number(args.next(), name, flags, params)
        case "c":
            return _character(args.next(), flags)
        case "p":
            value = args.items[args.at - 1] if ":" in flags else args.next()
            one, many = ("y", "ies") if "@" in flags else ("", "s")
            return one if value == 1 else many
        case "*":
            if "@" in flags:
                args.at = count if params else 0
            else:
                args.at += -count if ":" in flags else count
            if not 0 <= args.at <= len(args.items):
                raise fail("bad-format", "`~*` goes beyond the arguments of `format`")
            return ""
        case "^":
            if not args.left:
                raise _Escape
            return ""
        case "f":
            return _fixed(args.next(), params)
        case "$":
            return _fixed(args.next(), [None, count if params else 2])
        case "r" if params and isinstance(params[0], int):
            return _number(args.next(), "d", flags, params[1:], base=count)
    raise fail("bad-format", f"`~{name}` is not known in a format")


def _character(value: Any, flags: str) -> str:
    """`~c`; with `:` the name of what has no face, with `@` as it is read."""
    if not isinstance(value, Character):
        raise fail("bad-format", f"`~c` takes a character, not `{text(value)}`")
    named = value.char.isspace() or not value.char.isprintable()
    if "@" in flags:
        return text(value, readable=True)
    return text(value, readable=True).removeprefix("#\\").capitalize() if ":" in flags and named else value.char


def _shown(value: Any, readable: bool) -> str:
    """A value as Common Lisp prints it: names in upper case, also inside of lists."""
    if isinstance(value, Cons):
        return _shown_list(value, readable)
    shown = text(value, _LIMIT, readable=readable)
    if not isinstance(value, Symbol):
        return shown
    return (shown if readable else shown.removeprefix(":")).upper()


def _shown_list(value: Cons, readable: bool) -> str:
    parts: list[str] = []
    end: object = NIL
    for cell in cells(value):
        parts.append(_shown(cell.car, readable))
        end = cell.cdr
    if sum(map(len, parts)) > _LIMIT:
        raise fail("too-big", "`format` writes more than a million characters")
    return "(" + " ".join(parts) + ("" if end is NIL else f" . {_shown(end, readable)}") + ")"


def _padded(written: str, params: list[Any], *, left: bool) -> str:
    width, step, least = (
        min(params[at], _LIMIT) if len(params) > at and isinstance(params[at], int) else given
        for at, given in enumerate((0, 1, 0))
    )
    pad = params[3] if len(params) > 3 and isinstance(params[3], str) else " "
    short = width - len(written) - least
    spaces = pad * (least + (-(-short // max(step, 1)) * max(step, 1) if short > 0 else 0))
    return spaces + written if left else written + spaces


def _fixed(value: Any, params: list[Any]) -> str:
    """`~width,digitsF`."""
    if not isinstance(value, int | float):
        return _shown(value, False)
    width = params[0] if params and isinstance(params[0], int) else 0
    digits = params[1] if len(params) > 1 and isinstance(params[1], int) else None
    written = str(float(value))
    if digits is not None:
        from decimal import ROUND_HALF_UP, Decimal

        exact = Decimal(written).quantize(Decimal(1).scaleb(-min(digits, 100)), ROUND_HALF_UP)
        written = f"{exact:f}" + "." * (digits == 0)
    pad = params[4] if len(params) > 4 and isinstance(params[4], str) else " "
    return written.rjust(min(width, _LIMIT), pad)


_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _digits(number: int, base: int) -> str:
    written = ""
    while number or not written:
        number, digit = divmod(number, base)
        written = _DIGITS[digit] + written
    return written


def _number(value: Any, name: str, flags: str, params: list[Any], base: int = 0) -> str:
    if not isinstance(value, int):
        return _shown(value, False)
    base = base if 2 <= base <= 36 else {"d": 10, "x": 16, "b": 2, "o": 8}[name]
    written = _digits(abs(value), base).upper()
    if ":" in flags:
        mark = params[2] if len(params) > 2 and isinstance(params[2], str) else ","
        each = params[3] if len(params) > 3 and isinstance(params[3], int) and 0 < params[3] < 100 else 3
        written = re.sub(rf"(?<=\w)(?=(?:\w{{{each}}})+$)", mark.replace("\\", r"\\"), written)
    sign = "-" if value < 0 else "+" if "@" in flags else ""
    width = params[0] if params and isinstance(params[0], int) else 0
    pad = params[1] if len(params) > 1 and isinstance(params[1], str) else " "
    return (sign + written).rjust(min(width, _LIMIT), pad)
