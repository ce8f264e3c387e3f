"""Text to forms, one top-level form at a time, as Common Lisp's reader does with its standard syntax.

Names fold to upper case, and packages are passed over: `whistler:xdp-pass` reads as `xdp-pass`. A form is read only
after the form before it has been evaluated, so that `#.` sees what was defined. Invariant: whatever the text, `read`
gives a form, gives END, or raises FormError at a span of the text; and it moves on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Final

from bpflisp.diagnostics import Source, Span
from bpflisp.syntax.forms import (
    CHARACTERS,
    FUNCTION,
    NIL,
    QUASIQUOTE,
    QUOTE,
    UNQUOTE,
    UNQUOTE_SPLICING,
    Character,
    Cons,
    FormError,
    Symbol,
    fail,
    intern,
    lisp_list,
)

END: Final = object()
"""What `read` gives where no form is left."""

MAX_DEPTH = 300
"""How deeply lists may be nested: more is surely not a program, and would exhaust what walks it."""

_BLANK = re.compile(r"(?:\s+|;[^\n]*)*")
_TOKEN = re.compile(r"(?:[^\s()'`,;\"|\\]|\\.|\|[^|]*\|)+", re.DOTALL)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_INTEGER = re.compile(r"[+-]?\d+\.?")
_RATIO = re.compile(r"[+-]?\d+/\d+")
_FLOAT = re.compile(r"[+-]?(?:\d*\.\d+(?:[esfdl][+-]?\d+)?|\d+(?:\.\d*)?[esfdl][+-]?\d+)", re.IGNORECASE)
_RADIX = re.compile(r"#(?:([xXbBoO])|(\d{1,2})[rR])")
_RADIX_OF = {"x": 16, "b": 2, "o": 8}
_UNUSUAL = re.compile(r"[|\\:]")
_MAY_BE_NUMBER = frozenset("0123456789+-.")
_NEXT_TOPLEVEL = re.compile(r"\n(?=\()")

FEATURES = frozenset({":BPFLISP", ":WHISTLER", ":COMMON-LISP", ":LITTLE-ENDIAN", ":LINUX"})
"""What `#+` finds present. `:whistler` is the name of the language, by which programs of the book may ask."""

_SKIPPED: Final = object()
"""What a reader macro gives that stands for no form: a false `#+`, a block comment."""


class Reader:
    """Reads one source from top to bottom. `read_eval` evaluates the form after `#.`."""

    def __init__(self, source: Source, read_eval: Callable[[object], object] | None = None) -> None:
        self.source = source
        self.text = source.text
        self.at = 0
        self.read_eval = read_eval
        self._depth = 0
        self._skipping = 0

    def read(self) -> object:
        """The next top-level form, or END."""
        self._depth = 0
        self._skipping = 0
        while True:
            self.skip_blank()
            if self.at >= len(self.text):
                return END
            form = self._form()
            if form is not _SKIPPED:
                return form

    def recover(self) -> None:
        """After an error: go on at the next line that starts with a parenthesis."""
        found = _NEXT_TOPLEVEL.search(self.text, max(self.at, 1) - 1)
        self.at = found.end() if found else len(self.text)

    def _span(self, start: int, end: int | None = None) -> Span:
        return Span(self.source, start, self.at if end is None else end)

    def skip_blank(self) -> int:
        """Pass over blanks and comments; where the next form starts."""
        found = _BLANK.match(self.text, self.at)
        if found:
            self.at = found.end()
        return self.at

    def _form(self) -> object:
        """The form that starts at `at`, which is no blank and not the end."""
        char = self.text[self.at]
        if char == "(":
            return self._list()
        if char == ")":
            self.at += 1
            raise fail("unmatched-paren", "this parenthesis closes nothing", self._span(self.at - 1))
        if char in "'`,":
            return self._quoted(char)
        if char == '"':
            return self._string()
        if char == "#":
            return self._dispatch()
        return self._token()

    def _next_form(self, start: int, what: str) -> object:
        """The form that a prefix needs."""
        while True:
            self.skip_blank()
            if self.at >= len(self.text):
                raise fail("end-of-text", f"the text ends after this {what}", self._span(start, start + 1))
            form = self._form()
            if form is not _SKIPPED:
                return form

    def _list(self) -> object:
        start = self.at
        self.at += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self.at = len(self.text)
            raise fail("too-deep", f"lists are nested more than {MAX_DEPTH} deep here", self._span(start, start + 1))
        items, tail = self._list_items(start)
        self._depth -= 1
        result: object = tail
        for form, span in reversed(items):
            result = Cons(form, result, None, span)
        if isinstance(result, Cons):
            result.span = self._span(start)
        return result

    def _list_items(self, start: int) -> tuple[list[tuple[object, Span]], object]:
        """The elements up to and past the closing parenthesis, and what follows a dot."""
        items: list[tuple[object, Span]] = []
        tail: object = NIL
        while True:
            self.skip_blank()
            at = self.at
            if at >= len(self.text):
                raise self._unclosed(start)
            if self.text[at] == ")":
                self.at += 1
                return items, tail
            if self._at_dot():
                if not items:
                    raise fail("stray-dot", "a dot must follow an element", self._span(at, at + 1))
                self.at += 1
                tail = self._next_form(at, "dot")
                self._close_dotted(start)
                return items, tail
            form = self._form()
            if form is not _SKIPPED:
                items.append((form, self._span(at)))

    def _at_dot(self) -> bool:
        after = self.text[self.at + 1 : self.at + 2]
        return self.text[self.at] == "." and (not after or after in "() \t\r\n;'\"")

    def _close_dotted(self, start: int) -> None:
        self.skip_blank()
        if self.at >= len(self.text):
            raise self._unclosed(start)
        if self.text[self.at] != ")":
            raise fail("stray-dot", "one element alone may follow a dot", self._span(self.at, self.at + 1))
        self.at += 1

    def _unclosed(self, start: int) -> FormError:
        """The parenthesis at `start` has no partner; a form at the margin inside it tells where one was forgotten."""
        inner = _NEXT_TOPLEVEL.search(self.text, start + 1)
        self.at = inner.end() if inner else len(self.text)
        where = ""
        if inner:
            line = self.source.position(inner.end())[0]
            where = f"line {line} starts a form at the margin, inside this one"
        return fail(
            "unclosed-paren",
            "this parenthesis is never closed",
            self._span(start, start + 1),
            because=where,
            help="close it with `)`",
        )

    def _quoted(self, char: str) -> object:
        start = self.at
        self.at += 1
        head = {"'": QUOTE, "`": QUASIQUOTE, ",": UNQUOTE}[char]
        if char == "," and self.text[self.at : self.at + 1] in ("@", "."):
            self.at += 1
            head = UNQUOTE_SPLICING
        return self._prefixed(head, start, "comma" if char == "," else "quote")

    def _prefixed(self, head: Symbol, start: int, what: str) -> Cons:
        """`(head form)` of the form that follows a prefix; prefixes of prefixes count as nesting."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self.at = len(self.text)
            raise fail("too-deep", f"quotes are nested more than {MAX_DEPTH} deep here", self._span(start, start + 1))
        at = self.at
        form = self._next_form(start, what)
        self._depth -= 1
        return Cons(head, Cons(form, NIL, None, self._span(at)), self._span(start), self._span(start, at))

    def _string(self) -> str:
        found = _STRING.match(self.text, self.at)
        if not found:
            start, self.at = self.at, len(self.text)
            raise fail("unclosed-string", "this string is never closed", self._span(start, start + 1))
        self.at = found.end()
        return re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL)

    def _token(self) -> object:
        start = self.at
        found = _TOKEN.match(self.text, start)
        if not found:
            self.at += 1
            raise fail("bad-character", f"`{self.text[start]}` starts no form", self._span(start))
        self.at = found.end()
        return self._atom(found[0], start)

    def _atom(self, token: str, start: int) -> object:
        if token[0] not in _MAY_BE_NUMBER:
            return self._symbol(token, start)
        if _INTEGER.fullmatch(token):
            return self._number(token.rstrip("."), 10, start)
        if _RATIO.fullmatch(token):
            numerator, denominator = token.split("/")
            if int(denominator) == 0:
                raise fail("bad-number", f"`{token}` divides by zero", self._span(start))
            ratio = Fraction(int(numerator), int(denominator))
            return ratio.numerator if ratio.denominator == 1 else ratio
        if _FLOAT.fullmatch(token):
            return float(re.sub("[esfdl]", "e", token, flags=re.IGNORECASE))
        return self._symbol(token, start)

    def _number(self, digits: str, radix: int, start: int) -> int:
        if len(digits) > MAX_DIGITS:
            raise fail("bad-number", f"a number of {len(digits)} digits", self._span(start))
        try:
            return int(digits, radix)
        except ValueError:
            raise fail("bad-number", f"`{digits}` is no number of base {radix}", self._span(start)) from None

    def _symbol(self, token: str, start: int) -> Symbol:
        """A name, its package passed over. Between bars, and after a backslash, case is kept."""
        if not _UNUSUAL.search(token):
            return intern(token.upper())
        name = "".join(
            piece[1:-1] if piece.startswith("|") and len(piece) > 1 else piece[1:] if piece.startswith("\\") else
            piece.upper() for piece in re.findall(r"\|[^|]*\||\\.|[^|\\]+", token, flags=re.DOTALL)
        )  # fmt: skip
        if "|" in token or "\\" in token:
            return intern(name)
        if name.startswith(":"):
            return intern(":" + name.lstrip(":"))
        name = name.rsplit(":", 1)[-1]
        if not name:
            raise fail("bad-symbol", f"`{token}` names a package, but no symbol in it", self._span(start))
        return intern(name)

    def _dispatch(self) -> object:
        """A form that starts with `#`."""
        start = self.at
        char = self.text[start + 1 : start + 2]
        radix = _RADIX.match(self.text, start)
        if radix:
            return self._radix(radix, start)
        if char == "|":
            return self._block_comment()
        if char == "\\":
            return self._character()
        if char == "(":
            self.at += 1
            return self._vector(start)
        if char in ("'", ".", "+", "-", ":"):
            self.at += 2
            return self._dispatched(char, start)
        found = _TOKEN.match(self.text, start)
        self.at = found.end() if found else start + 1
        raise fail("bad-dispatch", f"`#{char}` is not a syntax that is read here", self._span(start))

    def _dispatched(self, char: str, start: int) -> object:
        if char == "'":
            return self._prefixed(FUNCTION, start, "#'")
        if char == ".":
            return self._evaluated(start)
        if char == ":":
            found = _TOKEN.match(self.text, self.at)
            self.at = found.end() if found else self.at
            return self._symbol(found[0] if found else "", start)
        return self._conditional(char == "+", start)

    def _radix(self, found: re.Match[str], start: int) -> object:
        radix = _RADIX_OF[found[1].lower()] if found[1] else int(found[2])
        self.at = found.end()
        token = _TOKEN.match(self.text, self.at)
        self.at = token.end() if token else self.at
        if not 2 <= radix <= 36:
            raise fail("bad-number", f"{radix} is no base: 2 to 36 are", self._span(start))
        return self._number(token[0] if token else "", radix, start)

    def _block_comment(self) -> object:
        start, depth = self.at, 1
        self.at += 2
        while depth:
            opening, closing = self.text.find("#|", self.at), self.text.find("|#", self.at)
            if closing < 0:
                self.at = len(self.text)
                raise fail("unclosed-comment", "this comment is never closed", self._span(start, start + 2))
            nested = 0 <= opening < closing
            depth += 1 if nested else -1
            self.at = (opening if nested else closing) + 2
        return _SKIPPED

    def _character(self) -> Character:
        start = self.at
        found = re.compile(r"#\\(\w+|.)", re.DOTALL).match(self.text, start)
        self.at = found.end() if found else len(self.text)
        name = found[1] if found else ""
        char = name if len(name) == 1 else CHARACTERS.get(name.lower(), "")
        if not char:
            raise fail("bad-character", f"`#\\{name}` is no character", self._span(start))
        return Character(char)

    def _vector(self, start: int) -> object:
        self._depth += 1
        self.at = start + 2
        items, _ = self._list_items(start)
        self._depth -= 1
        return [form for form, _ in items]

    def _evaluated(self, start: int) -> object:
        form = self._next_form(start, "#.")
        if self._skipping:
            return NIL
        if self.read_eval is None:
            raise fail("bad-dispatch", "`#.` cannot be evaluated here", self._span(start))
        return self.read_eval(lisp_list([intern("PROGN"), form], span=self._span(start)))

    def _conditional(self, wanted: bool, start: int) -> object:
        """`#+feature form`: the form is read in any case, and kept if the features are as wanted."""
        feature = self._next_form(start, "#+" if wanted else "#-")
        keep = _has_feature(feature) is wanted
        self._skipping += not keep
        form = self._next_form(start, "feature")
        self._skipping -= not keep
        return form if keep else _SKIPPED


MAX_DIGITS = 2000


def _has_feature(feature: object) -> bool:
    if isinstance(feature, Symbol):
        return (feature.name if feature.is_keyword else ":" + feature.name) in FEATURES
    if isinstance(feature, Cons) and isinstance(feature.car, Symbol):
        values: list[bool] = []
        rest = feature.cdr
        while isinstance(rest, Cons):
            values.append(_has_feature(rest.car))
            rest = rest.cdr
        name = feature.car.name.lstrip(":")
        if name == "NOT":
            return not any(values)
        return all(values) if name == "AND" else any(values)
    return False
