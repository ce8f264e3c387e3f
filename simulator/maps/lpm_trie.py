"""Longest-prefix-match tries: keys are a prefix length and the bytes that it counts."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from simulator.maps import base
from simulator.maps.base import Map
from simulator.memory import Memory, Region
from simulator.program import MapDef

_LENGTH = 4
"""Bytes of the prefix length in front of a key."""

_MAX_DATA = 256
_FLAGS = base.F_NO_PREALLOC | base.F_NUMA_NODE | base.F_RDONLY | base.F_WRONLY | base.F_RDONLY_PROG | base.F_WRONLY_PROG

Prefix = tuple[int, int]
"""A prefix's length in bits, and those bits as a number."""


class LpmTrie(Map):
    """A trie. `lookup` finds the longest prefix that covers the key."""

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        made = definition
        data = made.key_size - _LENGTH
        wrong = not made.flags & base.F_NO_PREALLOC or made.flags & ~_FLAGS or not made.max_entries
        if wrong or not 1 <= data <= _MAX_DATA or not made.value_size:
            base.fail(errno.EINVAL, f"lpm_trie map {made.name!r}: F_NO_PREALLOC, a key of 5 to 260 bytes, a value")
        self._bits = data * 8
        self._memory = memory
        self._nodes: dict[Prefix, tuple[bytes, Region]] = {}

    def address_of(self, key: bytes, cpu: int) -> int:
        found = self._best(key)
        return found[1].base if found else 0

    def store(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        if flags > base.EXIST:
            return -errno.EINVAL
        if int.from_bytes(key[:_LENGTH], "little") > self._bits:
            return -errno.EINVAL
        prefix = self._prefix(key)
        node = self._nodes.get(prefix)
        if node and flags == base.NOEXIST:
            return -errno.EEXIST
        if not node and flags == base.EXIST:
            return -errno.ENOENT
        if not node and len(self._nodes) >= self.definition.max_entries:
            return -errno.ENOSPC
        region = self._memory.allocate(f"map {self.name}", self.definition.value_size)
        region.view[:] = value
        if node:
            self._memory.retire(node[1])
        self._nodes[prefix] = key, region
        return 0

    def remove(self, key: bytes) -> int:
        if int.from_bytes(key[:_LENGTH], "little") > self._bits:
            return -errno.EINVAL
        node = self._nodes.pop(self._prefix(key), None)
        if node is None:
            return -errno.ENOENT
        self._memory.retire(node[1])
        return 0

    def lookup(self, key: bytes) -> bytes | None:
        self._check(key)
        found = self._best(key)
        return bytes(found[1].view) if found else None

    def update(self, key: bytes, value: bytes, flags: int = base.ANY) -> None:
        self._check(key, value)
        self._done(self.store(key, value, flags, 0), "update")

    def delete(self, key: bytes) -> None:
        self._check(key)
        self._done(self.remove(key), "delete")

    def keys(self) -> Iterator[bytes]:
        """The prefixes as the trie is walked: what is longer before what covers it, lower bits before higher."""
        return (self._nodes[prefix][0] for prefix in sorted(self._nodes, key=self._order))

    def next_key(self, key: bytes | None = None) -> bytes | None:
        """The prefix after the one that `key` is, whatever its bytes are behind it."""
        ordered = sorted(self._nodes, key=self._order)
        known = key is not None and int.from_bytes(key[:_LENGTH], "little") <= self._bits
        at = self._prefix(key) if known and key is not None else None
        after = ordered.index(at) + 1 if at in self._nodes else 0
        return self._nodes[ordered[after]][0] if after < len(ordered) else None

    def _order(self, prefix: Prefix) -> tuple[int, int]:
        length, bits = prefix
        # The last address that a prefix covers orders a subtree before its root; among those, the longer comes first.
        return ((bits + 1) << (self._bits - length)) - 1, -length

    def _prefix(self, key: bytes) -> Prefix:
        length = min(int.from_bytes(key[:_LENGTH], "little"), self._bits)
        return length, int.from_bytes(key[_LENGTH:], "big") >> (self._bits - length)

    def _best(self, key: bytes) -> tuple[bytes, Region] | None:
        length, bits = self._prefix(key)
        if int.from_bytes(key[:_LENGTH], "little") > self._bits:
            return None
        for shorter in range(length, -1, -1):
            found = self._nodes.get((shorter, bits >> (length - shorter)))
            if found:
                return found
        return None
