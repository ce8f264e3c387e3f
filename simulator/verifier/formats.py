"""Format strings of bpf_snprintf and bpf_seq_printf, checked before they run.

Source: bpf_bprintf_prepare of kernel/bpf/helpers.c.
"""

from __future__ import annotations

import re
from typing import Final

_SPEC: Final = re.compile(rb"%(?:(?P<percent>%)|[ 0+\-#]*\d*(?P<rest>.{0,3}))", re.DOTALL)
_POINTER_KINDS: Final = b"kuxKBsS"
_ADDRESSES: Final = (b"i4", b"I4", b"i6", b"I6")
_INTEGERS: Final = b"diuxX"


def _conversion(rest: bytes) -> bool | None:
    """Whether what follows the width is a conversion that takes an argument; None where it is malformed."""
    if rest[:1] == b"p":
        kind = rest[1:2]
        if not kind or kind.isspace() or not (kind.isalnum()):
            return True
        if kind in (b"i", b"I"):
            return True if rest[1:3] in _ADDRESSES else None
        return True if kind in _POINTER_KINDS else None
    if rest[:1] == b"s" or rest[:1] == b"c":
        return True
    rest = rest[2:] if rest[:2] == b"ll" else rest[1:] if rest[:1] in (b"l", b"h") else rest
    return True if rest[:1] and rest[:1] in _INTEGERS else None


def problem(text: bytes, arguments: int) -> str:
    """What is wrong with a format for so many arguments; "" where nothing is."""
    if not text.isascii() or any(byte < 0x20 and not chr(byte).isspace() for byte in text):
        return "unprintable"
    used = 0
    for found in _SPEC.finditer(text):
        if found["percent"]:
            continue
        takes = _conversion(found["rest"] or b"")
        if takes is None:
            return "unknown conversion"
        used += 1
        if used > arguments:
            return "too few arguments"
    return "" if used == arguments else "too many arguments"
