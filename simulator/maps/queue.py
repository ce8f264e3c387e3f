"""Queues, stacks and bloom filters: maps without keys."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from simulator.maps import base
from simulator.maps.base import Map
from simulator.memory import Memory
from simulator.program import MapDef

_FLAGS = base.F_NUMA_NODE | base.F_RDONLY | base.F_WRONLY | base.F_RDONLY_PROG | base.F_WRONLY_PROG
_MAX_VALUE = (1 << 22) - 512
"""Bytes of a value: KMALLOC_MAX_SIZE of x86-64, less what the kernel keeps beside it."""


class Queue(Map):
    """First in, first out. BPF_EXIST lets a push into a full queue drop the oldest value."""

    last_first = False

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        made = definition
        if not made.max_entries or made.key_size or not made.value_size or made.flags & ~_FLAGS:
            base.fail(errno.EINVAL, f"{made.type} map {made.name!r}: no key, value and entries not 0")
        if made.value_size > _MAX_VALUE:
            base.fail(errno.E2BIG, f"{made.type} map {made.name!r}: a value of {made.value_size} bytes")
        self._values: list[bytes] = []

    def push(self, value: bytes, flags: int) -> int:
        if flags not in (base.ANY, base.EXIST):
            return -errno.EINVAL
        if len(self._values) >= self.definition.max_entries:
            if flags != base.EXIST:
                return -errno.E2BIG
            del self._values[0]
        self._values.append(bytes(value))
        return 0

    def pop(self, value: bytes) -> tuple[int, bytes | None]:
        result, found = self.peek(value)
        if not result:
            del self._values[-1 if self.last_first else 0]
        return result, found

    def peek(self, value: bytes) -> tuple[int, bytes | None]:
        if not self._values:
            return -errno.ENOENT, bytes(self.definition.value_size)
        return 0, self._values[-1 if self.last_first else 0]

    def store(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        return -errno.EINVAL

    def remove(self, key: bytes) -> int:
        return -errno.EINVAL

    def lookup(self, key: bytes = b"") -> bytes | None:
        """The next value, left in."""
        self._check(key)
        return None if not self._values else self.peek(b"")[1]

    def update(self, key: bytes, value: bytes, flags: int = base.ANY) -> None:
        """Pushes."""
        self._check(key, value)
        self._done(self.push(value, flags), "push")

    @property
    def pushed(self) -> list[bytes]:
        """The values in the order in which they were pushed."""
        return list(self._values)

    def refill(self, values: list[bytes]) -> None:
        """Makes these its values, as if they had been pushed one after the other."""
        self._values = list(values)

    def take(self) -> bytes | None:
        """Takes the next value out; None where there is none."""
        result, value = self.pop(b"")
        return None if result else value

    def delete(self, key: bytes) -> None:
        self._done(-errno.EINVAL, "delete")

    def keys(self) -> Iterator[bytes]:
        raise base.MapError(errno.EINVAL, f"a {self.definition.type} map has no keys")

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values[::-1] if self.last_first else self._values)

    def __len__(self) -> int:
        return len(self._values)


class Stack(Queue):
    """Last in, first out."""

    last_first = True


class BloomFilter(Map):
    """Values that were pushed, and by the kernel's hashing sometimes others: this one has those alone."""

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        made, flags = definition, _FLAGS | base.F_ZERO_SEED
        wrong = made.key_size or not made.value_size or not made.max_entries or made.flags & ~flags
        if wrong or made.extra > 15:
            base.fail(errno.EINVAL, f"bloom_filter map {made.name!r}: no key, value and entries, 15 hashes at most")
        self._values: set[bytes] = set()

    def push(self, value: bytes, flags: int) -> int:
        if flags != base.ANY:
            return -errno.EINVAL
        self._values.add(bytes(value))
        return 0

    def peek(self, value: bytes) -> tuple[int, bytes | None]:
        return (0 if bytes(value) in self._values else -errno.ENOENT), None

    def store(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        return -errno.EINVAL

    def update(self, key: bytes, value: bytes, flags: int = base.ANY) -> None:
        """Pushes."""
        self._check(key, value)
        self._done(self.push(value, flags), "push")

    @property
    def pushed(self) -> set[bytes]:
        """The values that were pushed."""
        return set(self._values)

    def __contains__(self, value: object) -> bool:
        from simulator.maps import typed

        return typed.to_value(self, value) in self._values

    def keys(self) -> Iterator[bytes]:
        raise base.MapError(errno.EOPNOTSUPP, "a bloom_filter map has no keys")

    def __len__(self) -> int:
        return len(self._values)
