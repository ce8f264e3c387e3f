"""The maps of a world and their twins in the kernel, kept equal: into the kernel before a run, out of it after.

Invariant: between runs the world's map is the truth. A twin remembers what the kernel's map holds, so that only what
differs is written; a map that cannot be carried over is refused by name, never left behind in silence.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from simulator.engines import bpf_syscall
from simulator.engines.bpf_syscall import Handle, possible_cpus
from simulator.engines.engine import EngineUnavailable
from simulator.engines.kernel_perf import SampleReader
from simulator.maps.base import Map, round_up
from simulator.maps.perf import PerfEventArray
from simulator.maps.prog_array import ProgArray
from simulator.maps.ringbuf import RingBuffer

if TYPE_CHECKING:
    from simulator.memory import Memory
    from simulator.program import Program

PAGE: Final = mmap.PAGESIZE

PLAIN_TYPES: Final = frozenset(
    {"array", "hash", "lru_hash", "percpu_array", "percpu_hash", "lru_percpu_hash", "lpm_trie"}
)
"""Map types whose contents are keys and values of bytes on both sides."""

_BUSY, _DISCARD = 1 << 31, 1 << 30


class Twin:
    """A world's map and the kernel's, and how the contents get from one to the other."""

    def __init__(self, ours: Map, handle: Handle) -> None:
        self.ours = ours
        self.handle = handle

    def push(self) -> None:
        """Makes the kernel's map as the world's is."""
        raise NotImplementedError

    def pull(self) -> None:
        """Makes the world's map as the kernel's is; a kind that programs cannot change has nothing to do."""


class PlainTwin(Twin):
    """Keys and values. `held` is what the kernel's map holds, as far as we know: after a pull it is exact."""

    def __init__(self, ours: Map, handle: Handle) -> None:
        super().__init__(ours, handle)
        made = ours.definition
        self.fixed = made.frozen
        self.kernel_cpus = possible_cpus() if ours.per_cpu else 1
        self.value_size = round_up(made.value_size, 8) * self.kernel_cpus if ours.per_cpu else made.value_size
        self.held: dict[bytes, bytes] = {}
        if made.type in ("array", "percpu_array"):
            self.held = {key: bytes(self.value_size) for key in ours.keys()}  # noqa: SIM118 (iteration gives typed keys)
        if made.init is not None:
            self.held = {bytes(4): made.init.ljust(self.value_size, b"\0")}

    def push(self) -> None:
        """Writes and deletes what differs."""
        if self.fixed:
            return
        wanted = {key: self._to_kernel(value) for key, value in self.ours.raw_items()}
        for key in self.held.keys() - wanted.keys():
            bpf_syscall.map_delete(self.handle.fd, key)
        for key, value in wanted.items():
            if self.held.get(key) != value:
                bpf_syscall.map_update(self.handle.fd, key, value)
        self.held = wanted

    def pull(self) -> None:
        """Takes over what the run changed."""
        if self.fixed:
            return
        made = self.ours.definition
        found = bpf_syscall.map_dump(self.handle.fd, made.key_size, self.value_size, len(self.held))
        for key in self.held.keys() - found.keys():
            self.ours.delete(key)
        for key, value in found.items():
            if self.held.get(key) != value:
                self.ours.update(key, self._to_world(value))
        self.held = found

    def _to_kernel(self, value: bytes) -> bytes:
        """A per-CPU value with a place for each CPU of the kernel's; others as they are."""
        if not self.ours.per_cpu:
            return value
        if len(value) > self.value_size and any(value[self.value_size :]):
            name, ours, theirs = self.ours.name, self.ours.cpus, self.kernel_cpus
            raise EngineUnavailable(f"map {name!r} has values on {ours} CPUs, and this kernel has {theirs}")
        return value[: self.value_size].ljust(self.value_size, b"\0")

    def _to_world(self, value: bytes) -> bytes:
        size = self.ours.user_value_size
        return value[:size].ljust(size, b"\0") if self.ours.per_cpu else value


