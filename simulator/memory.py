"""Memory of a simulated machine: regions of bytes at stable addresses below 2**30.

Invariants: a region starts on a page boundary and is followed by a page that belongs to nobody, so an access that
leaves it by either end finds no memory. A page's entry is a view from the page's start to its region's end: the
length of that view is the bound, exact to the byte, and one lookup serves regions of any size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

PAGE_BITS = 16
PAGE_SIZE = 1 << PAGE_BITS
PAGE_MASK = PAGE_SIZE - 1
ADDRESS_LIMIT = 1 << 30
"""Addresses stay below it: they fit in the u32 fields of contexts, and in one digit of CPython's integers."""

_PAGES = ADDRESS_LIMIT >> PAGE_BITS

RETIRED = 1024
"""Regions that are kept after their element is gone, for programs that still hold the address."""

# Where a run's own memory is, in every world: the context, a stack frame every two pages, the packet.
CONTEXT_BASE = 1 << PAGE_BITS
STACK_BASE = 3 << PAGE_BITS
FRAME_DISTANCE = 2 << PAGE_BITS
PACKET_BASE = 32 << PAGE_BITS
SCRATCH_BASE = 19 << PAGE_BITS
_FIRST_FREE_PAGE = 64

PACKET_ROOM = 31 << PAGE_BITS
"""Bytes that a packet may have at most."""


class MemoryFault(Exception):  # noqa: N818
    """An access that no region allows. Engines turn it into the outcome's fault.

    `kind` is "memory" or "read-only"; `address` and `size` (bytes) those of the access.
    """

    def __init__(self, kind: str, address: int, size: int, region: str) -> None:
        self.kind, self.address, self.size, self.region = kind, address, size, region
        verb = "write to read-only" if kind == "read-only" else "access outside of"
        super().__init__(f"{verb} memory: {size} bytes at {address:#x}" + (f" ({region})" if region else ""))


class Region:
    """Bytes at `base`, `size` of them, named for messages. Its bytes are reached through `view`."""

    __slots__ = ("base", "name", "size", "view", "writable")

    def __init__(self, name: str, base: int, data: bytearray | memoryview, writable: bool = True) -> None:
        self.name, self.base, self.size, self.writable = name, base, len(data), writable
        self.view = memoryview(data)

    def __deepcopy__(self, memo: dict[int, Any]) -> Region:
        return Region(self.name, self.base, bytearray(self.view), self.writable)

    def move(self, storage: memoryview) -> None:
        """Moves its bytes to their place in a block that has one for every address. Views taken before are stale."""
        if self.view.obj is not storage.obj:
            before, self.view = self.view, storage[self.base : self.end]
            self.view[:] = before

    def __repr__(self) -> str:
        return f"<region {self.name}: {self.size} bytes at {self.base:#x}>"

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.base + self.size


