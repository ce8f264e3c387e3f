"""Maps of targets against the kernel's own: interfaces, CPUs, programs, maps, filters, and those that hold nothing yet.

Skipped where bpf(2) is refused. A target is something else on both sides (a file descriptor there), so that answers
are compared as "there is one", or as the error's name.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from simulator.engines import bpf_syscall
from simulator.engines.bpf_syscall import possible_cpus
from simulator.engines.kernel_load import Resources, create_map, program_request
from simulator.maps import Map
from simulator.program import MapDef
from simulator.world import World
from tests.simulator.assembly import EXIT, mov, program
from tests.simulator.maps.test_against_kernel import said

pytestmark = pytest.mark.skipif(not bpf_syscall.available()[0], reason=bpf_syscall.available()[1] or "bpf(2) works")

STEPS = settings(max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
FLAGS = st.sampled_from([0, 0, 0, 1, 2, 3, 4, 8])
NUMBERS = st.integers(0, 6)
REDIRECT = {
    "devmap": (MapDef("m", "devmap", 4, 4, 4), [0, 1]),
    "devmap_wide": (MapDef("m", "devmap", 4, 8, 4), [0, 1]),
    "devmap_hash": (MapDef("m", "devmap_hash", 4, 4, 3), [1]),
    "cpumap": (MapDef("m", "cpumap", 4, 4, 2), [0, 1, 192, 16384, 16385]),
}


class Targets(RuleBasedStateMachine):
    """Interfaces or CPUs by number."""

    definition: MapDef
    values: list[int]

    @initialize()
    def create(self) -> None:
        self.kit = Resources()
        self.fd = create_map(self.definition, self.kit).fd
        self.ours: Map = World(cpus=possible_cpus()).add_map(self.definition)

    def teardown(self) -> None:
        if hasattr(self, "kit"):
            self.kit.close()

    @rule(number=NUMBERS, value=st.integers(0, 4), flags=FLAGS)
    def update(self, number: int, value: int, flags: int) -> None:
        key = number.to_bytes(4, "little")
        chosen = self.values[value % len(self.values)].to_bytes(4, "little").ljust(self.definition.value_size, b"\0")
        theirs = said(lambda: bpf_syscall.map_update(self.fd, key, chosen, flags))
        assert said(lambda: self.ours.update(key, chosen, flags)) == theirs, (number, chosen, flags)

    @rule(number=NUMBERS)
    def lookup(self, number: int) -> None:
        key, size = number.to_bytes(4, "little"), self.definition.value_size
        theirs = said(lambda: bpf_syscall.map_lookup(self.fd, key, size))
        assert said(lambda: self.ours.lookup(key)) == theirs

    @rule(number=NUMBERS)
    def delete(self, number: int) -> None:
        key = number.to_bytes(4, "little")
        assert said(lambda: self.ours.delete(key)) == said(lambda: bpf_syscall.map_delete(self.fd, key))


@pytest.mark.parametrize("name", REDIRECT)
def test_maps_of_redirection(name: str) -> None:
    definition, values = REDIRECT[name]
    machine = type(f"Targets_{name}", (Targets,), {"definition": definition, "values": values})
    run_state_machine_as_test(machine, settings=STEPS)  # type: ignore[no-untyped-call]


class Filter(RuleBasedStateMachine):
    """A bloom filter: what was put in is found; what is not found was not put in."""

    @initialize()
    def create(self) -> None:
        definition = MapDef("m", "bloom_filter", 0, 4, 50)
        self.kit = Resources()
        self.fd = create_map(definition, self.kit).fd
        self.ours: Any = World().add_map(definition)
        self.put: set[bytes] = set()

    def teardown(self) -> None:
        if hasattr(self, "kit"):
            self.kit.close()

    @rule(number=NUMBERS, flags=FLAGS)
    def push(self, number: int, flags: int) -> None:
        value = number.to_bytes(4, "little")
        theirs = said(lambda: bpf_syscall.map_update(self.fd, None, value, flags))
        assert said(lambda: self.ours.update(b"", value, flags)) == theirs
        if theirs is None:
            self.put.add(value)

    @rule(number=NUMBERS)
    def peek(self, number: int) -> None:
        value = number.to_bytes(4, "little")
        found, _ = self.ours.peek(value)
        assert (found == 0) >= (value in self.put)


def test_bloom_filters() -> None:
    run_state_machine_as_test(Filter, settings=STEPS)  # type: ignore[no-untyped-call]


OUTER = {
    "array_of_maps": MapDef("m", "array_of_maps", 4, 4, 3, inner=MapDef("inner", "array", 4, 8, 2)),
    "hash_of_maps": MapDef("m", "hash_of_maps", 4, 4, 3, inner=MapDef("inner", "hash", 4, 8, 2)),
}
INNER = (
    MapDef("a", "array", 4, 8, 2), MapDef("b", "hash", 4, 8, 2), MapDef("c", "array", 4, 8, 3),
    MapDef("d", "array", 4, 4, 2), MapDef("e", "hash", 4, 8, 5), MapDef("f", "array", 4, 8, 2, flags=1 << 12),
)  # fmt: skip


class Nested(RuleBasedStateMachine):
    """Maps in a map: which fit, and where."""

    definition: MapDef

    @initialize()
    def create(self) -> None:
        self.kit = Resources()
        self.fd = create_map(self.definition, self.kit).fd
        self.world = World()
        self.ours: Any = self.world.add_map(self.definition)
        self.inner = [(self.world.add_map(one), create_map(one, self.kit).fd) for one in INNER]

    def teardown(self) -> None:
        if hasattr(self, "kit"):
            self.kit.close()

    @rule(number=NUMBERS, which=st.integers(0, len(INNER) - 1), flags=FLAGS)
    def update(self, number: int, which: int, flags: int) -> None:
        key, (ours, fd) = number.to_bytes(4, "little"), self.inner[which]
        theirs = said(lambda: bpf_syscall.map_update(self.fd, key, fd.to_bytes(4, "little"), flags))
        assert said(lambda: self.ours.set(key, ours, flags)) == theirs, (number, INNER[which], flags)

    @rule(number=NUMBERS)
    def lookup(self, number: int) -> None:
        key = number.to_bytes(4, "little")
        theirs = said(lambda: bpf_syscall.map_lookup(self.fd, key, 4))
        assert (key in self.ours) == (theirs is not None)

    @rule(number=NUMBERS)
    def delete(self, number: int) -> None:
        key = number.to_bytes(4, "little")
        assert said(lambda: self.ours.delete(key)) == said(lambda: bpf_syscall.map_delete(self.fd, key))


@pytest.mark.parametrize("name", OUTER)
def test_maps_of_maps(name: str) -> None:
    machine = type(f"Nested_{name}", (Nested,), {"definition": OUTER[name]})
    run_state_machine_as_test(machine, settings=STEPS)  # type: ignore[no-untyped-call]


class Programs(RuleBasedStateMachine):
    """A prog array."""

    @initialize()
    def create(self) -> None:
        self.kit = Resources()
        definition = MapDef("m", "prog_array", 4, 4, 3)
        self.fd = create_map(definition, self.kit).fd
        self.ours: Any = World().add_map(definition)
        self.program = program([mov(0, 0), EXIT], "socket_filter", ())
        self.loaded = self.kit.keep(bpf_syscall.prog_load(program_request(self.program, self.kit)).handle).fd

    def teardown(self) -> None:
        if hasattr(self, "kit"):
            self.kit.close()

    @rule(number=NUMBERS)
    def update(self, number: int) -> None:
        key = number.to_bytes(4, "little")
        theirs = said(lambda: bpf_syscall.map_update(self.fd, key, self.loaded.to_bytes(4, "little")))
        assert said(lambda: self.ours.__setitem__(key, self.program)) == theirs

    @rule(number=NUMBERS)
    def lookup(self, number: int) -> None:
        key = number.to_bytes(4, "little")
        assert (key in self.ours) == (said(lambda: bpf_syscall.map_lookup(self.fd, key, 4)) is not None)

    @rule(number=NUMBERS)
    def delete(self, number: int) -> None:
        key = number.to_bytes(4, "little")
        assert said(lambda: self.ours.delete(key)) == said(lambda: bpf_syscall.map_delete(self.fd, key))


def test_prog_arrays() -> None:
    run_state_machine_as_test(Programs, settings=STEPS)  # type: ignore[no-untyped-call]


EMPTY = (
    MapDef("m", "stack_trace", 4, 80, 4), MapDef("m", "xskmap", 4, 4, 4), MapDef("m", "sockmap", 4, 4, 4),
    MapDef("m", "sockhash", 4, 4, 4), MapDef("m", "perf_event_array", 4, 4, 2), MapDef("m", "ringbuf", 0, 0, 4096),
)  # fmt: skip


@pytest.mark.parametrize("definition", EMPTY, ids=lambda made: made.type)
def test_what_an_empty_map_refuses(definition: MapDef) -> None:
    """Lookups and deletions of keys that are not there, inside the map's size and past it."""
    with Resources() as kit:
        fd = create_map(definition, kit).fd
        ours: Any = World(cpus=possible_cpus()).add_map(definition)
        if isinstance(getattr(ours, "closed", None), set):
            ours.closed.update(range(8))
        for number in (0, 1, 3, 4, 9):
            key = number.to_bytes(definition.key_size or 4, "little")
            theirs = said(lambda: bpf_syscall.map_delete(fd, key))  # noqa: B023
            assert said(lambda: ours.delete(key)) == theirs, ("delete", number)  # noqa: B023
            found = said(lambda: bpf_syscall.map_lookup(fd, key, definition.value_size or 4))  # noqa: B023
            assert said(lambda: ours.lookup(key)) == found, ("lookup", number)  # noqa: B023
