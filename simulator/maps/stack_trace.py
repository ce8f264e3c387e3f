"""Stack trace maps: traces by their id."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from zlib import crc32

from simulator.maps import base
from simulator.maps.base import Map
from simulator.memory import Memory
from simulator.program import MapDef

_REUSE, _FAST_COMPARE = 1 << 10, 1 << 9
_MAX_DEPTH = 127


class StackTraceMap(Map):
    """Traces by id, which is a hash of the trace, so that the same trace has the same id."""

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        made = definition
        flags = base.F_NUMA_NODE | base.F_RDONLY | base.F_WRONLY | base.F_STACK_BUILD_ID
        wrong = made.key_size != 4 or not made.max_entries or made.flags & ~flags
        if wrong or made.value_size < 8 or made.value_size % 8 or made.value_size // 8 > _MAX_DEPTH:
            base.fail(errno.EINVAL, f"stack_trace map {made.name!r}: key 4 bytes, a value of 8 to 1016 in eights")
        self._traces: dict[int, bytes] = {}
        self._buckets = 1 << (made.max_entries - 1).bit_length()

    def add(self, addresses: tuple[int, ...], flags: int) -> int:
        """The id of a trace; EEXIST where another one has it and is not to be replaced, EFAULT for an empty one."""
        data = struct.pack(f"<{len(addresses)}Q", *addresses)[: self.definition.value_size]
        if not data:
            return -errno.EFAULT
        number = crc32(data) & (self._buckets - 1)
        there = self._traces.get(number)
        if there not in (None, data) and not flags & (_REUSE | _FAST_COMPARE):
            return -errno.EEXIST
        self._traces[number] = data
        return number

    def lookup(self, key: bytes) -> bytes | None:
        self._check(key)
        found = self._traces.get(int.from_bytes(key, "little"))
        return None if found is None else found.ljust(self.definition.value_size, b"\0")

    def delete(self, key: bytes) -> None:
        self._check(key)
        number = int.from_bytes(key, "little")
        if number >= self._buckets:
            self._done(-errno.E2BIG, "delete")
        self._done(0 if self._traces.pop(number, None) else -errno.ENOENT, "delete")

    def keys(self) -> Iterator[bytes]:
        return (number.to_bytes(4, "little") for number in sorted(self._traces))
