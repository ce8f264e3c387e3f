"""Our maps and the kernel's, given the same operations by user space, answer alike: values, errors, keys."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from simulator.engines import bpf_syscall
from simulator.engines.bpf_syscall import BpfError, possible_cpus
from simulator.engines.kernel_load import Resources, create_map
from simulator.maps.base import MapError
from simulator.maps.registry import KINDS
from simulator.program import MapDef
from simulator.world import World
from tests import oracle

DEFINITIONS = [
    MapDef("m", "array", key_size=4, value_size=5, max_entries=3),
    MapDef("m", "percpu_array", key_size=4, value_size=12, max_entries=3),
    MapDef("m", "hash", key_size=4, value_size=8, max_entries=3),
    MapDef("m", "hash", key_size=4, value_size=3, max_entries=3, flags=1),
    MapDef("m", "percpu_hash", key_size=4, value_size=4, max_entries=3),
    # Which key a full LRU map gives up is the kernel's own matter: these never fill up.
    MapDef("m", "lru_hash", key_size=4, value_size=8, max_entries=4096),
    MapDef("m", "lru_percpu_hash", key_size=4, value_size=8, max_entries=4096),
    MapDef("m", "lpm_trie", key_size=8, value_size=8, max_entries=3, flags=1),
]

# Keys that meet each other: few of them, and among them those past the end of an array.
SMALL_KEYS = st.integers(0, 5).map(lambda number: number.to_bytes(4, "little"))
PREFIXES = st.builds(
    lambda length, data: length.to_bytes(4, "little") + data,
    st.sampled_from([0, 1, 8, 9, 31, 32, 33]),
    st.sampled_from([bytes(4), b"\x80\0\0\0", b"\x80\0\0\1", b"\xff\xff\xff\xff"]),
)
FLAGS = st.sampled_from([0, 0, 1, 2, 3, 4, 8, 1 << 32])


def _answer(ask: Callable[[], Any]) -> Any:
    """What comes back, or the error's number."""
    try:
        return ask()
    except (MapError, BpfError) as error:
        return errno.errorcode.get(error.errno or 0, error.errno)


def _machine(definition: MapDef) -> type[RuleBasedStateMachine]:
    keys = PREFIXES if definition.type == "lpm_trie" else SMALL_KEYS

    class Twins(RuleBasedStateMachine):
        """One of our maps and one of the kernel's."""

        def __init__(self) -> None:
            super().__init__()
            self.kit = Resources()
            self.fd = create_map(definition, self.kit).fd
            self.ours = World([definition], cpus=possible_cpus()).maps.m
            self.size = self.ours.user_value_size

        def teardown(self) -> None:
            self.kit.close()

        @rule(key=keys)
        def lookup(self, key: bytes) -> None:
            kernel = _answer(lambda: bpf_syscall.map_lookup(self.fd, key, self.size))
            assert _answer(lambda: self.ours.lookup(key)) == kernel

        @rule(key=keys, fill=st.integers(0, 255), flags=FLAGS)
        def update(self, key: bytes, fill: int, flags: int) -> None:
            # The bytes that fill a per-CPU value up to eight are not kept: they are zero on both sides.
            value = bytes([fill]) * definition.value_size
            if self.ours.per_cpu:
                value = value.ljust(-(-len(value) // 8) * 8, b"\0") * self.ours.cpus
            kernel = _answer(lambda: bpf_syscall.map_update(self.fd, key, value, flags))
            assert _answer(lambda: self.ours.update(key, value, flags)) == kernel

        @rule(key=keys)
        def delete(self, key: bytes) -> None:
            kernel = _answer(lambda: bpf_syscall.map_delete(self.fd, key))
            assert _answer(lambda: self.ours.delete(key)) == kernel

        @rule(key=keys)
        def next_key(self, key: bytes) -> None:
            """The order of a hash is its own; that there is a next key, and of which, is not."""
            kernel = _answer(lambda: bpf_syscall.map_next_key(self.fd, key, definition.key_size))
            ours = _answer(lambda: self.ours.next_key(key))
            if "hash" in definition.type:
                known = set(self.ours.keys())
                assert {kernel, ours} <= known | {None}
                if key not in known:
                    assert (ours is None) == (kernel is None)
            else:
                assert ours == kernel

        @invariant()
        def they_hold_the_same(self) -> None:
            kernel = bpf_syscall.map_dump(self.fd, definition.key_size, self.size)
            assert dict(self.ours.raw_items()) == kernel

    return Twins


@pytest.mark.parametrize(
    "definition",
    [definition for definition in DEFINITIONS if definition.type in KINDS],
    ids=lambda definition: f"{definition.type}-{definition.flags}",
)
def test_a_map_answers_as_the_kernel_s(definition: MapDef) -> None:
    works, why = oracle.available()
    if not works:
        pytest.skip(why)
    run_state_machine_as_test(
        _machine(definition), settings=settings(max_examples=40, stateful_step_count=25, deadline=None, database=None)
    )
