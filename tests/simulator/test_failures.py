"""Failures that a test injects: which calls fail, and what they leave; the same on every engine."""

from __future__ import annotations

import errno

import pytest

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Op
from simulator.engines.engine import EngineUnavailable
from simulator.program import MapDef
from simulator.run import run
from simulator.world import World
from tests.engines import as_parameters
from tests.simulator.assembly import EXIT, big, call, copy, imm, load, map_of, mov, program, store_imm

ENGINES = as_parameters()
PACKET = bytes(64)
ONE, TWO = MapDef("one", "hash", 4, 8, 4), MapDef("two", "hash", 4, 8, 4)
RING = MapDef("ring", "ringbuf", max_entries=4096)


def key_and_value(index: int) -> list[Insn]:
    """r1 the map, r2 a key of 1, r3 a value of 5, r4 no flags."""
    start = [store_imm(4, 10, -4, 1), store_imm(8, 10, -16, 5), copy(2, 10), imm(Op.ADD, 2, -4), copy(3, 10)]
    return [*start, imm(Op.ADD, 3, -16), mov(4, 0), map_of(1, index)]


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("how", "seen"),
    [
        ({"on": 3}, [0, 0, -12, 0]),
        ({"on": (1, 4)}, [-12, 0, 0, -12]),
        ({"after": 2}, [0, 0, -12, -12]),
        ({}, [-12, -12, -12, -12]),
        ({"errno": errno.E2BIG, "on": 2}, [0, -7, 0, 0]),
    ],
)
def test_chosen_updates_fail(engine: str, how: dict[str, int], seen: list[int]) -> None:
    made, world = program([*key_and_value(0), call(2), EXIT], "xdp", (ONE,)), World()
    world.helpers.bpf_map_update_elem.fails(**how)
    assert [signed(run(made, PACKET, world, engine).r0) for _ in range(4)] == seen
    world.helpers.bpf_map_update_elem.works()
    assert run(made, PACKET, world, engine).r0 == 0
    assert world.maps.one[1] == 5


@pytest.mark.parametrize("engine", ENGINES)
def test_updates_of_one_map_fail(engine: str) -> None:
    code = [
        *key_and_value(0),
        call(2),
        copy(6, 0),
        *key_and_value(1),
        call(2),
        imm(Op.LSH, 6, 8),
        Insn(0x0F, 0, 6),
        EXIT,
    ]
    made, world = program(code, "xdp", (ONE, TWO)), World()
    world.helpers.bpf_map_update_elem.fails(map="two", on=2)
    results = [signed(run(made, PACKET, world, engine).r0) for _ in range(3)]
    assert results == [0, -errno.ENOMEM, 0]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_full_ring_buffer(engine: str) -> None:
    reserve = program([map_of(1, 0), mov(2, 8), mov(3, 0), call(131), EXIT], "xdp", (RING,))
    output = [store_imm(8, 10, -8, 3), map_of(1, 0), copy(2, 10), imm(Op.ADD, 2, -8), mov(3, 8), mov(4, 0), call(130)]
    sends = program([*output, EXIT], "xdp", (RING,))
    world = World([RING])
    world.maps.ring.full = True  # type: ignore[attr-defined]
    assert run(reserve, PACKET, world, engine).r0 == 0
    assert signed(run(sends, PACKET, world, engine).r0) == -errno.EAGAIN
    with pytest.raises(EngineUnavailable, match=r"is said to be full|kernel engine"):
        run(sends, PACKET, world, "kernel")
    world.maps.ring.full = False  # type: ignore[attr-defined]
    assert run(sends, PACKET, world, engine).r0 == 0
    world.helpers.bpf_ringbuf_reserve.fails()
    assert run(reserve, PACKET, world, engine).r0 == 0
    assert list(world.maps.ring) == [(3).to_bytes(8, "little")]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_probe_read_faults_and_leaves_zeros(engine: str) -> None:
    address = 0xFFFF_8880_0000_0000
    code = [store_imm(8, 10, -8, -1), copy(1, 10), imm(Op.ADD, 1, -8), mov(2, 8), big(3, address), call(113)]
    made = program([*code, load(8, 0, 10, -8), EXIT], "raw_tracepoint")
    world = World()
    world.kernel_memory[address] = bytes(range(1, 9))
    world.helpers.bpf_probe_read_kernel.fails(on=2)
    results = [run(made, {}, world, engine).r0 for _ in range(3)]
    assert results == [0x0807060504030201, 0, 0x0807060504030201]
    status = program([*code, EXIT], "raw_tracepoint")
    world.helpers.bpf_probe_read_kernel.fails(on=1)
    assert signed(run(status, {}, world, engine).r0) == -errno.EFAULT


def test_a_helper_without_a_usual_error_asks_for_one() -> None:
    with pytest.raises(ValueError, match="say with which error"):
        World().helpers.bpf_redirect.fails()


def test_copies_of_worlds_count_their_own_calls() -> None:
    made = program([call(7), EXIT], "xdp")
    world = World()
    world.helpers.bpf_get_prandom_u32.returns_each(1, 2, 3)
    world.helpers.bpf_get_prandom_u32.fails(5, on=2)
    other = world.copy()
    first = [signed(run(made, PACKET, world).r0) for _ in range(4)]
    assert first == [1, -5, 2, 3]
    assert [signed(run(made, PACKET, other).r0) for _ in range(4)] == first
