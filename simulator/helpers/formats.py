"""The format strings of the printing helpers: what the kernel's bpf_bprintf takes, and how it prints it.

    %d %i %u %x %X with l or ll; %c; %s %pks %pus (strings in memory); %p %pK %px %pB; %pi4 %pI4 %pi6 %pI6; %%

Any other is refused with EINVAL, as is a byte that is neither printable nor white space.
"""

from __future__ import annotations

import errno
import ipaddress
import re
from collections.abc import Callable, Sequence

from bpflisp.spec.alu import M32, M64, signed
from simulator.machine import Machine

_CONVERSION = re.compile(rb"%(?:(%)|([-+ 0]*)(\d*)(?:(p(?:K|x|s|S|B|ks|us|[iI][46])?)|(l{0,2})([diuxX])|([cs])))")
_MAX_STRING = 512


def format_bytes(machine: Machine, text: bytes, arguments: Sequence[int]) -> bytes | int:
    """The formatted text without its closing zero; -EINVAL where the kernel refuses the format or its arguments."""
    end = text.find(b"\0")
    if end < 0:
        return -errno.EINVAL
    text, left = text[:end], list(arguments)
    if any(not (32 <= byte < 127 or 9 <= byte <= 13) for byte in text):
        return -errno.EINVAL
    printed, at = bytearray(), 0
    while at < len(text):
        if text[at : at + 1] != b"%":
            printed.append(text[at])
            at += 1
            continue
        found = _CONVERSION.match(text, at)
        if not found:
            return -errno.EINVAL
        at = found.end()
        if found[1]:
            printed += b"%"
            continue
        if found[4] and at < len(text) and chr(text[at]).isalnum():
            return -errno.EINVAL
        if not left:
            return -errno.EINVAL
        printed += _converted(machine, found, left.pop(0))
    return bytes(printed)


def _converted(machine: Machine, found: re.Match[bytes], value: int) -> bytes:
    if found[4]:
        return _pointer(machine, found[4].decode(), value)
    if found[7] == b"s":
        return _string(machine, value)
    if found[7] == b"c":
        return _filled(bytes([value & 0xFF]), found)
    bits = 64 if found[5] else 32
    value &= M64 if found[5] else M32
    kind = found[6].decode()
    if kind in "di":
        value = signed(value, bits)
    flags = found[2].decode()
    text = format(abs(value), {"x": "x", "X": "X"}.get(kind, "d"))
    sign = "-" if value < 0 else "+" if "+" in flags and kind in "di" else ""
    return _filled((sign + text).encode(), found)


def _filled(text: bytes, found: re.Match[bytes]) -> bytes:
    width, flags = int(found[3] or 0), found[2]
    if b"-" in flags:
        return text.ljust(width)
    return text.zfill(width) if b"0" in flags else text.rjust(width)


def _pointer(machine: Machine, kind: str, value: int) -> bytes:
    strings: dict[str, Callable[[Machine, int], bytes]] = {"pks": _string, "pus": _string}
    if kind in strings:
        return strings[kind](machine, value)
    if kind[1:] in ("i4", "I4"):
        octets = _bytes(machine, value, 4)
        join = "%03d.%03d.%03d.%03d" if kind[1] == "i" else "%d.%d.%d.%d"
        return (join % tuple(octets)).encode()
    if kind[1:] in ("i6", "I6"):
        groups = ipaddress.IPv6Address(_bytes(machine, value, 16)).exploded
        return (groups if kind[1] == "I" else groups.replace(":", "")).encode()
    return f"{value:016x}".encode()


def _bytes(machine: Machine, address: int, size: int) -> bytes:
    data = machine.world.kernel_memory.read(machine.memory, address, size)
    return data if data is not None else bytes(size)


def _string(machine: Machine, address: int) -> bytes:
    found = machine.world.kernel_memory.read_string(machine.memory, address, _MAX_STRING)
    return b"" if found is None else found
