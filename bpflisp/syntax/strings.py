"""Functions of Common Lisp on strings, characters and symbols' names; `:start` and `:end` where it has them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from bpflisp.syntax.data import Function, bounded, keywords_of, sequence, string_of, truth
from bpflisp.syntax.forms import NIL, Character, Symbol, intern, text
from bpflisp.syntax.searching import options_of, window


def _part(value: Any, options: dict[str, Any], suffix: str = "") -> str:
    content = string_of(value)
    found = window(content, options, suffix)
    return content[found.start : found.end]


def _compared(compare: Callable[[str, str], bool], *, fold: bool = False, where: bool = True) -> Function:
    """`string<` and its kin: where the strings begin to differ, if they compare so."""

    def run(a: Any, b: Any, *rest: Any) -> object:
        options = options_of(rest, "START1", "END1", "START2", "END2")
        left, right = _part(a, options, "1"), _part(b, options, "2")
        if fold:
            left, right = left.lower(), right.lower()
        if not compare(left, right):
            return NIL
        if not where:
            return truth(True)
        pairs = enumerate(zip(left, right, strict=False))
        at = next((at for at, (one, other) in pairs if one != other), min(len(left), len(right)))
        return at + int(options.get("START1", 0))

    return run


def _changed(change: Callable[[str], str]) -> Function:
    """`string-upcase` and its kin, of a part of the string."""

    def run(value: Any, *rest: Any) -> object:
        options = options_of(rest, "START", "END")
        content = string_of(value)
        part = window(content, options)
        return content[: part.start] + change(content[part.start : part.end]) + content[part.end :]

    return run


def _bag(chars: Any) -> str:
    return chars if isinstance(chars, str) else "".join(item.char for item in sequence(chars))


def _digit_char_p(char: Any, radix: int = 10) -> object:
    try:
        return int(char.char, radix)
    except ValueError:
        return NIL


_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _digit_char(weight: int, radix: int = 10) -> object:
    return Character(_DIGITS[weight]) if 0 <= weight < radix else NIL


def _intern(name: Any, package: Any = NIL) -> object:
    keyword = isinstance(package, Symbol) and package.name == ":KEYWORD"
    return intern((":" if keyword else "") + string_of(name))


def _make_string(count: int, *rest: Any) -> object:
    bounded(count)
    char = options_of(rest, "INITIAL-ELEMENT", "ELEMENT-TYPE").get("INITIAL-ELEMENT")
    return (char.char if isinstance(char, Character) else " ") * count


def _parse_integer(value: Any, *rest: Any) -> object:
    """The number that a text is; with `:junk-allowed t`, that it begins with, or nil."""
    options = options_of(rest, "START", "END", "RADIX", "JUNK-ALLOWED")
    content, radix = _part(value, options).strip(), options.get("RADIX", 10)
    if "JUNK-ALLOWED" not in options:
        return int(content, radix)
    for end in range(len(content), 0, -1):
        try:
            return int(content[:end], radix)
        except ValueError:
            continue
    return NIL


def _characters(compare: Callable[[Any, Any], bool], fold: bool = False) -> Function:
    def run(*chars: Any) -> object:
        codes = [char.char.lower() if fold else char.char for char in chars]
        return truth(all(compare(a, b) for a, b in pairwise(codes)))

    return run


def _printed(readable: bool) -> Function:
    def run(value: Any, *rest: Any) -> object:
        keywords_of(rest)
        return text(value, 10_000, readable=readable)

    return run


STRINGS: dict[str, Function] = {
    "STRING": string_of, "SYMBOL-NAME": string_of, "INTERN": _intern,
    "MAKE-SYMBOL": lambda name: Symbol(string_of(name)), "MAKE-KEYWORD": lambda name: intern(":" + string_of(name)),
    "STRING=": _compared(operator.eq, where=False), "STRING/=": _compared(operator.ne),
    "STRING<": _compared(operator.lt), "STRING>": _compared(operator.gt), "STRING<=": _compared(operator.le),
    "STRING>=": _compared(operator.ge), "STRING-EQUAL": _compared(operator.eq, fold=True, where=False),
    "STRING-NOT-EQUAL": _compared(operator.ne, fold=True), "STRING-LESSP": _compared(operator.lt, fold=True),
    "STRING-GREATERP": _compared(operator.gt, fold=True),
    "STRING-UPCASE": _changed(str.upper), "STRING-DOWNCASE": _changed(str.lower),
    "STRING-CAPITALIZE": _changed(str.title),
    "STRING-TRIM": lambda bag, value: string_of(value).strip(_bag(bag)),
    "STRING-LEFT-TRIM": lambda bag, value: string_of(value).lstrip(_bag(bag)),
    "STRING-RIGHT-TRIM": lambda bag, value: string_of(value).rstrip(_bag(bag)),
    "MAKE-STRING": _make_string, "PARSE-INTEGER": _parse_integer,
    "CHAR-CODE": lambda c: ord(c.char), "CODE-CHAR": lambda n: Character(chr(n)),
    "CHAR-UPCASE": lambda c: Character(c.char.upper()), "CHAR-DOWNCASE": lambda c: Character(c.char.lower()),
    "CHAR=": _characters(operator.eq), "CHAR/=": _characters(operator.ne), "CHAR<": _characters(operator.lt),
    "CHAR>": _characters(operator.gt), "CHAR<=": _characters(operator.le), "CHAR>=": _characters(operator.ge),
    "CHAR-EQUAL": _characters(operator.eq, fold=True), "CHAR-NOT-EQUAL": _characters(operator.ne, fold=True),
    "CHAR-LESSP": _characters(operator.lt, fold=True), "CHAR-GREATERP": _characters(operator.gt, fold=True),
    "ALPHA-CHAR-P": lambda c: truth(c.char.isalpha()), "ALPHANUMERICP": lambda c: truth(c.char.isalnum()),
    "UPPER-CASE-P": lambda c: truth(c.char.isupper()), "LOWER-CASE-P": lambda c: truth(c.char.islower()),
    "BOTH-CASE-P": lambda c: truth(c.char.lower() != c.char.upper()),
    "DIGIT-CHAR-P": _digit_char_p, "DIGIT-CHAR": _digit_char,
    "PRIN1-TO-STRING": _printed(True), "WRITE-TO-STRING": _printed(True), "PRINC-TO-STRING": _printed(False),
}  # fmt: skip
