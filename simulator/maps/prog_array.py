"""Prog arrays: the targets of tail calls."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from simulator.maps import base
from simulator.maps.base import Map
from simulator.memory import Memory
from simulator.program import MapDef, Program

_INDEX = struct.Struct("<I")


class UnknownProgramError(KeyError):
    """A prog array names a program that its world does not have."""


class ProgArray(Map):
    """Programs by index. An entry is a Program, or the name of one of the world's.

    bpf(2) takes file descriptors and gives program ids: here `update` takes the name's bytes, and `array[index] =
    program` is the way to set an entry.
    """

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        made = definition
        if made.key_size != 4 or made.value_size != 4 or not made.max_entries or made.flags & ~_FLAGS:
            base.fail(errno.EINVAL, f"prog_array map {made.name!r}: key and value 4 bytes, entries not 0")
        self.entries: dict[int, Program | str] = dict(made.slots)

    def program_at(self, index: int, programs: Mapping[str, Program]) -> Program | None:
        """The program at `index`, None where there is none. Raises UnknownProgramError."""
        entry = self.entries.get(index) if index < self.definition.max_entries else None
        if isinstance(entry, str):
            if entry not in programs:
                raise UnknownProgramError(
                    f"prog array {self.name!r} names {entry!r} at {index}, which the world has no program of"
                )
            return programs[entry]
        return entry

    def remove(self, key: bytes) -> int:
        return 0 if self.entries.pop(_INDEX.unpack(key)[0], None) is not None else -errno.ENOENT

    def delete(self, key: bytes) -> None:
        self._check(key)
        if _INDEX.unpack(key)[0] >= self.definition.max_entries:
            self._done(-errno.E2BIG, "delete")
        self._done(self.remove(key), "delete")

    def keys(self) -> Iterator[bytes]:
        return (_INDEX.pack(index) for index in sorted(self.entries))

    def __getitem__(self, key: Any) -> Program | str:
        return self.entries[self._index(key)]

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(value, Program | str):
            raise TypeError(f"map {self.name}: an entry is a Program or a program's name, not {type(value).__name__}")
        index = self._index(key)
        if index >= self.definition.max_entries:
            self._done(-errno.E2BIG, "update")
        self.entries[index] = value

    def __delitem__(self, key: Any) -> None:
        del self.entries[self._index(key)]

    def __contains__(self, key: object) -> bool:
        return self._index(key) in self.entries

    @staticmethod
    def _index(key: Any) -> int:
        return int.from_bytes(key, "little") if isinstance(key, bytes) else int(key)


_FLAGS = base.F_NUMA_NODE | base.F_RDONLY | base.F_WRONLY
