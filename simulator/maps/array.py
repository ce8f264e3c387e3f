"""Array maps: values in one block, or one block a CPU; every index has a value."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from simulator.maps import base
from simulator.maps.base import Map, round_up
from simulator.memory import Memory, Region
from simulator.program import MapDef

_INDEX = struct.Struct("<I")
_MAX_VALUE = (1 << 31) - 1
_MAX_PER_CPU_VALUE = 32 << 10


class Array(Map):
    """An array. `stride` is a value's size filled up to eight bytes, `blocks` the values of each CPU."""

    _flags = (
        base.F_NUMA_NODE | base.F_RDONLY | base.F_WRONLY | base.F_RDONLY_PROG | base.F_WRONLY_PROG
        | base.F_MMAPABLE | base.F_PRESERVE_ELEMS | base.F_INNER_MAP
    )  # fmt: skip

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        self._check_creation()
        self.stride = round_up(definition.value_size, 8)
        self.count = definition.max_entries
        size, blocks = self.stride * self.count, cpus if self.per_cpu else 1
        label = f"map {self.name}"
        self.blocks: list[Region] = [memory.allocate(label, size) for _ in range(blocks)]
        if definition.init is not None:
            self.blocks[0].view[: len(definition.init)] = definition.init
        if definition.frozen or definition.flags & base.F_RDONLY_PROG:
            memory.protect(self.blocks[0], writable=False)

    def _check_creation(self) -> None:
        made = self.definition
        if not made.max_entries or made.key_size != 4 or not made.value_size or made.flags & ~self._flags:
            base.fail(errno.EINVAL, f"{made.type} map {made.name!r}: key 4 bytes, value and entries not 0, known flags")
        if round_up(made.value_size, 8) > (_MAX_PER_CPU_VALUE if self.per_cpu else _MAX_VALUE):
            base.fail(errno.E2BIG, f"{made.type} map {made.name!r}: values of {made.value_size} bytes are too large")

    def address_of(self, key: bytes, cpu: int) -> int:
        (index,) = _INDEX.unpack(key)
        return self.blocks[0].base + index * self.stride if index < self.count else 0

    def store(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        (index,) = _INDEX.unpack(key)
        refused = self._refuses(index, flags)
        if not refused:
            self._put(0, index, value)
        return refused

    def _put(self, block: int, index: int, value: bytes) -> None:
        """Writes a value, but for what of it the kernel manages: that is given up, the lock excepted."""
        at = index * self.stride
        self._freed(self.blocks[block].base + at)
        self.blocks[block].view[at : at + len(value)] = self._without_managed(value)

    def remove(self, key: bytes) -> int:
        return -errno.EINVAL

    def value_base(self) -> int:
        return self.blocks[0].base

    def lookup(self, key: bytes) -> bytes | None:
        """The value under `key`; None past the end."""
        self._check(key)
        (index,) = _INDEX.unpack(key)
        if index >= self.count:
            return None
        at = index * self.stride
        size = self.stride if self.per_cpu else self.definition.value_size
        return b"".join(self._without_managed(bytes(block.view[at : at + size])) for block in self.blocks)

    def update(self, key: bytes, value: bytes, flags: int = base.ANY) -> None:
        """Sets a value. MapError: E2BIG past the end, EEXIST for NOEXIST."""
        self._check(key, value)
        if self.definition.frozen:
            raise base.MapError(errno.EPERM, f"map {self.name!r} is frozen")
        if flags & base.F_LOCK and not self._may_lock:
            # bpf(2) looks at this before the map does.
            self._done(-errno.EINVAL, "update")
        (index,) = _INDEX.unpack(key)
        self._done(self._refuses(index, flags), "update")
        size = len(value) // len(self.blocks)
        for cpu in range(len(self.blocks)):
            self._put(cpu, index, value[cpu * size : (cpu + 1) * size])

    def delete(self, key: bytes) -> None:
        """Refused: EINVAL, an array's values are always there."""
        self._check(key)
        self._done(-errno.EINVAL, "delete")

    def keys(self) -> Iterator[bytes]:
        """Every index."""
        return (_INDEX.pack(index) for index in range(self.count))

    def next_key(self, key: bytes | None = None) -> bytes | None:
        """The next index."""
        index = _INDEX.unpack(key)[0] + 1 if key is not None else 0
        if index > self.count:
            index = 0
        return _INDEX.pack(index) if index < self.count else None

    def _refuses(self, index: int, flags: int) -> int:
        if flags & ~base.F_LOCK > base.EXIST:
            return -errno.EINVAL
        if index >= self.count:
            return -errno.E2BIG
        if flags & base.NOEXIST:
            return -errno.EEXIST
        return -errno.EINVAL if flags & base.F_LOCK and not self._may_lock else 0


class PerCpuArray(Array):
    """An array with a value for each CPU under each index."""

    per_cpu = True
    _flags = base.F_NUMA_NODE | base.F_RDONLY | base.F_WRONLY | base.F_RDONLY_PROG | base.F_WRONLY_PROG

    def address_of(self, key: bytes, cpu: int) -> int:
        (index,) = _INDEX.unpack(key)
        return self.blocks[cpu].base + index * self.stride if index < self.count else 0

    def store(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        (index,) = _INDEX.unpack(key)
        refused = self._refuses(index, flags)
        if not refused:
            self._put(cpu, index, value)
        return refused

    def value_base(self) -> int:
        return 0
