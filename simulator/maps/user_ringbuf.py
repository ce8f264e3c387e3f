"""User ring buffers: samples that user space writes and a program drains."""

from __future__ import annotations

import errno

from simulator.maps import base
from simulator.maps.base import Map, round_up
from simulator.memory import Memory
from simulator.program import MapDef

_HEADER = 8
_PAGE = 4096


class UserRingBuffer(Map):
    """A user ring buffer. `write` puts a sample in, as user_ring_buffer__submit does; `samples` are those that wait."""

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        made, size = definition, definition.max_entries
        if made.flags & ~base.F_NUMA_NODE or made.key_size or made.value_size:
            base.fail(errno.EINVAL, f"user_ringbuf map {made.name!r} has no key, no value and no flags")
        if not size or size & (size - 1) or size % _PAGE:
            base.fail(errno.EINVAL, f"user_ringbuf map {made.name!r}: a power of two of bytes, in whole pages")
        self.samples: list[bytes] = []

    def write(self, sample: bytes) -> None:
        """Puts a sample in. MapError: ENOSPC where it does not fit, E2BIG where it never would."""
        needed = round_up(len(sample) + _HEADER, 8)
        taken = sum(round_up(len(one) + _HEADER, 8) for one in self.samples)
        if needed > self.definition.max_entries:
            self._done(-errno.E2BIG, "write")
        if taken + needed > self.definition.max_entries:
            self._done(-errno.ENOSPC, "write")
        self.samples.append(bytes(sample))
