"""Maps of sockets: sockmap, sockhash, reuseport_sockarray; what they hold are the world's sockets."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from simulator.maps import base, typed
from simulator.maps.base import Map
from simulator.memory import Memory
from simulator.program import MapDef

if TYPE_CHECKING:
    from simulator.sockets import Socket

_MAX_KEY = 512
_COOKIE = 8


class SocketMap(Map):
    """Sockets by key: `world.maps.m[0] = socket`. A program's lookup gives the socket's address."""

    indexed = True
    _flags = base.F_NUMA_NODE | base.F_RDONLY | base.F_WRONLY

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        made = definition
        wrong = not made.max_entries or made.value_size not in (4, 8) or made.flags & ~self._flags or not made.key_size
        if wrong or (self.indexed and made.key_size != 4):
            base.fail(errno.EINVAL, f"{made.type} map {made.name!r}: key, entries, a value of 4 or 8 bytes")
        if made.key_size > _MAX_KEY:
            base.fail(errno.E2BIG, f"{made.type} map {made.name!r}: a key of {made.key_size} bytes")
        self._sockets: dict[bytes, Socket] = {}

    def address_of(self, key: bytes, cpu: int) -> int:
        found = self._sockets.get(key)
        return found.address if found is not None else 0

    def socket_at(self, key: bytes) -> Socket | None:
        """The socket under a key, None where there is none."""
        return self._sockets.get(key)

    def put(self, key: bytes, socket: Socket, flags: int) -> int:
        """Puts a socket in; 0 or a negative error number."""
        if flags > base.EXIST:
            return -errno.EINVAL
        if self.indexed and int.from_bytes(key, "little") >= self.definition.max_entries:
            return -errno.E2BIG
        there = key in self._sockets
        if there and flags == base.NOEXIST:
            return -errno.EEXIST
        if not there and flags == base.EXIST:
            return -errno.ENOENT
        if not there and len(self._sockets) >= self.definition.max_entries:
            return -errno.E2BIG
        self._sockets[key] = socket
        return 0

    def remove(self, key: bytes) -> int:
        if self._sockets.pop(key, None) is not None:
            return 0
        return -errno.EINVAL if self.indexed else -errno.ENOENT

    def lookup(self, key: bytes) -> bytes | None:
        """The socket's cookie: ENOSPC where a value has no room for it."""
        self._check(key)
        if self.definition.value_size != _COOKIE:
            self._done(-errno.ENOSPC, "lookup")
        found = self._sockets.get(key)
        return None if found is None else found.cookie.to_bytes(_COOKIE, "little")

    def delete(self, key: bytes) -> None:
        self._check(key)
        self._done(self.remove(key), "delete")

    def keys(self) -> Iterator[bytes]:
        return iter(list(self._sockets))

    def __getitem__(self, key: Any) -> Socket:
        return self._sockets[typed.to_key(self, key)]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._done(self.put(typed.to_key(self, key), value, base.ANY), "update")

    def __delitem__(self, key: Any) -> None:
        del self._sockets[typed.to_key(self, key)]

    def __contains__(self, key: object) -> bool:
        return typed.to_key(self, key) in self._sockets


class SocketHash(SocketMap):
    """Sockets by any key."""

    indexed = False


class ReuseportArray(SocketMap):
    """The sockets of a group that shares a port, by index."""

    _flags = SocketMap._flags | base.F_RDONLY_PROG | base.F_WRONLY_PROG
