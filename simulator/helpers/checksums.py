"""Helpers on internet checksums: sums of 16-bit words in one's complement, as RFC 1071 and 1624 have them."""

from __future__ import annotations

import errno
import struct

from bpflisp.spec.alu import M32
from simulator.helpers.packet import data_of
from simulator.helpers.registry import models
from simulator.machine import Machine
from simulator.maps.hash import ENOTSUPP

_FIELD_SIZE, _PSEUDO, _MANGLED_0, _ENFORCE, _IPV6 = 0xF, 0x10, 0x20, 0x40, 0x80
_MANGLED = 0xFFFF


def add(a: int, b: int) -> int:
    """One's complement sum of two 32-bit sums."""
    total = a + b
    return (total & M32) + (total >> 32)


def subtract(a: int, b: int) -> int:
    """One's complement difference."""
    return add(a, ~b & M32)


def partial(data: bytes, start: int = 0) -> int:
    """The sum of data in 32 bits, not yet folded."""
    padded = data + bytes(-len(data) % 4)
    total = start
    for (word,) in struct.iter_unpack("<I", padded):
        total = add(total, word)
    return total


def narrowed(total: int) -> int:
    """A 32-bit sum in 16 bits."""
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


def fold(total: int) -> int:
    """A 32-bit sum as a header's checksum: folded and complemented."""
    return ~narrowed(total) & 0xFFFF


@models("bpf_csum_diff")
def csum_diff(machine: Machine, old: int, old_size: int, new: int, new_size: int, seed: int) -> int:
    """The difference that replacing bytes makes to a sum; EINVAL for sizes that are no multiples of four."""
    old_size, new_size, seed = old_size & M32, new_size & M32, seed & M32
    if (old_size | new_size) & 3:
        return -errno.EINVAL
    total = seed
    if new_size:
        total = partial(machine.read(new, new_size), seed)
    if old_size and new_size:
        total = subtract(total, partial(machine.read(old, old_size)))
    elif old_size:
        total = ~partial(machine.read(old, old_size), ~seed & M32) & M32
    return narrowed(total)


@models("bpf_csum_update")
def csum_update(machine: Machine, *_: int) -> int:
    """Adds to the sum that the network card made: it made none."""
    return -ENOTSUPP


@models("bpf_csum_level")
def csum_level(machine: Machine, context: int, what: int, *_: int) -> int:
    """How many levels of checksums count as verified: counts one more, one less, forgets them, or tells.

    EACCES where none does, as of each packet of a test run.
    """
    buffer = machine.buffer
    match what:
        case 0:
            return -errno.EACCES if buffer.checked is None else buffer.checked
        case 1:
            buffer.count_checked()
        case 2:
            buffer.discount_checked()
        case 3:
            buffer.checked = None
        case _:
            return -errno.EINVAL
    return 0


@models("bpf_l3_csum_replace")
def l3_csum_replace(machine: Machine, context: int, offset: int, old: int, new: int, flags: int) -> int:
    """Brings a header's checksum up to date with a field that changed."""
    if flags & ~_FIELD_SIZE:
        return -errno.EINVAL
    return _replace(machine, offset & M32, old, new, flags)


@models("bpf_l4_csum_replace")
def l4_csum_replace(machine: Machine, context: int, offset: int, old: int, new: int, flags: int) -> int:
    """The same for TCP and UDP, where a UDP checksum of 0 means none."""
    if flags & ~(_FIELD_SIZE | _PSEUDO | _MANGLED_0 | _ENFORCE | _IPV6):
        return -errno.EINVAL
    return _replace(machine, offset & M32, old, new, flags)


def _replace(machine: Machine, offset: int, old: int, new: int, flags: int) -> int:
    size = flags & _FIELD_SIZE
    data = data_of(machine)
    if offset > 0xFFFF or offset & 1 or offset + 2 > len(data):
        return -errno.EFAULT
    (checksum,) = struct.unpack_from("<H", data, offset)
    if flags & _MANGLED_0 and not flags & _ENFORCE and not checksum:
        return 0
    if size not in (0, 2, 4) or (size == 0 and old):
        return -errno.EINVAL
    mask = 0xFFFF if size == 2 else M32
    total = subtract(~checksum & M32, old & mask) if size else ~checksum & M32
    checksum = fold(add(total, new & mask))
    if flags & _MANGLED_0 and not checksum:
        checksum = _MANGLED
    assert machine.packet is not None
    struct.pack_into("<H", machine.packet.view, machine.meta + offset, checksum)
    return 0
