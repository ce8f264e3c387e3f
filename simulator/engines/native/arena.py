"""Arenas: blocks of host memory that hold one world each, and are mapped into the emulator.

An arena is two parts: the world's simulated memory by address, and what `layout` puts after it. Pages that nothing
touches cost address space alone. Invariant: while a world lives in an arena, the tables of bounds in it are equal to
what the world's memory allows.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable

from simulator.engines.native.layout import (
    ARENA_SIZE,
    CONTROL,
    CONTROL_SIZE,
    PAGES,
    READ_LIMITS,
    WRITE_LIMITS,
    Slot,
    control,
)
from simulator.memory import ADDRESS_LIMIT, PACKET_BASE, PAGE_BITS, Memory

_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0
_PACKET_PAGE = PACKET_BASE >> PAGE_BITS


def block(size: int) -> mmap.mmap:
    """Host memory that costs nothing until it is touched. MemoryError where the host has no room for it."""
    try:
        if sys.platform == "win32":
            return mmap.mmap(-1, size)
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
    except OSError as error:
        raise MemoryError(f"no {size >> 20} MiB of address space for the native engine: {error}") from None


def address_of(memory: mmap.mmap) -> int:
    """Where the host has it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


class Arena:
    """One block. `base` is its address in the emulator, `control` the numbers of `layout.Slot`."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.memory = block(ARENA_SIZE)
        self.host_address = address_of(self.memory)
        self.view = memoryview(self.memory)
        self.control = self.view[CONTROL : CONTROL + CONTROL_SIZE].cast("Q")
        self.start = self.view[control(Slot.ARGS) : control(Slot.TARGET + 1)]
        """What a run begins with."""
        self.runs: dict[int, Callable[[], None]] = {}
        """What runs what the control page says, to its end, by the level whose emulator has it mapped."""
        self.entries: list[int] = []
        """Where code begins that makes ready for a run in this arena, by level."""
        self._read = self.view[READ_LIMITS : READ_LIMITS + 4 * PAGES].cast("I")
        self._write = self.view[WRITE_LIMITS : WRITE_LIMITS + 4 * PAGES].cast("I")

    def adopt(self, memory: Memory) -> None:
        """Moves a world's memory in, and keeps the tables of bounds equal to it from now on."""
        pages, read, write, control = memory.pages, self._read, self._write, self.control

        def changed(first: int, count: int) -> None:
            for page in range(first, first + count):
                view = pages[page]
                read[page] = len(view) if view is not None else 0
                write[page] = len(view) if view is not None and not view.readonly else 0
            if first <= _PACKET_PAGE < first + count:
                control[Slot.PACKET_LIMITS : Slot.PACKET_LIMITS + 4] = packet_limits(read[_PACKET_PAGE])

        memory.move(self.view[:ADDRESS_LIMIT], changed)

    def clear(self) -> None:
        """Makes it all zero again."""
        self.memory.madvise(mmap.MADV_DONTNEED)


class _Limits(dict[int, memoryview]):
    def __missing__(self, size: int) -> memoryview:
        limits = b"".join(max(0, size - access + 1).to_bytes(8, "little") for access in (1, 2, 4, 8))
        found = self[size] = memoryview(limits).cast("Q")
        return found


_LIMITS = _Limits()


def packet_limits(size: int) -> memoryview:
    """Of a packet of this size, the first offsets at which there is no room for accesses of 1, 2, 4 and 8 bytes."""
    return _LIMITS[size]


def reusable() -> bool:
    """Whether the host can give an arena back in zeros."""
    return sys.platform == "linux"
