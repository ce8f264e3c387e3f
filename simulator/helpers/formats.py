"""The format strings of the printing helpers: what the kernel's bpf_bprintf takes, and how it prints it.

    %d %i %u %x %X with l or ll; %c; %s %pks %pus (strings in memory); %p %pK %px %ps %pS %pB; %pi4 %pI4 %pi6 %pI6; %%

Any other is refused with EINVAL, as is a byte that is neither printable nor white space. As in the kernel, arguments
are first put one after the other into a buffer, strings and addresses as text, and are then printed out of it: what
that does to a text that is cut short is part of the answer.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import string
from collections.abc import Sequence
from typing import Final, NamedTuple
from zlib import crc32

from bpflisp.spec.alu import M64, signed
from simulator.machine import Machine

BUFFER_SIZE: Final = 1024
"""Bytes of a line of the trace."""

_ARGUMENTS_SIZE = 512
_LARGEST_ERROR = 4095
_POINTER_DIGITS = 16

_TAKEN = re.compile(rb"%[-+ 0]*(?:[1-9]\d*)?(?:(p)|(s)|(c)|(l{0,2})([diuxX]))")
_PRINTED = re.compile(rb"%([-+ #0]*)(\d*)(?:(%)|(p)|(s)|(c)|(l{0,2})([diuxX]))")
_SPACE_OR_MARK = frozenset((string.whitespace + string.punctuation).encode())
_LETTER_OR_DIGIT = frozenset((string.ascii_letters + string.digits).encode())
_AS_IT_IS = b"KxsS"
"""What may follow %p where the number itself is what is printed."""


class Printed(NamedTuple):
    """What stands in the buffer, without its closing zero, and the length that the whole text would have."""

    text: bytes
    length: int


def format_bytes(machine: Machine, text: bytes, arguments: Sequence[int], room: int = BUFFER_SIZE) -> Printed | int:
    """The text in a buffer of `room` bytes; a negative error where the kernel refuses format or arguments."""
    end = text.find(b"\0")
    if end < 0:
        return -errno.EINVAL
    text = text[:end]
    taken = _Taken(machine, text, arguments).all()
    return taken if isinstance(taken, int) else _Page(bytes(taken), room).printed(text)


class _Taken:
    """The arguments on their way into the kernel's buffer."""

    def __init__(self, machine: Machine, text: bytes, arguments: Sequence[int]) -> None:
        self._machine, self._text, self._left = machine, text, list(arguments)
        self._taken = bytearray()

    def all(self) -> bytearray | int:
        """All arguments that the text names; a negative error."""
        text, at = self._text, 0
        while at < len(text):
            if not (32 <= text[at] < 127 or 9 <= text[at] <= 13):
                return -errno.EINVAL
            if text[at] != ord("%"):
                at += 1
                continue
            if text[at + 1 : at + 2] == b"%":
                at += 2
                continue
            found = _TAKEN.match(text, at)
            if not found or not self._left:
                return -errno.EINVAL
            at = self._one(found)
            if at < 0:
                return at
        return self._taken

    def _one(self, found: re.Match[bytes]) -> int:
        """One argument: where the text goes on, or a negative error."""
        value, at = self._left.pop(0), found.end()
        if found[1]:
            return self._pointer(value, at)
        if found[2]:
            return self._string(value, at)
        if found[3]:
            return at if self._put(bytes([value & 0xFF])) else -errno.ENOSPC
        size = 8 if found[4] else 4
        return at if self._number(value, size) else -errno.ENOSPC

    def _pointer(self, value: int, at: int) -> int:
        kind = self._text[at : at + 2]
        if not kind or kind[0] in _SPACE_OR_MARK:
            return at if self._number(value, 8) else -errno.ENOSPC
        if kind in (b"ks", b"us"):
            return self._string(value, at + 2, user=kind == b"us")
        if kind[0] in _AS_IT_IS:
            return at + 1 if self._number(value, 8) else -errno.ENOSPC
        if kind[:1] == b"B":
            return at + 1 if self._put(_symbol(value) + b"\0") else -errno.ENOSPC
        if kind not in (b"i4", b"I4", b"i6", b"I6"):
            return -errno.EINVAL
        size = 4 if kind[1:] == b"4" else 16
        if len(self._taken) + size > _ARGUMENTS_SIZE:
            return -errno.ENOSPC
        data = self._machine.world.kernel_memory.read(self._machine.memory, value, size) or bytes(size)
        self._put(_address(kind.decode(), data) + b"\0")
        return at + 2

    def _string(self, address: int, at: int, user: bool = False) -> int:
        if at < len(self._text) and self._text[at] not in _SPACE_OR_MARK:
            return -errno.EINVAL
        room = _ARGUMENTS_SIZE - len(self._taken)
        if room <= 0:
            return -errno.ENOSPC
        world = self._machine.world
        memory = world.user_memory if user else world.kernel_memory
        found = memory.read_string(self._machine.memory, address, room)
        self._put((found or b"")[: room - 1] + b"\0")
        return at

    def _number(self, value: int, size: int) -> bool:
        self._put(bytes(-len(self._taken) % 4))
        return self._put((value & M64).to_bytes(8, "little")[:size])

    def _put(self, data: bytes) -> bool:
        """Adds bytes; whether there was room for them."""
        room = _ARGUMENTS_SIZE - len(self._taken)
        self._taken += data[: max(0, room)]
        return len(data) <= room