class ProgTwin(Twin):
    """A prog array: its entries are loaded into the kernel, which never changes them."""

    def __init__(self, ours: ProgArray, handle: Handle, load: Callable[[ProgArray, int], Handle | None]) -> None:
        super().__init__(ours, handle)
        self.entries = ours
        self.load = load
        self.held: dict[int, Program | str] = {}

    def push(self) -> None:
        """Loads and enters new targets, takes out old ones."""
        wanted = dict(self.entries.entries)
        for index in [index for index in self.held if index not in wanted]:
            bpf_syscall.map_delete(self.handle.fd, struct.pack("<I", index))
            del self.held[index]
        for index, entry in wanted.items():
            if self.held.get(index) is entry:
                continue
            self.held[index] = entry
            target = self.load(self.entries, index)
            if target is not None:
                bpf_syscall.map_update(self.handle.fd, struct.pack("<I", index), struct.pack("<i", target.fd))


class RingTwin(Twin):
    """A ring buffer: the kernel's reader stands where the world's does, and what was produced since is carried over.

    Positions count from where the world's buffer stood when the kernel's was made, for that one begins empty.
    """

    def __init__(self, ours: RingBuffer, handle: Handle, memory: Memory) -> None:
        super().__init__(ours, handle)
        self.ring = ours
        self.memory = memory
        self.origin = ours.produced
        size = ours.definition.max_entries
        self.consumer = bpf_syscall.map_mmap(handle.fd, PAGE, writable=True)
        self.producer = bpf_syscall.map_mmap(handle.fd, PAGE + 2 * size, writable=False, offset=PAGE)

    def push(self) -> None:
        """Puts the kernel's reader where the world's is."""
        if self.ring.full:
            raise EngineUnavailable(
                f"ring buffer {self.ours.name!r} is said to be full, and the kernel's cannot be: use another engine"
            )
        if self.ring.consumed < self.origin or self.ring.produced - self.origin != self._produced():
            raise EngineUnavailable(
                f"ring buffer {self.ours.name!r} holds records of another engine, which the kernel's cannot be given: "
                "read them first"
            )
        struct.pack_into("<Q", self.consumer, 0, self.ring.consumed - self.origin)

    def pull(self) -> None:
        """Carries new records over, discarded ones too, for they take room."""
        produced, mask = self._produced(), self.ring.definition.max_entries - 1
        while self.ring.produced - self.origin < produced:
            at = (self.ring.produced - self.origin) & mask
            (head,) = struct.unpack_from("<I", self.producer, PAGE + at)
            size = head & ~(_BUSY | _DISCARD)
            data = self.producer[PAGE + at + 8 : PAGE + at + 8 + size]
            address = self.ring.reserve(size)
            if not address or head & _BUSY:
                raise RuntimeError(f"ring buffer {self.ours.name!r}: our positions are no longer the kernel's")
            self.memory.write(address, data)
            self.ring.commit(address, discard=bool(head & _DISCARD))

    def _produced(self) -> int:
        position: int = struct.unpack_from("<Q", self.producer, 0)[0]
        return position


class PerfTwin(Twin):
    """A perf event array: a reader for each CPU, whose samples go to the world's readers."""

    def __init__(self, ours: PerfEventArray, handle: Handle) -> None:
        super().__init__(ours, handle)
        self.array = ours
        self.readers: dict[int, SampleReader] = {}

    def push(self) -> None:
        """Opens and closes the readers that the world opened and closed."""
        open_ones = (struct.unpack("<I", key)[0] for key in self.array.keys())  # noqa: SIM118 (keys as bytes)
        wanted = set(open_ones) & set(range(possible_cpus()))
        for cpu in [cpu for cpu, reader in self.readers.items() if reader.worn]:
            self.readers.pop(cpu).close()
        for cpu in wanted - self.readers.keys():
            reader = self.readers[cpu] = SampleReader(cpu)
            bpf_syscall.map_update(self.handle.fd, struct.pack("<I", cpu), struct.pack("<i", reader.handle.fd))
        for cpu in self.readers.keys() - wanted:
            bpf_syscall.map_delete(self.handle.fd, struct.pack("<I", cpu))
            self.readers.pop(cpu).close()

    def pull(self) -> None:
        """Hands over the samples that came."""
        for cpu, reader in self.readers.items():
            for sample in reader.read():
                self.array.output(cpu, cpu, sample)


class EmptyTwin(Twin):
    """A map of a type whose contents cannot be carried over: it may be used as long as the world's is empty."""

    def push(self) -> None:
        """Refuses a map that holds anything."""
        try:
            filled = next(iter(self.ours.keys()), None) is not None
        except OSError:
            # The type has no keys to go through.
            return
        if filled:
            kind = self.ours.definition.type
            raise EngineUnavailable(f"the entries of {kind} map {self.ours.name!r} cannot be put into the kernel's")
