"""Maps against the kernel's own: the same operations on both, every answer compared.

Skipped where bpf(2) is refused. What differs by design is not asked: the order of a hash's keys, and which element an
LRU map gives up.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from bpflisp.spec.btf import Btf
from bpflisp.spec.btf_build import BtfBuilder, Int, Member, Struct
from simulator.engines import bpf_syscall
from simulator.engines.bpf_syscall import BpfError, possible_cpus
from simulator.engines.kernel_load import Resources, create_map
from simulator.maps import Map, MapError
from simulator.program import MapDef
from simulator.world import World

pytestmark = pytest.mark.skipif(not bpf_syscall.available()[0], reason=bpf_syscall.available()[1] or "bpf(2) works")

NO_PREALLOC = 1


def _locked(kind: str) -> MapDef:
    """A map whose values have a spin lock, which BPF_F_LOCK takes."""
    number, types = Int("unsigned int", 4), BtfBuilder()
    lock = Struct("bpf_spin_lock", 4, [Member("val", number, 0)])
    value = types.add(Struct("value", 12, [Member("a", number, 0), Member("lock", lock, 32), Member("b", number, 64)]))
    return MapDef("m", kind, 4, 12, 4, btf=Btf(types.to_bytes()), btf_key=types.add(number), btf_value=value)


KEYED = {
    "hash_locked": _locked("hash"),
    "array_locked": _locked("array"),
    "hash": MapDef("m", "hash", 4, 8, 5),
    "hash_lazy": MapDef("m", "hash", 4, 5, 5, flags=NO_PREALLOC),
    "array": MapDef("m", "array", 4, 12, 4),
    "percpu_array": MapDef("m", "percpu_array", 4, 12, 4),
    "percpu_hash": MapDef("m", "percpu_hash", 4, 12, 5),
    "lru_hash": MapDef("m", "lru_hash", 4, 8, 1000),
    "lru_percpu_hash": MapDef("m", "lru_percpu_hash", 4, 8, 1000),
    "lpm_trie": MapDef("m", "lpm_trie", 6, 4, 6, flags=NO_PREALLOC),
}
ORDERED = {"array", "array_locked", "percpu_array", "lpm_trie"}
FLAGS = st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5, 6, 8])


def said(ask: Callable[[], Any]) -> Any:
    """What an operation gives, or the number of its error."""
    try:
        return ask()
    except (BpfError, MapError) as error:
        return f"error {errno.errorcode.get(error.errno or 0, error.errno)}"


STEPS = settings(max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))


class Pair(RuleBasedStateMachine):
    """Our map and the kernel's."""

    name = ""
    definition: MapDef

    @initialize()
    def create(self) -> None:
        self.kit = Resources()
        self.fd = create_map(self.definition, self.kit).fd
        self.ours: Map = World(cpus=possible_cpus()).add_map(self.definition)

    def teardown(self) -> None:
        if hasattr(self, "kit"):
            self.kit.close()

    def key(self, number: int) -> bytes:
        """A key: of a trie, a prefix length from 0 to 18 and two bytes."""
        if self.definition.type == "lpm_trie":
            return (number % 19).to_bytes(4, "little") + bytes([0b1010_1010 ^ number // 19, number % 4 * 64])
        return number.to_bytes(4, "little")

    numbers = st.integers(0, 8) | st.integers(0, 300)

    @rule(number=numbers, fill=st.integers(0, 255), flags=FLAGS)
    def update(self, number: int, fill: int, flags: int) -> None:
        key, value = self.key(number), bytes([fill]) * self.ours.user_value_size
        theirs = said(lambda: bpf_syscall.map_update(self.fd, key, value, flags))
        assert said(lambda: self.ours.update(key, value, flags)) == theirs, (number, flags)

    @rule(number=numbers)
    def lookup(self, number: int) -> None:
        key = self.key(number)
        theirs = said(lambda: bpf_syscall.map_lookup(self.fd, key, self.ours.user_value_size))
        assert self.shown(said(lambda: self.ours.lookup(key))) == self.shown(theirs)

    def shown(self, value: Any) -> Any:
        """A value without the bytes that fill per-CPU values up: the kernel keeps what was there."""
        if not isinstance(value, bytes) or not self.ours.per_cpu:
            return value
        size = self.definition.value_size
        step = (size + 7) // 8 * 8
        return [value[at : at + size] for at in range(0, len(value), step)]

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        key = self.key(number)
        assert said(lambda: self.ours.delete(key)) == said(lambda: bpf_syscall.map_delete(self.fd, key))

    @rule()
    def keys(self) -> None:
        theirs = said(lambda: bpf_syscall.map_keys(self.fd, self.definition.key_size))
        ours = said(lambda: list(self.ours.keys()))
        assert ours == theirs if self.name in ORDERED else sorted(ours) == sorted(theirs)

    @rule(number=numbers)
    def next_key(self, number: int) -> None:
        if self.name in ORDERED:
            key = self.key(number)
            theirs = said(lambda: bpf_syscall.map_next_key(self.fd, key, self.definition.key_size))
            assert said(lambda: self.ours.next_key(key)) == theirs


@pytest.mark.parametrize("name", KEYED)
def test_keyed_maps(name: str) -> None:
    machine = type(f"Pair_{name}", (Pair,), {"name": name, "definition": KEYED[name]})
    run_state_machine_as_test(machine, settings=STEPS)  # type: ignore[no-untyped-call]


class QueuePair(RuleBasedStateMachine):
    """A queue or stack of ours and the kernel's."""

    definition: MapDef

    @initialize()
    def create(self) -> None:
        self.kit = Resources()
        self.fd = create_map(self.definition, self.kit).fd
        self.ours: Any = World().add_map(self.definition)

    def teardown(self) -> None:
        if hasattr(self, "kit"):
            self.kit.close()

    @rule(value=st.binary(min_size=4, max_size=4), flags=st.sampled_from([0, 0, 0, 1, 2, 4]))
    def push(self, value: bytes, flags: int) -> None:
        theirs = said(lambda: bpf_syscall.map_update(self.fd, None, value, flags))
        assert said(lambda: self.ours.update(b"", value, flags)) == theirs

    @rule()
    def pop(self) -> None:
        assert said(self.ours.take) == said(lambda: bpf_syscall.map_take(self.fd, None, 4))

    @rule()
    def peek(self) -> None:
        assert said(lambda: self.ours.lookup(b"")) == said(lambda: bpf_syscall.map_lookup(self.fd, b"", 4))


@pytest.mark.parametrize("kind", ["queue", "stack"])
def test_queues(kind: str) -> None:
    machine = type(f"Pair_{kind}", (QueuePair,), {"definition": MapDef("m", kind, 0, 4, 3)})
    run_state_machine_as_test(machine, settings=STEPS)  # type: ignore[no-untyped-call]


KINDS = (
    "hash", "array", "percpu_hash", "percpu_array", "lru_hash", "lru_percpu_hash", "lpm_trie", "queue", "stack",
    "bloom_filter", "ringbuf", "prog_array", "perf_event_array", "devmap", "devmap_hash", "cpumap", "xskmap",
    "stack_trace", "sockmap", "sockhash", "user_ringbuf", "cgroup_storage", "percpu_cgroup_storage",
    "reuseport_sockarray",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_may_be_created(kind: str) -> None:
    """Sizes and flags, each alone off the beaten track: both make the map, or both refuse it with the same error."""
    differences = []
    for key in (0, 1, 4, 5, 8, 260, 261, 600):
        for value in (0, 1, 4, 8, 12, 1016, 1024, 40_000):
            for entries in (0, 1, 3, 4096, 8192):
                for flags in (0, 1, 2, 64, 128, 256, 1 << 14):
                    if (key, value, entries, flags).count(0) < 1 and key not in (4, 8):
                        continue
                    if (kind, entries) == ("perf_event_array", 0) or (kind == "cpumap" and entries > 256):
                        continue  # libbpf's part, and the configuration of the kernel that is asked
                    definition = MapDef("m", kind, key, value, entries, flags=flags)
                    with Resources() as kit:
                        theirs = said(lambda: create_map(definition, kit) and None)  # noqa: B023
                    ours = said(lambda: World(cpus=possible_cpus()).add_map(definition) and None)  # noqa: B023
                    if ours != theirs:
                        differences.append((key, value, entries, flags, ours, theirs))
    assert differences == []
