"""Worlds: equal ones run alike, copies are independent, mocks answer before models."""

from __future__ import annotations

import pytest

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Op
from simulator.machine import MAX_TAIL_CALLS
from simulator.maps import MapError
from simulator.program import MapDef, Program
from simulator.run import run
from simulator.world import World
from tests.engines import HERE, as_parameters
from tests.simulator.assembly import (
    EXIT,
    atomic,
    branch,
    call,
    copy,
    function,
    imm,
    load,
    map_of,
    mov,
    program,
    reg,
    store_imm,
    value_of,
)
from tests.simulator.engines.both import agreed

COUNT = MapDef("count", "array", 4, 8, 1)
JUMPS = MapDef("jumps", "prog_array", 4, 4, 4)
PACKET = bytes(64)
ENGINES = as_parameters()


def counting(*tail: Insn) -> list[Insn]:
    """Adds one to the counter, then goes on."""
    return [copy(6, 1), value_of(1, 0), mov(2, 1), atomic(8, 0, 1, 0, 2), *tail]


@pytest.mark.parametrize("engine", ENGINES)
def test_tail_calls_are_33_deep(engine: str) -> None:
    code = counting(copy(1, 6), map_of(2, 1), mov(3, 2), call(12), mov(0, 9), EXIT)
    made = program(code, "xdp", (COUNT, JUMPS))
    world = World([COUNT, JUMPS])
    world.maps.jumps[2] = made
    assert run(made, PACKET, world, engine).retval == 9
    assert world.maps.count[0] == MAX_TAIL_CALLS + 1
    assert run(made, PACKET, world, engine).retval == 9


@pytest.mark.parametrize("engine", ENGINES)
def test_a_tail_call_replaces_the_program(engine: str) -> None:
    target = program([mov(0, 1), EXIT], "xdp", name="target")
    made = program([map_of(2, 0), mov(3, 1), call(12), mov(0, 2), EXIT], "xdp", (JUMPS,))
    world = World([JUMPS])
    assert run(made, PACKET, world, engine).retval == 2
    world.maps.jumps[1] = "target"
    world.add_programs({"target": target})
    assert [run(made, PACKET, world, engine).retval for _ in range(3)] == [1, 1, 1]
    del world.maps.jumps[1]
    assert run(made, PACKET, world, engine).retval == 2


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_worlds_run_alike_and_copies_apart(engine: str) -> None:
    made = program([call(7), EXIT], "xdp")
    world, other = World(seed=5), World(seed=5)
    first = [run(made, PACKET, world, engine).retval for _ in range(3)]
    assert [run(made, PACKET, other, engine).retval for _ in range(3)] == first
    assert run(made, PACKET, World(seed=6), engine).retval != first[0]
    again = world.copy()
    assert run(made, PACKET, again, engine).retval == run(made, PACKET, world, engine).retval


def test_maps_of_copies_are_apart() -> None:
    made = program(counting(mov(0, 0), EXIT), "xdp", (COUNT,))
    world = World()
    for _ in range(3):
        run(made, PACKET, world)
    other = world.copy()
    run(made, PACKET, other)
    assert (world.maps.count[0], other.maps.count[0]) == (3, 4)


@pytest.mark.parametrize("engine", ENGINES)
def test_time_passes_as_it_is_told(engine: str) -> None:
    made = program([call(5), EXIT], "xdp")
    world = World()
    start = run(made, PACKET, world, engine).r0
    assert run(made, PACKET, world, engine).r0 == start
    world.clock.advance(ms=1.5, us=2, ns=3)
    assert run(made, PACKET, world, engine).r0 == start + 1_502_003
    world.clock.step = 10
    assert [run(made, PACKET, world, engine).r0 - start for _ in range(3)] == [1_502_003, 1_502_013, 1_502_023]
    with pytest.raises(ValueError, match="backwards"):
        world.clock.advance(ns=-1)


