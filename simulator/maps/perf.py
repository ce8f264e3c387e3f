"""Perf event arrays: a stream of samples for each CPU."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from simulator.maps import base
from simulator.maps.base import Map
from simulator.maps.hash import ENOTSUPP
from simulator.memory import Memory
from simulator.program import MapDef


class PerfEventArray(Map):
    """A perf event array whose entries are all open: each CPU's reader is there, as perf_buffer__new makes them.

    `read` takes the samples of a CPU, or of all in the order in which they came: as the kernel hands them over, filled
    up with zeros so that their length is four less than a multiple of eight. `closed` are indices without a reader:
    output there is refused.
    """

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        super().__init__(definition, memory, cpus)
        made = definition
        if made.key_size != 4 or made.value_size != 4 or made.flags & ~_FLAGS:
            base.fail(errno.EINVAL, f"perf_event_array map {made.name!r}: key and value 4 bytes")
        # libbpf makes as many entries as there are CPUs where an object asks for none.
        self.entries = made.max_entries or cpus
        self.closed: set[int] = set()
        self._samples: list[tuple[int, bytes]] = []

    def output(self, index: int, cpu: int, sample: bytes) -> int:
        """A sample for the reader at `index`, from a program on `cpu`."""
        if index >= self.entries:
            return -errno.E2BIG
        if index in self.closed:
            return -errno.ENOENT
        if index != cpu:
            return -errno.EOPNOTSUPP
        self._samples.append((index, sample.ljust(base.round_up(len(sample) + _LENGTH, 8) - _LENGTH, b"\0")))
        return 0

    def read(self, cpu: int | None = None) -> list[bytes]:
        """Takes the samples that came, of one CPU or of all."""
        taken = [sample for index, sample in self._samples if cpu in (None, index)]
        self._samples = [entry for entry in self._samples if cpu not in (None, entry[0])]
        return taken

    @property
    def records(self) -> list[bytes]:
        """The samples of all CPUs, left in."""
        return [sample for _, sample in self._samples]

    def lookup(self, key: bytes) -> bytes | None:
        """Refused with the kernel's own ENOTSUPP: nobody reads an event out of the map."""
        self._check(key)
        raise base.MapError(ENOTSUPP, f"a {self.definition.type} map has no lookup")

    def delete(self, key: bytes) -> None:
        """Closes the reader of an index: ENOENT where there is none, E2BIG past the end."""
        self._check(key)
        index = int.from_bytes(key, "little")
        if index >= self.entries:
            self._done(-errno.E2BIG, "delete")
        if index in self.closed:
            self._done(-errno.ENOENT, "delete")
        self.closed.add(index)

    def keys(self) -> Iterator[bytes]:
        return (struct.pack("<I", index) for index in range(self.entries) if index not in self.closed)


_LENGTH = 4
"""Bytes of a sample's length, which stands before it."""

_FLAGS = base.F_NUMA_NODE | base.F_RDONLY | base.F_WRONLY | base.F_PRESERVE_ELEMS
