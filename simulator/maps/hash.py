"""Hash maps: plain, least-recently-used, and per CPU.

Values live in chunks of memory that are added as elements come; `_next` is the first place of the last chunk that was
never used, `_end` the chunk's end, `_free` are places that were given back. Invariant: `found` has the address of the
first CPU's value of every element; the value of CPU n is `n * stride` after it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from simulator.maps import base
from simulator.maps.base import Map, round_up
from simulator.memory import Memory
from simulator.program import MapDef

_MAX_ELEMENT = (1 << 22) - 48
"""Bytes that a key and a value may have together: KMALLOC_MAX_SIZE of x86-64 less the kernel's own header."""

_MAX_PER_CPU_VALUE = 32 << 10
_CHUNK_BYTES = 1 << 18
ENOTSUPP = 524
"""The kernel's own "not supported", which user space has no name for."""


class Hash(Map):
    """A hash map. `found` is for engines too: key -> address of the value, without side effects."""

    _flags = (
        base.F_NO_PREALLOC | base.F_NUMA_NODE | base.F_RDONLY | base.F_WRONLY | base.F_RDONLY_PROG
        | base.F_WRONLY_PROG | base.F_ZERO_SEED
    )  # fmt: skip

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        self._check_creation()
        self.stride = round_up(definition.value_size, 8)
        self._element = self.stride * (cpus if self.per_cpu else 1)
        self.found: dict[bytes, int] = {}
        self._memory = memory
        self._free: list[int] = []
        self._made = self._next = self._end = 0
        self.on_removal: Callable[[], None] | None = None
        """What is told when an element goes, so that nobody takes its address for good."""
        self._spare = 0
        """The place of the element that was written anew last; the next one to be is moved there."""

    def _check_creation(self) -> None:
        made = self.definition
        if not (made.key_size and made.value_size and made.max_entries) or made.flags & ~self._flags:
            base.fail(errno.EINVAL, f"{made.type} map {made.name!r}: key, value and entries not 0, known flags")
        if made.key_size + made.value_size >= _MAX_ELEMENT:
            base.fail(errno.E2BIG, f"{made.type} map {made.name!r}: key and value are too large")
        if self.per_cpu and round_up(made.value_size, 8) > _MAX_PER_CPU_VALUE:
            base.fail(errno.E2BIG, f"{made.type} map {made.name!r}: a per-CPU value of {made.value_size} bytes")

    def address_of(self, key: bytes, cpu: int) -> int:
        address = self.found.get(key, 0)
        return address + cpu * self.stride if address and self.per_cpu else address

    def store(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        address = self._element_for(key, flags)
        if address < 0:
            return address
        size = self.definition.value_size
        value = self._without_managed(value[:size])
        self._write(address + cpu * self.stride if self.per_cpu else address, value)
        return 0

    def remove(self, key: bytes) -> int:
        address = self.found.pop(key, 0)
        if not address:
            return -errno.ENOENT
        self._give_up(address)
        return 0

    def lookup(self, key: bytes) -> bytes | None:
        self._check(key)
        address = self.found.get(key)
        return None if address is None else self._without_managed(self._memory.read(address, self.user_value_size))

    def update(self, key: bytes, value: bytes, flags: int = base.ANY) -> None:
        self._check(key, value)
        address = self._element_for(key, flags)
        self._done(min(address, 0), "update")
        self._write(address, self._without_managed(value))

    def delete(self, key: bytes) -> None:
        self._check(key)
        self._done(self.remove(key), "delete")

    def keys(self) -> Iterator[bytes]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def _element_for(self, key: bytes, flags: int) -> int:
        """The address of the element to write under `key`, made where it is not there, or a negative error number."""
        locked, flags = flags & base.F_LOCK, flags & ~base.F_LOCK
        if flags > base.EXIST or (locked and not self._may_lock):
            return -errno.EINVAL
        address = self.found.get(key, 0)
        if address and flags == base.NOEXIST:
            return -errno.EEXIST
        if address:
            return address if locked or self.per_cpu else self._renewed(key, address)
        if flags == base.EXIST:
            return -errno.ENOENT
        if len(self.found) >= self.definition.max_entries and not self._make_room():
            return -errno.E2BIG
        address = self._new_element()
        self.found[key] = address
        return address

    def _renewed(self, key: bytes, address: int) -> int:
        """Another place for an element that is written anew: who holds the old one sees the old value, for a while."""
        new = self._spare or self._new_element()
        self._spare = address
        self.found[key] = new
        self._freed(address)
        if self.on_removal is not None:
            self.on_removal()
        return new

    def _give_up(self, address: int) -> None:
        """Takes back the place of an element that is gone."""
        self._freed(address)
        self._free.append(address)
        if self.on_removal is not None:
            self.on_removal()

    def _make_room(self) -> bool:
        """Whether a full map gave up an element."""
        return False

    def _new_element(self) -> int:
        if self._free:
            address = self._free.pop()
            self._write(address, bytes(self._element))
            return address
        if self._next == self._end:
            left = self.definition.max_entries + 1 - self._made
            count = max(1, min(left, _CHUNK_BYTES // self._element))
            chunk = self._memory.allocate(f"map {self.name}", count * self._element)
            self._made += count
            self._next, self._end = chunk.base, chunk.end
        self._next += self._element
        return self._next - self._element

    def _write(self, address: int, data: bytes) -> None:
        page = self._memory.pages[address >> 16]
        assert page is not None
        start = address & 0xFFFF
        page[start : start + len(data)] = data


class LruHash(Hash):
    """A hash map that gives up the element that was used least recently when it is full.

    The kernel comes near that order with lists for each CPU; this is the order itself.
    """

    _flags = (
        base.F_NO_COMMON_LRU | base.F_NUMA_NODE | base.F_RDONLY | base.F_WRONLY | base.F_RDONLY_PROG
        | base.F_WRONLY_PROG | base.F_ZERO_SEED
    )  # fmt: skip

    def _check_creation(self) -> None:
        if self.definition.flags & base.F_NO_PREALLOC:
            base.fail(ENOTSUPP, f"{self.definition.type} map {self.name!r}: always preallocated")
        super()._check_creation()

    def address_of(self, key: bytes, cpu: int) -> int:
        address = self.found.pop(key, 0)
        if not address:
            return 0
        self.found[key] = address
        return address + cpu * self.stride if self.per_cpu else address

    def _element_for(self, key: bytes, flags: int) -> int:
        address = super()._element_for(key, flags)
        if address > 0:
            self.found[key] = self.found.pop(key)
        return address

    def _renewed(self, key: bytes, address: int) -> int:
        return address

    def _make_room(self) -> bool:
        oldest = next(iter(self.found))
        self._give_up(self.found.pop(oldest))
        return True


class PerCpuHash(Hash):
    """A hash map with a value for each CPU under each key."""

    per_cpu = True


class LruPerCpuHash(LruHash):
    """The two together."""

    per_cpu = True