@pytest.mark.parametrize("engine", ENGINES)
def test_mocks(engine: str) -> None:
    made = program([call(7), EXIT], "xdp")
    world = World()
    world.helpers.bpf_get_prandom_u32.returns_each(4, 8)
    assert [run(made, PACKET, world, engine).r0 for _ in range(3)] == [4, 8, 8]
    world.helpers.bpf_get_prandom_u32.does(lambda call: len(call.name))
    assert run(made, PACKET, world, engine).r0 == len("bpf_get_prandom_u32")
    world.helpers.bpf_get_prandom_u32.fails(12, on=2)
    assert [run(made, PACKET, world, engine).r0 for _ in range(3)] == [19, (1 << 64) - 12, 19]
    with pytest.raises(AttributeError, match="bpf_nonsense"):
        world.helpers.bpf_nonsense.returns(0)


def test_a_mock_fills_the_struct() -> None:
    code = [store_imm(8, 10, -64 + at, 0) for at in range(0, 64, 8)]
    code += [copy(2, 10), imm(Op.ADD, 2, -64), mov(3, 64), mov(4, 0), call(69), Insn(0x61, 0, 10, -56), EXIT]
    world = World()
    world.helpers.bpf_fib_lookup.returns(0, ifindex=7)
    assert agreed(program(code, "xdp"), PACKET, world=world).r0 == 7


def test_mocked_lookups_are_asked_by_compiled_code() -> None:
    code = [store_imm(4, 10, -4, 1), copy(2, 10), imm(Op.ADD, 2, -4), map_of(1, 0), call(1), EXIT]
    made = program(code, "xdp", (MapDef("m", "hash", 4, 8, 4),))
    world = World()
    assert agreed(made, PACKET, world=world).r0 == 0
    world.helpers.bpf_map_lookup_elem.returns(77)
    assert agreed(made, PACKET, world=world).r0 == 77


def test_the_third_update_fails() -> None:
    code = [store_imm(4, 10, -4, 1), store_imm(8, 10, -16, 5), copy(2, 10), imm(Op.ADD, 2, -4), copy(3, 10)]
    code += [imm(Op.ADD, 3, -16), mov(4, 0), map_of(1, 0), call(2), EXIT]
    made = program(code, "xdp", (MapDef("m", "hash", 4, 8, 4),))
    world = World()
    world.helpers.bpf_map_update_elem.fails(12, on=3)
    assert [run(made, PACKET, world).r0 for _ in range(4)] == [0, 0, (1 << 64) - 12, 0]


@pytest.mark.parametrize("engine", ENGINES)
def test_loops_call_back(engine: str) -> None:
    """bpf_loop runs a function ten times; it adds its index to what it is given."""
    made = [store_imm(8, 10, -8, 0), mov(1, 10), function(2, 7), copy(3, 10), imm(Op.ADD, 3, -8), mov(4, 0), call(181)]
    made += [Insn(0x79, 0, 10, -8), EXIT, atomic(8, 0, 2, 0, 1), mov(0, 0), EXIT]
    built = program(made, "xdp")
    world = World()
    assert [run(built, PACKET, world, engine).r0 for _ in range(3)] == [45, 45, 45]


@pytest.mark.parametrize("cpu", [-1, 2, 9])
def test_a_world_has_the_cpus_that_it_was_given(cpu: int) -> None:
    with pytest.raises(ValueError, match=f"has CPUs 0 to 1, not {cpu}"):
        World(cpus=2, cpu=cpu)
    world = World(cpus=2)
    with pytest.raises(ValueError, match="has CPUs 0 to 1"):
        world.cpu = cpu
    assert world.cpu == 0


def test_maps_of_another_shape_are_refused() -> None:
    world = World([MapDef("m", "hash", 4, 8, 4)])
    made = program([mov(0, 0), EXIT], "xdp", (MapDef("m", "hash", 8, 8, 4),))
    with pytest.raises(ValueError, match="'m'"):
        run(made, PACKET, world)
    with pytest.raises(MapError, match="EINVAL"):
        World([MapDef("m", "hash", 0, 8, 4)])


