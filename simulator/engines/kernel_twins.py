"""Twins of maps whose contents bpf(2) does not list by keys: queues, stacks, bloom filters, maps of maps; and which
twin a map has.

Invariant: as for every twin, the world's map is the truth between runs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from simulator.engines import bpf_syscall
from simulator.engines.bpf_syscall import Handle
from simulator.engines.engine import EngineUnavailable
from simulator.engines.kernel_maps import PLAIN_TYPES, EmptyTwin, PerfTwin, PlainTwin, ProgTwin, RingTwin, Twin
from simulator.maps.base import Map
from simulator.maps.nested import MapOfMaps
from simulator.maps.perf import PerfEventArray
from simulator.maps.prog_array import ProgArray
from simulator.maps.queue import BloomFilter, Queue
from simulator.maps.redirect import CpuMap, DevMap, DevMapHash, RedirectMap
from simulator.maps.ringbuf import RingBuffer
from simulator.maps.unmodelled import Unmodelled

if TYPE_CHECKING:
    from simulator.memory import Memory


class QueueTwin(Twin):
    """A queue or stack. Reading one takes its values out, so that they are put back."""

    def __init__(self, ours: Queue, handle: Handle) -> None:
        super().__init__(ours, handle)
        self.queue = ours
        self.held: list[bytes] = []
        """The values in the kernel's, in the order in which they were pushed."""

    def push(self) -> None:
        """Empties and fills the kernel's, where the world's is not as it is."""
        wanted = self.queue.pushed
        if wanted == self.held:
            return
        self._taken()
        self._put(wanted)

    def pull(self) -> None:
        """Takes over what the run left."""
        found = self._taken()
        self._put(found)
        if found != self.queue.pushed:
            self.queue.refill(found)

    def _taken(self) -> list[bytes]:
        """Every value, taken out of the kernel's, in the order in which they were pushed."""
        found, size = [], self.ours.definition.value_size
        while (value := bpf_syscall.map_take(self.handle.fd, None, size)) is not None:
            found.append(value)
        return found[::-1] if self.queue.last_first else found

    def _put(self, values: list[bytes]) -> None:
        for value in values:
            bpf_syscall.map_update(self.handle.fd, None, value)
        self.held = values


class BloomTwin(Twin):
    """A bloom filter: the world's values are put in; what a program pushes cannot be read out of the kernel's again."""

    def __init__(self, ours: BloomFilter, handle: Handle) -> None:
        super().__init__(ours, handle)
        self.filter = ours
        self.held: set[bytes] = set()

    def push(self) -> None:
        """Puts in what is new."""
        for value in self.filter.pushed - self.held:
            bpf_syscall.map_update(self.handle.fd, None, value)
        self.held |= self.filter.pushed


class TargetTwin(Twin):
    """A map of interfaces or CPUs by number, which programs read and never change; the host has to have them."""

    def __init__(self, ours: RedirectMap, handle: Handle) -> None:
        super().__init__(ours, handle)
        self.targets = ours
        self.held: dict[bytes, bytes] = {}

    def push(self) -> None:
        """Enters new targets, takes out old ones. A target with a program of its own is refused by name."""
        wanted = {key: self.targets.lookup(key) or b"" for key in self.targets.keys()}  # noqa: SIM118 (keys as bytes)
        for key in self.held.keys() - wanted.keys():
            bpf_syscall.map_delete(self.handle.fd, key)
        for key, value in wanted.items():
            if any(value[4:]):
                raise EngineUnavailable(f"map {self.ours.name!r} has a target with a program of its own")
            if self.held.get(key) != value:
                bpf_syscall.map_update(self.handle.fd, key, value[:4].ljust(self.ours.definition.value_size, b"\0"))
        self.held = wanted


class NestedTwin(Twin):
    """A map of maps: its entries are twins of the world's maps, which programs read and never change."""

    def __init__(self, ours: MapOfMaps, handle: Handle, twin: Callable[[Map], Handle]) -> None:
        super().__init__(ours, handle)
        self.outer = ours
        self.twin = twin
        self.held: dict[bytes, Map] = {}

    def push(self) -> None:
        """Enters new maps, takes out old ones."""
        wanted = self.outer.entries
        for key in self.held.keys() - wanted.keys():
            bpf_syscall.map_delete(self.handle.fd, key)
        for key, inner in wanted.items():
            if self.held.get(key) is not inner:
                bpf_syscall.map_update(self.handle.fd, key, struct.pack("<i", self.twin(inner).fd))
        self.held = dict(wanted)


def twin_of(
    ours: Map,
    handle: Handle,
    memory: Memory,
    load: Callable[[ProgArray, int], Handle | None],
    inner: Callable[[Map], Handle],
) -> Twin:
    """The twin for a map of this type; `load` loads the program at an index of a prog array, `inner` makes the twin of
    a map that is in a map."""
    match ours:
        case ProgArray():
            return ProgTwin(ours, handle, load)
        case PerfEventArray():
            return PerfTwin(ours, handle)
        case RingBuffer():
            return RingTwin(ours, handle, memory)
        case Queue():
            return QueueTwin(ours, handle)
        case BloomFilter():
            return BloomTwin(ours, handle)
        case MapOfMaps():
            return NestedTwin(ours, handle, inner)
        case DevMap() | DevMapHash() | CpuMap():
            return TargetTwin(ours, handle)
    if ours.definition.type in PLAIN_TYPES and not isinstance(ours, Unmodelled):
        return PlainTwin(ours, handle)
    return EmptyTwin(ours, handle)
