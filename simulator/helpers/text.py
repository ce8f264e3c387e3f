"""Helpers on strings: numbers out of text, comparison, formatting into a buffer."""

from __future__ import annotations

import errno
import struct

from bpflisp.spec.alu import M32, M64
from simulator.helpers.formats import format_bytes
from simulator.helpers.registry import models
from simulator.machine import Machine

_BASES = {0: 0, 8: 8, 10: 10, 16: 16}
_SPACE = b" \t\n\v\f\r"
_HEXADECIMAL = frozenset(bytes([byte]) for byte in b"0123456789abcdefABCDEF")


def _parsed(text: bytes, flags: int, may_be_negative: bool) -> tuple[int, int]:
    """The number at the beginning of a text and how many bytes it has; a negative error number in its place."""
    if flags not in _BASES or not text:
        return 0, -errno.EINVAL
    base, at = flags, 0
    while at < len(text) and text[at : at + 1] in _SPACE and text[at]:
        at += 1
    negative = may_be_negative and text[at : at + 1] == b"-"
    at += negative
    prefix = text[at : at + 2].lower() == b"0x" and text[at + 2 : at + 3] in _HEXADECIMAL
    if base == 0:
        base = 16 if prefix else 8 if text[at : at + 1] == b"0" else 10
    if base == 16 and text[at : at + 2].lower() == b"0x":
        at += 2
    start, value = at, 0
    while at < len(text) and (digit := _digit(text[at])) is not None and digit < base:
        value = value * base + digit
        at += 1
    if at == start:
        return 0, -errno.EINVAL
    if value > M64:
        return 0, -errno.ERANGE
    return (-value if negative else value), at


def _digit(byte: int) -> int | None:
    try:
        return int(chr(byte), 36)
    except ValueError:
        return None


@models("bpf_strtol")
def strtol(machine: Machine, text: int, size: int, flags: int, result: int, *_: int) -> int:
    """Writes the signed number that a text begins with; how many bytes it has. After an error the number is 0."""
    machine.write(result, bytes(8))
    value, used = _parsed(machine.read(text, size), flags, may_be_negative=True)
    if used > 0 and not -(1 << 63) <= value < 1 << 63:
        used = -errno.ERANGE
    if used > 0:
        machine.write(result, struct.pack("<q", value))
    return used


@models("bpf_strtoul")
def strtoul(machine: Machine, text: int, size: int, flags: int, result: int, *_: int) -> int:
    """Writes the unsigned number that a text begins with; how many bytes it has. EINVAL for a negative one."""
    machine.write(result, bytes(8))
    data = machine.read(text, size)
    value, used = _parsed(data, flags, may_be_negative=True)
    if used > 0 and data.lstrip(_SPACE).startswith(b"-"):
        return -errno.EINVAL
    if used > 0:
        machine.write(result, struct.pack("<Q", value))
    return used


@models("bpf_strncmp")
def strncmp(machine: Machine, first: int, size: int, second: int, *_: int) -> int:
    """Compares strings: less than, equal to or greater than 0 by the first byte that differs."""
    for index in range(size & M32):
        a, b = machine.read(first + index, 1)[0], machine.read(second + index, 1)[0]
        if a != b:
            return -1 if a < b else 1
        if not a:
            break
    return 0


@models("bpf_snprintf")
def snprintf(machine: Machine, to: int, size: int, text: int, data: int, length: int) -> int:
    """Formats into a buffer: the length of the whole text with its zero, even where the buffer cut it."""
    size, length = size & M32, length & M32
    if length % 8 or length > 96 or (length and not data):
        return -errno.EINVAL
    arguments = struct.unpack(f"<{length // 8}Q", machine.read(data, length)) if length else ()
    written = format_bytes(machine, machine.read_string(text, 4096) + b"\0", arguments, size)
    if isinstance(written, int):
        return written
    if size:
        machine.write(to, written.text + b"\0")
    return written.length + 1


@models("bpf_trace_vprintk")
def trace_vprintk(machine: Machine, text: int, size: int, data: int, length: int, *_: int) -> int:
    """Writes a line with any number of arguments to the world's trace."""
    length &= M32
    if length % 8 or length > 96 or (length and not data):
        return -errno.EINVAL
    arguments = struct.unpack(f"<{length // 8}Q", machine.read(data, length)) if length else ()
    written = format_bytes(machine, machine.read(text, size & M32), arguments)
    if isinstance(written, int):
        return written
    machine.world.printed.append(written.text.decode(errors="replace"))
    return written.length


# What iterators write.

_MAX_SEQUENCE = 1 << 20


@models("bpf_seq_write")
def seq_write(machine: Machine, sequence: int, data: int, size: int, *_: int) -> int:
    """Writes bytes to an iteration's output."""
    return _append(machine, machine.read(data, size & M32))


@models("bpf_seq_printf")
def seq_printf(machine: Machine, sequence: int, text: int, size: int, data: int, length: int) -> int:
    """Writes formatted text to an iteration's output."""
    length &= M32
    if length % 8 or length > 96 or (length and not data):
        return -errno.EINVAL
    arguments = struct.unpack(f"<{length // 8}Q", machine.read(data, length)) if length else ()
    written = format_bytes(machine, machine.read(text, size & M32), arguments, _MAX_SEQUENCE)
    return written if isinstance(written, int) else _append(machine, written.text)


def _append(machine: Machine, data: bytes) -> int:
    """Adds to the output: EOVERFLOW where it has grown too large for the kernel's buffer."""
    if len(machine.world.sequence) + len(data) > _MAX_SEQUENCE:
        return -errno.EOVERFLOW
    machine.world.sequence += data
    return 0