def test_typed_access_without_btf() -> None:
    world = World([MapDef("blocked", "hash", 4, 8, 4), MapDef("per", "percpu_array", 4, 8, 2)])
    world.maps.blocked["10.0.0.9"] = 1
    assert world.maps.blocked.lookup(bytes([10, 0, 0, 9])) == b"\x01" + bytes(7)
    assert world.maps.blocked["10.0.0.9"] == 1
    world.maps.per[1] = [3, 4]
    assert world.maps.per[1] == [3, 4]
    del world.maps.blocked["10.0.0.9"]
    assert len(world.maps.blocked) == 0
    with pytest.raises(AttributeError, match="did you mean blocked"):
        _ = world.maps.blokced


def test_an_unknown_engine() -> None:
    with pytest.raises(ValueError, match="reference, python"):
        run(Program(b"", "xdp"), PACKET, engine="jit")


def test_repeat_runs_on_the_same_memory() -> None:
    made = program(counting(mov(0, 0), branch(Op.EQ, 0, 0, 0), reg(Op.XOR, 0, 0), EXIT), "xdp", (COUNT,))
    for engine in HERE:
        world = World()
        run(made, PACKET, world, engine, repeat=5)
        run(made, PACKET, world, engine, repeat=5)
        assert world.maps.count[0] == 10


def all_that_a_world_gives() -> Program:
    """Time, chance, CPU, task, a map and a print, all into one number; the map keeps it."""
    code = [mov(7, 0)]
    for helper in (5, 7, 8, 14, 15, 125, 7):
        code += [call(helper), imm(Op.MUL, 7, 31), reg(Op.ADD, 7, 0)]
    code += [value_of(1, 0), atomic(8, 0, 1, 0, 7), copy(0, 7), EXIT]
    return program(code, "xdp", (COUNT,))


def test_equal_worlds_run_alike_on_every_engine() -> None:
    made, seen = all_that_a_world_gives(), []
    for engine in HERE:
        world = World(seed=11)
        world.clock.step = 3
        results = [run(made, PACKET, world, engine).r0 for _ in range(4)]
        world.cpu = 1
        world.task.pid = 77
        world.clock.advance(ms=5)
        results += [run(made, PACKET, world, engine).r0 for _ in range(4)]
        seen.append((results, world.maps.count[0], world.clock.now, world.random.random()))
    assert len(set(seen[0][0])) == 8
    assert seen[1:] == seen[:1] * (len(HERE) - 1)


def test_a_copy_replays_on_another_engine() -> None:
    made, world = all_that_a_world_gives(), World(seed=3)
    run(made, PACKET, world)
    copies = [world.copy() for _ in HERE]
    runs = [[run(made, PACKET, copy, engine).r0 for _ in range(3)] for engine, copy in zip(HERE, copies, strict=True)]
    assert runs[1:] == runs[:1] * (len(HERE) - 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_maps_that_an_object_puts_into_a_map_are_there(engine: str) -> None:
    from pathlib import Path

    from simulator.loader import load as load_object

    obj = load_object(Path(__file__).parents[2] / "fixtures" / "objects" / "awkward.bpf.o")
    for world in (World(obj), World()):
        assert obj["uses_data"].run(bytes(64), world, engine).retval == 2
        assert (world.maps.outer[0], world.maps.outer[2]) == (world.maps.first, world.maps.second)
        assert world.maps.first[0] == 5


@pytest.mark.parametrize("engine", ENGINES)
def test_objects_of_the_kernel_are_read_where_they_were_put(engine: str) -> None:
    from bpflisp.spec.btf import INT_SIGNED, Btf
    from bpflisp.spec.btf_build import BtfBuilder, Int, Member, Struct

    number = Int("int", 4, INT_SIGNED)
    types = BtfBuilder()
    types.add(Struct("task", 16, [Member("pid", number, 0), Member("prio", number, 64)]))
    btf = Btf(types.to_bytes())
    world = World()
    address = world.place({"pid": 7, "prio": -3}, "task", btf)
    code = [load(8, 1, 1, 0), load(4, 0, 1, 0), load(4, 2, 1, 8), reg(Op.ADD, 0, 2), EXIT]
    assert run(program(code, "tracing"), {"args": [address]}, world, engine).retval == 4
    with pytest.raises(ValueError, match="need a btf that has it"):
        world.place({"pid": 7}, "task")
