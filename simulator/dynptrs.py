"""Dynptrs: sixteen bytes in the program's stack that stand for memory whose size is known at run time.

Their layout is the kernel's: the address of the data, its size with type and read-only bit, the offset in it.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from simulator.machine import Machine
from simulator.memory import PACKET_BASE

_LAYOUT = struct.Struct("<QII")
SIZE = _LAYOUT.size
LOCAL, RINGBUF, SKB, XDP, SKB_META = range(1, 6)
_TYPE_SHIFT, _SIZE_MASK, _READ_ONLY = 28, 0xFFFFFF, 1 << 31
MAX_SIZE = _SIZE_MASK


@dataclass(slots=True)
class Dynptr:
    """One dynptr. `data` is an address; of a packet's, what `offset` counts from is the packet."""

    data: int
    kind: int
    size: int
    offset: int = 0
    read_only: bool = False

    def address(self, machine: Machine, offset: int) -> int:
        """Where the byte at `offset` of it is."""
        packet = {SKB: PACKET_BASE + machine.meta, XDP: PACKET_BASE + machine.meta, SKB_META: PACKET_BASE}
        base = packet.get(self.kind, self.data)
        return base + self.offset + offset

    def misfit(self, offset: int, size: int) -> int:
        """E2BIG where an access does not fit, else 0."""
        return -errno.E2BIG if size > self.size or offset > self.size - size else 0


def read(machine: Machine, address: int) -> Dynptr | None:
    """The dynptr at an address; None for a null one."""
    data, size, offset = _LAYOUT.unpack(machine.read(address, SIZE))
    if not data:
        return None
    return Dynptr(data, size >> _TYPE_SHIFT & 7, size & _SIZE_MASK, offset, bool(size & _READ_ONLY))


def write(machine: Machine, address: int, dynptr: Dynptr | None) -> None:
    """Puts a dynptr, or a null one, at an address."""
    if dynptr is None:
        machine.write(address, bytes(SIZE))
        return
    size = dynptr.size | dynptr.kind << _TYPE_SHIFT | (_READ_ONLY if dynptr.read_only else 0)
    machine.write(address, _LAYOUT.pack(dynptr.data, size, dynptr.offset))
