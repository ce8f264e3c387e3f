"""Arenas: memory that programs share with user space, page by page, in a window of addresses of four gigabytes at most.

Programs hold the addresses of user space; those that they read and write through are made of them by a cast and are,
here, KERNEL with the lower 32 bits. Invariant: a page that nobody has allocated reads as zero, and what is written
there is lost, as in the kernel, where such an access faults and goes on.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import Final

from bpflisp.spec.alu import M32
from simulator.maps import base
from simulator.maps.base import F_MMAPABLE, F_NUMA_NODE, Map
from simulator.memory import Memory
from simulator.program import MapDef

PAGE: Final = 4096
KERNEL: Final = 1 << 46
"""The upper half of the addresses that programs access."""

_START = 1 << 44
"""Where user space sees an arena whose definition does not say where."""

_WINDOW = 1 << 32
_TYPE = 33
_STRUCT_SIZE, _COUNTS, _EXTRA, _USER = 400, 64, 80, 296
"""Of struct bpf_arena in kernel 6.18: its size, and where type and sizes are, flags, and the window in user space."""
_NULL_PAGE = 1 << 16
_F_SEGV_ON_FAULT, _F_NO_USER_CONV = 1 << 17, 1 << 18
_FLAGS = F_MMAPABLE | F_NUMA_NODE | _F_SEGV_ON_FAULT | _F_NO_USER_CONV


class Ranges:
    """The pages that are free, as ranges. Ours are the choices of the kernel's tree: the smallest that is long enough,
    of those the one that came about last."""

    def __init__(self, count: int) -> None:
        self._free: list[tuple[int, int]] = [(0, count)]

    def find(self, count: int) -> int:
        """The first page of a free range, -1 for none."""
        fitting = [(length, -order, start) for order, (start, length) in enumerate(self._free) if length >= count]
        return min(fitting)[2] if fitting else -1

    def has(self, start: int, count: int) -> bool:
        """Whether these pages are all free."""
        return any(first <= start and start + count <= first + length for first, length in self._free)

    def take(self, start: int, count: int) -> None:
        """Takes pages out, those that are free."""
        for first, length in list(self._free):
            low, high = max(first, start), min(first + length, start + count)
            if low < high:
                self._free.remove((first, length))
                self._free += [(at, size) for at, size in ((first, low - first), (high, first + length - high)) if size]

    def give(self, start: int, count: int) -> None:
        """Makes pages free, with the ranges around them."""
        self.take(start, count)
        low, high = start, start + count
        for first, length in list(self._free):
            if first + length == low or first == high:
                self._free.remove((first, length))
                low, high = min(low, first), max(high, first + length)
        self._free.append((low, high - low))


class Arena(Map):
    """One arena. `start` is where user space sees it; the first pages hold its variables, if it has any."""

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        made = definition
        size = made.max_entries * PAGE
        if made.key_size or made.value_size or not made.max_entries or made.flags & ~_FLAGS:
            base.fail(errno.EINVAL, f"arena {made.name!r}: no key, no value, entries not 0")
        if not made.flags & F_MMAPABLE or made.extra % PAGE:
            base.fail(errno.EINVAL, f"arena {made.name!r}: BPF_F_MMAPABLE, and an address of a page")
        if size > _WINDOW:
            base.fail(errno.E2BIG, f"arena {made.name!r} has {size} bytes: {_WINDOW} at most")
        self.start = made.extra or _START
        if self.start >> 32 != (self.start + size - 1) >> 32:
            base.fail(errno.ERANGE, f"arena {made.name!r} crosses a border of four gigabytes")
        self.handle = self._in_kernel(memory)
        self._pages: dict[int, bytearray] = {}
        self._ranges = Ranges(made.max_entries)
        if made.init:
            self.poke(self.start, made.init)

    def _in_kernel(self, memory: Memory) -> int:
        """The kernel's own structure, out of which programs read where their arena begins."""
        made, region = self.definition, memory.allocate(f"arena {self.name}", _STRUCT_SIZE, writable=False)
        end = self.start + made.max_entries * PAGE
        region.view[_COUNTS : _COUNTS + 16] = struct.pack("<4I", _TYPE, 0, 0, made.max_entries)
        region.view[_EXTRA : _EXTRA + 12] = struct.pack("<QI", made.extra, made.flags)
        region.view[_USER : _USER + 16] = struct.pack("<QQ", self.start, end)
        return region.base

    def value_base(self) -> int:
        """The address, in user space, of its variables."""
        return self.start

    # What programs access.

    def sees(self, address: int) -> bool:
        """Whether an access of a program at this address is one to its arena."""
        if address >> 32 == KERNEL >> 32 or self.start <= address < self.start + self.definition.max_entries * PAGE:
            return True
        return address < _NULL_PAGE and not self.start & M32  # The cast of the arena's first address is zero.

    def read(self, address: int, size: int) -> bytes:
        """Bytes that a program reads: zeros where no page is, or where the address is not cast."""
        found = bytearray()
        for at, length in self._parts(address, size):
            page = self._page(at)
            found += bytes(length) if page is None else page[at % PAGE : at % PAGE + length]
        return bytes(found)

    def write(self, address: int, data: bytes) -> None:
        """Bytes that a program writes: lost where no page is."""
        done = 0
        for at, length in self._parts(address, len(data)):
            page = self._page(at)
            if page is not None:
                page[at % PAGE : at % PAGE + length] = data[done : done + length]
            done += length

    def _page(self, address: int) -> bytearray | None:
        cast = address >> 32 == KERNEL >> 32 or address < _NULL_PAGE
        return self._pages.get(self.number(address)) if cast else None

    @staticmethod
    def _parts(address: int, size: int) -> Iterator[tuple[int, int]]:
        """The parts of an access that lie in one page each."""
        end = address + size
        while address < end:
            length = min(end, (address // PAGE + 1) * PAGE) - address
            yield address, length
            address += length

    def number(self, address: int) -> int:
        """Which page an address is in, by its lower 32 bits."""
        return ((address - self.start) & M32) // PAGE

    # Kernel functions.

    def allocate(self, address: int, count: int) -> int:
        """Pages at an address of user space, anywhere for 0: the address of the first, 0 where they cannot be had."""
        most = self.definition.max_entries
        if count > most or address % PAGE:
            return 0
        first = self.number(address) if address else self._ranges.find(count)
        if first < 0 or (address and (first > most - count or not self._ranges.has(first, count))):
            return 0
        self._ranges.take(first, count)
        self._pages.update((first + number, bytearray(PAGE)) for number in range(count))
        return self.start + first * PAGE

    def free(self, address: int, count: int) -> None:
        """Gives pages back, those that are the arena's."""
        first = self.number(address)
        count = min(count, self.definition.max_entries - first)
        if count > 0:
            self._ranges.give(first, count)
            for number in range(first, first + count):
                self._pages.pop(number, None)

    def reserve(self, address: int, count: int) -> int:
        """Keeps pages from being allocated: EINVAL beyond the arena, EBUSY where one is not free."""
        first = self.number(address)
        if first + count > self.definition.max_entries:
            return -errno.EINVAL
        if not self._ranges.has(first, count):
            return -errno.EBUSY
        self._ranges.take(first, count)
        return 0

    # User space.

    def poke(self, address: int, data: bytes) -> None:
        """Writes as user space does: pages come about where none are."""
        for at, _ in self._parts(address, len(data)):
            self._touch(self.number(at))
        self.write(KERNEL | address & M32, data)

    def peek_at(self, address: int, size: int) -> bytes:
        """Reads as user space does."""
        for at, _ in self._parts(address, size):
            self._touch(self.number(at))
        return self.read(KERNEL | address & M32, size)

    def _touch(self, number: int) -> None:
        if not 0 <= number < self.definition.max_entries:
            raise ValueError(f"arena {self.name!r} has no page {number}")
        if number not in self._pages:
            self._pages[number] = bytearray(PAGE)
            self._ranges.take(number, 1)

    def raw_items(self) -> Iterator[tuple[bytes, bytes]]:
        """Nothing: it has no keys."""
        return iter(())


def cast(value: int, to_user: bool, arena: Arena) -> int:
    """An address of the other space: its lower half, under the upper half of that space; 0 stays 0."""
    low = value & M32
    if not low:
        return 0
    return low | (arena.start >> 32 << 32 if to_user else KERNEL)