def _symbol(value: int) -> bytes:
    """What an address is called: by its number, since the worlds of programs have no symbols."""
    return f"{value & M64:#x}".encode()


def _address(kind: str, data: bytes) -> bytes:
    if kind[1] == "4":
        return (("%03d.%03d.%03d.%03d" if kind[0] == "i" else "%d.%d.%d.%d") % tuple(data)).encode()
    groups = ipaddress.IPv6Address(data).exploded
    return (groups if kind[0] == "I" else groups.replace(":", "")).encode()


class _Page:
    """The text on its way into a buffer. `_at` is how long it is; what is beyond the room is counted alone."""

    def __init__(self, taken: bytes, room: int) -> None:
        self._taken, self._next = taken + bytes(_ARGUMENTS_SIZE), 0
        self._room, self._buffer, self._at = room, bytearray(room), 0

    def printed(self, text: bytes) -> Printed:
        """The whole text."""
        at = 0
        while at < len(text):
            following = text.find(b"%", at)
            following = len(text) if following < 0 else following
            self._put(text[at:following])
            if following == len(text):
                break
            found = _PRINTED.match(text, following)
            assert found is not None
            at = self._one(found, text)
        kept = min(self._at, self._room - 1) if self._room else 0
        return Printed(bytes(self._buffer[:kept]), self._at)

    def _put(self, data: bytes) -> None:
        room = max(0, self._room - self._at)
        self._buffer[self._at : self._at + min(len(data), room)] = data[:room]
        self._at += len(data)

    def _one(self, found: re.Match[bytes], text: bytes) -> int:
        flags, width, at = found[1], int(found[2]) if found[2] else -1, found.end()
        if found[3]:
            self._put(b"%")
        elif found[4]:
            self._pointer(text[at : at + 1], flags, width)
            while at < len(text) and text[at] in _LETTER_OR_DIGIT:
                at += 1  # Whatever letters follow are passed over, also those that are no part of the conversion.
        elif found[5]:
            self._put(_filled(self._string(), flags, width))
        elif found[6]:
            self._put(_filled(self._bytes(1, 1), flags, width))
        else:
            size = 8 if found[7] else 4
            value, kind = int.from_bytes(self._bytes(size, 4), "little"), found[8]
            self._put(_number(signed(value, 8 * size) if kind in b"di" else value, kind, flags, width))
        return at

    def _pointer(self, kind: bytes, flags: bytes, width: int) -> None:
        if kind and kind[0] in _LETTER_OR_DIGIT and kind not in (b"K", b"x", b"s", b"S"):
            # It is text already. Where the buffer is full, the kernel leaves it where it is, for what comes next.
            if self._at < self._room:
                self._put(self._string())
            return
        value = int.from_bytes(self._bytes(8, 4), "little")
        if kind in (b"s", b"S"):
            self._put(_filled(_symbol(value), flags, width))
            return
        if kind != b"x" and 0 < value < M64 - _LARGEST_ERROR + 1:
            value = crc32(value.to_bytes(8, "little"))  # A number made of the address: how, the kernel keeps a secret.
        if width < 0:
            flags, width = flags + b"0", _POINTER_DIGITS
        self._put(_number(value, b"x", flags, width))

    def _bytes(self, size: int, aligned: int) -> bytes:
        start = self._next + -self._next % aligned
        self._next = start + size
        return self._taken[start : self._next]

    def _string(self) -> bytes:
        end = self._taken.index(b"\0", self._next)
        found, self._next = self._taken[self._next : end], end + 1
        return found


def _filled(text: bytes, flags: bytes, width: int) -> bytes:
    return text.ljust(width) if b"-" in flags else text.rjust(width)


def _number(value: int, kind: bytes, flags: bytes, width: int) -> bytes:
    digits = format(abs(value), {b"x": "x", b"X": "X"}.get(kind, "d"))
    sign = ""
    if kind in b"di":
        sign = "-" if value < 0 else "+" if b"+" in flags else " " if b" " in flags else ""
    if b"-" in flags:
        return (sign + digits).ljust(width).encode()
    if b"0" in flags:
        digits = digits.rjust(max(0, width - len(sign)), "0")
    return (sign + digits).rjust(max(0, width)).encode()