class Memory:
    """The regions of one world, and the page table that finds them.

    `pages` is for engines: `pages[address >> PAGE_BITS]` is the view that holds the address, at index
    `address & PAGE_MASK`; None, or no entry at all, where nothing is.
    """

    def __init__(self) -> None:
        self.pages: list[memoryview | None] = [None] * _FIRST_FREE_PAGE
        self._words: dict[int, list[memoryview[int] | None]] = {}
        self._regions: dict[int, Region] = {}
        self._free: dict[int, list[int]] = {}
        self._retired: deque[Region] = deque()
        self._storage: memoryview | None = None
        self._changed: Callable[[int, int], None] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Memory:
        copy = Memory()
        memo[id(self)] = copy
        copy.pages = [None] * len(self.pages)
        copy._free = deepcopy(self._free)
        for page, region in self._regions.items():
            if page >= _FIRST_FREE_PAGE:
                copy._place(deepcopy(region, memo))
        copy._retired.extend(copy._regions[region.base >> PAGE_BITS] for region in self._retired)
        return copy

    def move(self, storage: memoryview, changed: Callable[[int, int], None]) -> None:
        """Moves the bytes of all regions, those to come too, into one block of ADDRESS_LIMIT bytes, each at its base.

        `changed` is told from now on which pages' entries change: the first, and how many. What was taken from `pages`,
        `words` or a region's `view` before is stale. A copy of this memory has its regions' bytes elsewhere again.
        """
        self._storage, self._changed = storage, changed
        self._words.clear()
        for region in self._regions.values():
            self._place(region)

    def words(self, size: int) -> list[memoryview[int] | None]:
        """The pages of allocated regions as arrays of words of 4 or 8 bytes, for addresses known to be aligned."""
        if size not in self._words:
            self._words[size] = []
            for region in self._regions.values():
                self._place_words(size, region)
        return self._words[size]

    def _place_words(self, size: int, region: Region) -> None:
        first, table = region.base >> PAGE_BITS, self._words[size]
        if first < _FIRST_FREE_PAGE:
            return
        table += [None] * (len(self.pages) - len(table))
        for page in range(first, first + self._span(region.size) - 1):
            view = self.pages[page]
            assert view is not None
            whole = view[: len(view) // size * size]
            table[page] = whole.cast("I") if size == 4 else whole.cast("Q")

    def allocate(self, name: str, size: int, writable: bool = True) -> Region:
        """A new region of `size` zero bytes. MemoryError where the address space has no room left."""
        span = self._span(size)
        if not self._free.get(span) and len(self.pages) + span > _PAGES:
            while self._retired:
                self.free(self._retired.popleft())
        free = self._free.get(span)
        if free:
            first = free.pop()
        else:
            first = len(self.pages)
            if first + span > _PAGES:
                raise MemoryError(f"no room for {size} bytes of {name}: simulated memory ends at {ADDRESS_LIMIT:#x}")
            self.pages += [None] * span
        region = Region(name, first << PAGE_BITS, bytearray(size), writable)
        self._place(region)
        return region

    def reserve(self) -> int:
        """An address that no region will ever have: a handle for what programs hold but cannot read, as a map."""
        if len(self.pages) + 1 > _PAGES:
            raise MemoryError(f"no room for a handle: simulated memory ends at {ADDRESS_LIMIT:#x}")
        self.pages.append(None)
        return (len(self.pages) - 1) << PAGE_BITS

    def free(self, region: Region) -> None:
        """Takes a region away: later accesses fault. Its pages serve the next region of the same span."""
        first, span = region.base >> PAGE_BITS, self._span(region.size)
        del self._regions[first]
        self.pages[first : first + span] = [None] * span
        for table in self._words.values():
            table[first : first + span] = [None] * span
        self._free.setdefault(span, []).append(first)
        if self._changed is not None:
            self._changed(first, span)

    def retire(self, region: Region) -> None:
        """Takes a region away once no program can have use of it any more.

        The kernel frees such memory after a grace period: a program that has its address may go on reading it to its
        end. Here the last that are taken away stay, as far as there is room.
        """
        self._retired.append(region)
        if len(self._retired) > RETIRED:
            self.free(self._retired.popleft())

    def put(self, region: Region) -> None:
        """Puts a region that a run owns at its own base, below those that are allocated, in place of what was there.

        Such regions are no part of the world's value: a copy starts without.
        """
        first = region.base >> PAGE_BITS
        before = self._regions.get(first)
        if before is not None and before.size > region.size:
            self._vacate(before)
        self._place(region)

    def take(self, region: Region) -> None:
        """Takes a region that was `put` away again."""
        first = region.base >> PAGE_BITS
        if self._regions.pop(first, None) is not None:
            self._vacate(region)

    def protect(self, region: Region, writable: bool) -> None:
        """Makes a region read-only for programs, or writable again."""
        region.writable = writable
        self._place(region)

    def regions(self) -> Iterator[Region]:
        """The regions, in the order of their making."""
        return iter(self._regions.values())

    def region_at(self, address: int) -> Region | None:
        """The region whose pages hold this address, its end included or not; None where nobody's are."""
        page = address >> PAGE_BITS
        for first, region in self._regions.items():
            if first <= page < first + self._span(region.size):
                return region
        return None

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes from `address`. MemoryFault where they are not all in one region."""
        return bytes(self._window(address, size))

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Writes bytes. MemoryFault where they do not all fit in one region, or where it is read-only."""
        window = self._window(address, len(data))
        if window.readonly:
            raise MemoryFault("read-only", address, len(data), self.name_at(address))
        window[:] = data

    def name_at(self, address: int) -> str:
        """The name of the region at or before this address in its pages, "" where there is none."""
        region = self.region_at(address) if 0 <= address < ADDRESS_LIMIT else None
        return region.name if region else ""

    def fault(self, address: int, size: int, write: bool) -> MemoryFault:
        """What an access that failed is to be reported as."""
        region = self.region_at(address) if 0 <= address < ADDRESS_LIMIT else None
        inside = region is not None and region.base <= address and address + size <= region.end
        kind = "read-only" if region and inside and write and not region.writable else "memory"
        return MemoryFault(kind, address, size, region.name if region else "")

    def _window(self, address: int, size: int) -> memoryview:
        page = address >> PAGE_BITS
        view = self.pages[page] if 0 <= page < len(self.pages) else None
        start = address & PAGE_MASK
        if view is None or size < 0 or start + size > len(view):
            if size == 0:
                return memoryview(b"")
            raise MemoryFault("memory", address, size, self.name_at(address))
        return view[start : start + size]

    @staticmethod
    def _span(size: int) -> int:
        """Pages of a region and of the gap after it."""
        return max(1, -(-size // PAGE_SIZE)) + 1

    def _vacate(self, region: Region) -> None:
        first, span = region.base >> PAGE_BITS, self._span(region.size)
        self.pages[first : first + span] = [None] * span
        if self._changed is not None:
            self._changed(first, span)

    def _place(self, region: Region) -> None:
        first, count = region.base >> PAGE_BITS, max(1, -(-region.size // PAGE_SIZE))
        if self._storage is not None:
            region.move(self._storage)
        view = region.view if region.writable else region.view.toreadonly()
        self._regions[first] = region
        for page in range(count):
            self.pages[first + page] = view[page * PAGE_SIZE :]
        for size in self._words:
            self._place_words(size, region)
        if self._changed is not None:
            self._changed(first, count)
