"""Maps of maps: an array or a hash whose values are maps."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import Any

from simulator.maps import base, typed
from simulator.maps.base import Map
from simulator.memory import Memory
from simulator.program import MapDef

_INDEX = struct.Struct("<I")


class MapOfMaps(Map):
    """Maps by key. `outer[key] = world.maps.inner` sets one; a program's lookup gives the inner map's own handle.

    bpf(2) takes file descriptors and gives ids; here maps are themselves. An inner map has the shape of the template.
    """

    array = False

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        made = definition
        if made.inner is None or made.value_size != 4 or not made.key_size or not made.max_entries:
            base.fail(errno.EINVAL, f"{made.type} map {made.name!r}: an inner map, a value of 4 bytes, key and entries")
        if self.array and made.key_size != 4:
            base.fail(errno.EINVAL, f"{made.type} map {made.name!r}: a key of 4 bytes")
        self._maps: dict[bytes, Map] = {}

    def address_of(self, key: bytes, cpu: int) -> int:
        found = self._maps.get(key)
        return found.handle if found is not None else 0

    def remove(self, key: bytes) -> int:
        return 0 if self._maps.pop(key, None) is not None else -errno.ENOENT

    def set(self, key: bytes, inner: Map, flags: int = base.ANY) -> None:
        """Puts a map under a key. MapError: EINVAL for one of another shape, E2BIG for no room, EEXIST, ENOENT."""
        if len(key) != self.definition.key_size:
            raise ValueError(f"map {self.name}: a key has {self.definition.key_size} bytes, not {len(key)}")
        template = self.definition.inner
        assert template is not None
        if flags > (base.ANY if self.array else base.EXIST):
            self._done(-errno.EINVAL, "update")
        if self._is_past_the_end(key):
            self._done(-errno.E2BIG, "update")
        if not self._fits(template, inner.definition):
            self._done(-errno.EINVAL, f"update with {inner!r}")
        there = key in self._maps
        if there and flags == base.NOEXIST:
            self._done(-errno.EEXIST, "update")
        if not there and flags == base.EXIST:
            self._done(-errno.ENOENT, "update")
        if not there and len(self._maps) >= self.definition.max_entries:
            self._done(-errno.E2BIG, "update")
        self._maps[key] = inner

    @property
    def entries(self) -> dict[bytes, Map]:
        """The maps by their keys."""
        return dict(self._maps)

    @staticmethod
    def _fits(template: MapDef, inner: MapDef) -> bool:
        """The kernel's test: type, sizes and flags alike; entries only of arrays without F_INNER_MAP."""
        if (template.type, template.key_size, template.value_size, template.flags) != (
            inner.type, inner.key_size, inner.value_size, inner.flags,
        ):  # fmt: skip
            return False
        fixed = inner.type == "array" and not inner.flags & base.F_INNER_MAP
        return not fixed or template.max_entries == inner.max_entries

    def delete(self, key: bytes) -> None:
        self._check(key)
        self._done(-errno.E2BIG if self._is_past_the_end(key) else self.remove(key), "delete")

    def _is_past_the_end(self, key: bytes) -> bool:
        return bool(self.array and _INDEX.unpack(key)[0] >= self.definition.max_entries)

    def keys(self) -> Iterator[bytes]:
        if self.array:
            return (_INDEX.pack(index) for index in range(self.definition.max_entries))
        return iter(list(self._maps))

    def __getitem__(self, key: Any) -> Map:
        found = self._maps.get(typed.to_key(self, key))
        if found is None:
            raise KeyError(key)
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(value, Map):
            raise TypeError(f"map {self.name}: an entry is a map, not {type(value).__name__}")
        self.set(typed.to_key(self, key), value)

    def __delitem__(self, key: Any) -> None:
        del self._maps[typed.to_key(self, key)]

    def __contains__(self, key: object) -> bool:
        return typed.to_key(self, key) in self._maps

    def __iter__(self) -> Iterator[Any]:
        return (typed.from_key(self, key) for key in list(self._maps))

    def __len__(self) -> int:
        return len(self._maps)


class ArrayOfMaps(MapOfMaps):
    """Maps by index."""

    array = True


class HashOfMaps(MapOfMaps):
    """Maps by key."""
