"""Maps of redirection: interfaces, CPUs and sockets by number, which bpf_redirect_map sends packets to."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from simulator.maps import base
from simulator.maps.base import Map
from simulator.memory import Memory, Region
from simulator.program import MapDef

_INDEX = struct.Struct("<I")
_LONGEST_QUEUE = 16384
_FLAGS = base.F_NUMA_NODE | base.F_RDONLY | base.F_WRONLY


class RedirectMap(Map):
    """Targets by index: the interface's number, the CPU's queue size, the socket.

    `broadcasts` says that a redirect may go to all of them. A program that looks a target up gets a copy to read.
    """

    sizes: tuple[int, ...] = (4, 8)
    broadcasts = False
    readable = True

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        made = definition
        if not made.max_entries or made.key_size != 4 or made.value_size not in self.sizes or made.flags & ~_FLAGS:
            base.fail(errno.EINVAL, f"{made.type} map {made.name!r}: key 4 bytes, value {self.sizes}, entries not 0")
        self._memory = memory
        self._targets: dict[int, Region] = {}

    def has(self, index: int) -> bool:
        """Whether there is a target at this index."""
        return index in self._targets

    def address_of(self, key: bytes, cpu: int) -> int:
        target = self._targets.get(_INDEX.unpack(key)[0])
        return target.base if target is not None else 0

    def lookup(self, key: bytes) -> bytes | None:
        self._check(key)
        target = self._targets.get(_INDEX.unpack(key)[0])
        return bytes(target.view) if target is not None else None

    def update(self, key: bytes, value: bytes, flags: int = base.ANY) -> None:
        self._check(key, value)
        (index,) = _INDEX.unpack(key)
        self._done(self._refuses(index, flags), "update")
        if not any(value[:4]):
            self._drop(index)
            return
        region = self._targets.get(index)
        if region is None:
            region = self._memory.allocate(f"map {self.name} entry", self.definition.value_size, writable=False)
            self._targets[index] = region
        region.view[:] = value

    def delete(self, key: bytes) -> None:
        self._check(key)
        (index,) = _INDEX.unpack(key)
        if self._bounded and index >= self.definition.max_entries:
            self._done(-errno.EINVAL, "delete")
        self._drop(index)

    def remove(self, key: bytes) -> int:
        self._drop(_INDEX.unpack(key)[0])
        return 0

    def keys(self) -> Iterator[bytes]:
        return (_INDEX.pack(index) for index in list(self._targets))

    @property
    def _bounded(self) -> bool:
        return True

    def _refuses(self, index: int, flags: int) -> int:
        if flags > base.EXIST:
            return -errno.EINVAL
        if index >= self.definition.max_entries:
            return -errno.E2BIG
        return -errno.EEXIST if flags == base.NOEXIST else 0

    def _drop(self, index: int) -> None:
        region = self._targets.pop(index, None)
        if region is not None:
            self._memory.free(region)


class DevMap(RedirectMap):
    """Interfaces by index."""

    broadcasts = True


class DevMapHash(RedirectMap):
    """Interfaces by any number."""

    broadcasts = True

    @property
    def _bounded(self) -> bool:
        return False

    def delete(self, key: bytes) -> None:
        self._check(key)
        (index,) = _INDEX.unpack(key)
        if index not in self._targets:
            self._done(-errno.ENOENT, "delete")
        self._drop(index)

    def _refuses(self, index: int, flags: int) -> int:
        if flags > base.EXIST:
            return -errno.EINVAL
        if index in self._targets:
            return -errno.EEXIST if flags == base.NOEXIST else 0
        return -errno.E2BIG if len(self._targets) >= self.definition.max_entries else 0


class CpuMap(RedirectMap):
    """CPUs by number; the value is the length of the queue to it."""

    def update(self, key: bytes, value: bytes, flags: int = base.ANY) -> None:
        self._check(key, value)
        (index,) = _INDEX.unpack(key)
        refused = self._refuses(index, flags)
        if not refused and int.from_bytes(value[:4], "little") > _LONGEST_QUEUE:
            refused = -errno.EOVERFLOW
        if not refused and index >= self.cpus:
            refused = -errno.ENODEV
        self._done(refused, "update")
        super().update(key, value, flags)


class XskMap(RedirectMap):
    """Sockets of AF_XDP by queue. bpf(2) does not show them."""

    sizes = (4,)

    def lookup(self, key: bytes) -> bytes | None:
        raise self._refused("lookup")
