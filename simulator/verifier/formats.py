"""Format strings of bpf_snprintf and its kin, checked before they run.

Source: bpf_bprintf_prepare of kernel/bpf/helpers.c, and what kernel 6.18 answered.
"""

from __future__ import annotations

import re
from typing import Final

_FLAGS_AND_WIDTH: Final = re.compile(rb"[0+\- ]*(?:[1-9][0-9]*)?")
_ADDRESS: Final = re.compile(rb"p(?:[iI][46]|[KxsSB]|[ku]s)")
_INTEGER: Final = re.compile(rb"l{0,2}[iduxX]")


def _ends_word(text: bytes, at: int) -> bool:
    """Whether the text ends at `at`, or goes on with a space or punctuation."""
    rest = text[at : at + 1]
    return not rest.isalnum()


def _conversion_end(text: bytes, at: int) -> int | None:
    """Where the conversion that begins at `at` (flags and width passed) ends; None where there is none."""
    kind = text[at : at + 1]
    if kind == b"p":
        if _ends_word(text, at + 1):
            return at + 1
        found = _ADDRESS.match(text, at)
        if found is None:
            return None
        end = found.end()
        is_string = found[0] in (b"pks", b"pus")
        return end if not is_string or _ends_word(text, end) else None
    if kind == b"s":
        return at + 1 if _ends_word(text, at + 1) else None
    if kind == b"c":
        return at + 1
    integer = _INTEGER.match(text, at)
    return None if integer is None else integer.end()


def problem(text: bytes, arguments: int) -> str:
    """What is wrong with a format for so many arguments; "" where nothing is. Arguments left over are no problem."""
    if any((byte < 0x20 and not chr(byte).isspace()) or byte == 0x7F for byte in text):
        return "a character that cannot be printed"
    at = used = 0
    while (at := text.find(b"%", at)) >= 0:
        if text[at + 1 : at + 2] == b"%":
            at += 2
            continue
        if used >= arguments:
            return "more conversions than arguments"
        flags = _FLAGS_AND_WIDTH.match(text, at + 1)
        assert flags is not None  # it matches the empty text too
        end = _conversion_end(text, flags.end())
        if end is None:
            return "an unknown conversion"
        used += 1
        at = end
    return ""
