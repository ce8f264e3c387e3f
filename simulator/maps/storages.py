"""Local storage: a value for each owner (a socket, a task, an inode, a cgroup), made when a program asks for it.

bpf(2) names an owner by a file descriptor; here it is the owner's address, or the object that has one.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from simulator.maps import base, typed
from simulator.maps.base import Map
from simulator.memory import Memory, Region
from simulator.program import MapDef

_MAX_VALUE = 0xFFFF - 512


class Storage(Map):
    """Values by the address of their owner. `world.maps.m[owner]` reads and sets one from outside."""

    per_cpu = False
    _flags = base.F_NO_PREALLOC | base.F_CLONE

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        self._check_creation()
        self._memory = memory
        self._values: dict[int, list[Region]] = {}

    def _check_creation(self) -> None:
        made = self.definition
        wrong = made.flags & ~self._flags or not made.flags & base.F_NO_PREALLOC or made.max_entries
        if wrong or made.key_size != 4 or not made.value_size:
            base.fail(errno.EINVAL, f"{made.type} map {made.name!r}: F_NO_PREALLOC, a key of 4 bytes, no entries")
        if not made.btf_key or not made.btf_value:
            base.fail(errno.EINVAL, f"{made.type} map {made.name!r}: BTF types of key and value")
        if made.value_size > _MAX_VALUE:
            base.fail(errno.E2BIG, f"{made.type} map {made.name!r}: a value of {made.value_size} bytes")

    def find(self, owner: int, cpu: int = 0) -> int:
        """The address of an owner's value, 0 where it has none."""
        values = self._values.get(owner)
        return values[cpu if self.per_cpu else 0].base if values else 0

    def make(self, owner: int, value: bytes = b"", cpu: int = 0) -> int:
        """The same, made with these bytes where it is not there."""
        if owner not in self._values:
            size, copies = self.definition.value_size, self.cpus if self.per_cpu else 1
            regions = [self._memory.allocate(f"map {self.name}", size) for _ in range(copies)]
            regions[0].view[: len(value)] = value
            self._values[owner] = regions
        return self.find(owner, cpu)

    def drop(self, owner: int) -> int:
        """Takes an owner's value away: ENOENT where it has none."""
        values = self._values.pop(owner, None)
        if values is None:
            return -errno.ENOENT
        for region in values:
            self._memory.retire(region)
        return 0

    def keys(self) -> Iterator[bytes]:
        return (owner.to_bytes(8, "little") for owner in self._values)

    def __getitem__(self, key: Any) -> Any:
        values = self._values.get(_address(key))
        if values is None:
            raise KeyError(key)
        return typed.decode(self, bytes(values[0].view), self.definition.btf_value)

    def __setitem__(self, key: Any, value: Any) -> None:
        made = self.definition
        data = typed.encode(self, value, made.btf_value, made.value_size, "value")
        self.make(_address(key))
        self._values[_address(key)][0].view[:] = data

    def __delitem__(self, key: Any) -> None:
        if self.drop(_address(key)):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return _address(key) in self._values

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._values))

    def __len__(self) -> int:
        return len(self._values)


def _address(key: Any) -> int:
    return key if isinstance(key, int) else int(key.address)


class CgroupStorage(Storage):
    """The value that a program of a cgroup has there: zeros before it is first asked for."""

    _flags = base.F_NUMA_NODE | base.F_RDONLY | base.F_WRONLY | base.F_RDONLY_PROG | base.F_WRONLY_PROG

    def _check_creation(self) -> None:
        made = self.definition
        if made.key_size not in (8, 16) or not made.value_size:
            base.fail(errno.EINVAL, f"{made.type} map {made.name!r}: a key of 8 or 16 bytes, a value")
        if made.value_size > (_PER_CPU_LIMIT if self.per_cpu else _MAX_VALUE):
            base.fail(errno.E2BIG, f"{made.type} map {made.name!r}: a value of {made.value_size} bytes")
        if made.max_entries or made.flags & ~self._flags:
            base.fail(errno.EINVAL, f"{made.type} map {made.name!r}: no entries, known flags")


_PER_CPU_LIMIT = 32 << 10


class PerCpuCgroupStorage(CgroupStorage):
    """The same with a value for each CPU."""

    per_cpu = True
