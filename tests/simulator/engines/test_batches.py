"""Many packets at one call: the same as one run after the other, on every engine."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpflisp.spec.isa import Op
from simulator.memory import PACKET_BASE
from simulator.mocks import Call
from simulator.outcome import Outcomes
from simulator.packet import InputRefused
from simulator.program import MapDef, Program
from simulator.run import run, run_many
from simulator.world import World
from tests.engines import HERE, as_parameters
from tests.simulator.assembly import (
    EXIT,
    atomic,
    branch,
    branch_reg,
    call,
    copy,
    imm,
    load,
    map_of,
    mov,
    program,
    reg,
    store,
    store_imm,
    value_of,
)

COUNT = MapDef("count", "array", 4, 8, 4)
SEEN = MapDef("seen", "hash", 8, 8, 3)
JUMPS = MapDef("jumps", "prog_array", 4, 4, 4)
PRINTK, PRANDOM, REDIRECT, ADJUST_HEAD, ADJUST_TAIL, DELETE = 6, 7, 23, 44, 65, 3
POINTERS = [load(4, 2, 1, 0), load(4, 3, 1, 4)]
"""r2 is the packet's start, r3 its end."""


def many(made: Program, packets: list[bytes], engine: str, **world: Any) -> tuple[Outcomes, World]:
    """The outcomes of `run_many`, held to those of `run` one after the other in an equal world."""
    together, apart = World([COUNT, SEEN, JUMPS], **world), World([COUNT, SEEN, JUMPS], **world)
    outcomes = run_many(made, packets, together, engine)
    alone = [run(made, packet, apart, "reference") for packet in packets]
    assert len(outcomes) == len(packets)
    for mine, other in zip(outcomes, alone, strict=True):
        assert (mine.fault, mine.r0, mine.packet) == (other.fault, other.r0, other.packet)
        assert (mine.redirect, mine.trace) == (other.redirect, other.trace)
        assert mine.insns_executed in (0, other.insns_executed)
    assert outcomes.retvals == [outcome.retval for outcome in alone]
    for name in ("count", "seen"):
        assert list(together.maps[name].raw_items()) == list(apart.maps[name].raw_items())
    return outcomes, together


def several(count: int = 600) -> list[bytes]:
    """Packets of many sizes."""
    return [bytes((number + at) & 255 for at in range(14 + number * 7 % 90)) for number in range(count)]


@pytest.mark.parametrize("engine", as_parameters())
def test_packets_are_read(engine: str) -> None:
    code = [*POINTERS, load(1, 0, 2, 13), reg(Op.SUB, 3, 2), imm(Op.LSH, 3, 8), reg(Op.OR, 0, 3), EXIT]
    outcomes, _ = many(program(code, "xdp"), several(), engine)
    assert outcomes[3].retval == (14 + 21) << 8 | 16
    assert outcomes[-1] == outcomes[599]
    assert [outcome.retval for outcome in outcomes[2:5]] == outcomes.retvals[2:5]
    with pytest.raises(IndexError):
        outcomes[600]


@pytest.mark.parametrize("engine", as_parameters())
def test_packets_are_written(engine: str) -> None:
    code = [*POINTERS, load(1, 4, 2, 13), imm(Op.ADD, 4, 1), store(1, 2, 0, 4), mov(0, 2), EXIT]
    many(program(code, "xdp"), several(), engine)


@pytest.mark.parametrize("engine", as_parameters())
def test_bounds_are_those_of_each_packet(engine: str) -> None:
    code = [*POINTERS, load(8, 0, 2, 40), mov(0, 1), EXIT]
    outcomes, _ = many(program(code, "xdp"), several(), engine)
    assert {outcome.fault is None for outcome in outcomes} == {True, False}
    fault = outcomes[0].fault
    assert fault is not None
    assert (fault.kind, fault.insn, fault.address) == ("memory", 2, PACKET_BASE + 40)


@pytest.mark.parametrize("engine", as_parameters())
def test_the_frame_is_zero_each_time(engine: str) -> None:
    code = [load(8, 0, 10, -64), store_imm(8, 10, -64, 7), EXIT]
    outcomes, _ = many(program(code, "xdp"), several(20), engine)
    assert set(outcomes.retvals) == {0}


@pytest.mark.parametrize("engine", as_parameters())
def test_the_frame_is_zero_where_its_address_is_computed(engine: str) -> None:
    """r4 is somewhere in the frame, by the packet's first byte."""
    code = [
        *POINTERS, load(1, 5, 2, 0), imm(Op.AND, 5, 0x78), copy(4, 10), imm(Op.ADD, 4, -512), reg(Op.ADD, 4, 5),
        load(8, 0, 4, 0), store_imm(8, 4, 0, 9), EXIT,
    ]  # fmt: skip
    outcomes, _ = many(program(code, "xdp"), several(300), engine)
    assert set(outcomes.retvals) == {0}


@pytest.mark.parametrize("engine", as_parameters())
def test_maps_go_on_from_packet_to_packet(engine: str) -> None:
    """Each kind of packet is looked up, counted, put in, and taken out again at its fifth time; three fit in."""
    code = [
        *POINTERS, load(1, 4, 2, 0), imm(Op.AND, 4, 3), store_imm(8, 10, -8, 0), store(1, 10, -8, 4),
        copy(2, 10), imm(Op.ADD, 2, -8), map_of(1, 0), call(1), branch(Op.EQ, 0, 0, 10),
        load(8, 6, 0, 0), imm(Op.ADD, 6, 1), store(8, 0, 0, 6), mov(0, 1), branch(Op.LT, 6, 5, 16),
        copy(2, 10), imm(Op.ADD, 2, -8), map_of(1, 0), call(DELETE),
        store_imm(8, 10, -16, 1), copy(2, 10), imm(Op.ADD, 2, -8), copy(3, 10), imm(Op.ADD, 3, -16), map_of(1, 0),
        mov(4, 0), call(2), EXIT, EXIT,
    ]  # fmt: skip
    outcomes, _ = many(program(code, "xdp", (SEEN,)), several(), engine)
    assert 0xFFFFFFF9 in outcomes.retvals


@pytest.mark.parametrize("engine", as_parameters())
def test_arrays(engine: str) -> None:
    code = [
        *POINTERS, load(1, 4, 2, 0), imm(Op.AND, 4, 7), store(4, 10, -4, 4),
        copy(2, 10), imm(Op.ADD, 2, -4), map_of(1, 0), call(1), branch(Op.EQ, 0, 0, 2),
        mov(1, 1), atomic(8, 0, 0, 0, 1), EXIT,
    ]  # fmt: skip
    _, world = many(program(code, "xdp", (COUNT,)), several(80), engine)
    assert [world.maps.count[index] for index in range(4)] == [10, 10, 10, 10]


@pytest.mark.parametrize("engine", as_parameters())
def test_what_helpers_do_is_of_one_packet(engine: str) -> None:
    """Some packets are printed, some redirected, some grow, some shrink, some fault in a helper."""
    code = [
        copy(6, 1), *POINTERS, load(1, 7, 2, 0), imm(Op.AND, 7, 7),
        branch(Op.NE, 7, 1, 4), mov(1, 7), mov(2, 0), call(REDIRECT), EXIT,
        branch(Op.NE, 7, 2, 5), copy(1, 6), mov(2, -8), call(ADJUST_HEAD), mov(0, 2), EXIT,
        branch(Op.NE, 7, 3, 4), copy(1, 6), mov(2, -1), call(ADJUST_TAIL), EXIT,
        branch(Op.NE, 7, 4, 8), store_imm(8, 10, -8, 0x0A6968), copy(1, 10), imm(Op.ADD, 1, -8), mov(2, 4),
        call(PRINTK), mov(0, 3), branch(Op.EQ, 7, 4, 0), EXIT,
        branch(Op.NE, 7, 5, 2), call(9999), EXIT,
        mov(0, 1), EXIT,
    ]  # fmt: skip
    outcomes, _ = many(program(code, "xdp"), several(100), engine)
    assert outcomes[1].redirect == 7
    assert outcomes[4].trace == ("hi\n",)
    assert outcomes[5].fault is not None


@pytest.mark.parametrize("engine", as_parameters())
def test_tail_calls(engine: str) -> None:
    """Every second packet goes on in another program, whose faults are its own."""
    target = program([load(4, 2, 1, 0), load(8, 0, 2, 30), mov(0, 5), EXIT], "xdp", name="target")
    code = [*POINTERS, load(1, 4, 2, 0), imm(Op.AND, 4, 1), copy(3, 4), map_of(2, 0), call(12), mov(0, 9), EXIT]
    made = program(code, "xdp", (JUMPS,))
    outcomes = []
    for name in (engine, "reference"):
        world = World([JUMPS])
        world.maps.jumps[1] = target
        outcomes.append([(one.retval, one.fault) for one in run_many(made, several(64), world, name)])
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("engine", as_parameters())
def test_fuel_is_of_each_packet(engine: str) -> None:
    """A loop of as many turns as the first byte says; the python engine counts turns, not instructions."""
    code = [*POINTERS, load(1, 4, 2, 0), mov(0, 0), imm(Op.ADD, 0, 1), branch_reg(Op.LT, 0, 4, -2), EXIT]
    outcomes = run_many(program(code, "xdp"), several(256), World(), engine, fuel=200)
    assert {outcome.fault.kind if outcome.fault else "" for outcome in outcomes} == {"", "fuel"}


@pytest.mark.parametrize("engine", as_parameters())
def test_a_refused_packet_stops_it(engine: str) -> None:
    world = World()
    code = [value_of(1, 0), mov(0, 1), atomic(8, 0, 1, 0, 0), EXIT]
    with pytest.raises(InputRefused):
        run_many(program(code, "xdp", (COUNT,)), [bytes(14), bytes(20), bytes(13), bytes(14)], world, engine)
    assert world.maps.count[0] == 2


@pytest.mark.parametrize("engine", as_parameters())
def test_what_a_mock_raises_stops_it(engine: str) -> None:
    world = World()
    calls = []

    def third(call: Call) -> int:
        calls.append(call)
        if len(calls) == 3:
            raise LookupError("the test's own")
        return 1

    world.helpers.bpf_get_prandom_u32.does(third)
    with pytest.raises(LookupError):
        run_many(program([call(PRANDOM), EXIT], "xdp"), several(10), world, engine)
    assert len(calls) == 3
    assert run(program([call(PRANDOM), EXIT], "xdp"), bytes(60), world, engine).retval == 1


@pytest.mark.parametrize("engine", as_parameters())
def test_runs_after_a_batch(engine: str) -> None:
    """The machine is as the last packet left it: another run of the same size finds its own bounds."""
    made = program([*POINTERS, load(8, 0, 2, 40), mov(0, 1), EXIT], "xdp")
    world = World()
    run(made, bytes(60), world, engine)
    run_many(made, [bytes(60), bytes(20)], world, engine)
    assert run(made, bytes(60), world, engine).fault is None
    assert run(made, bytes(20), world, engine).fault is not None


@pytest.mark.parametrize("engine", as_parameters())
def test_other_programs_than_xdp(engine: str) -> None:
    made = program([load(4, 0, 1, 0), EXIT], "sched_cls")
    assert run_many(made, several(5), World(), engine).retvals == [14, 21, 28, 35, 42]
    assert run_many(program([mov(0, 3), EXIT], "xdp"), [], World(), engine).retvals == []


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.binary(min_size=14, max_size=70), min_size=1, max_size=30), st.integers(0, 3))
def test_any_packets(packets: list[bytes], key: int) -> None:
    """A table keyed by bytes of the packet, lookups that miss and hit, elements that go."""
    code = [
        *POINTERS, load(1, 4, 2, key), load(1, 5, 2, 5), store_imm(8, 10, -8, 0), store(1, 10, -8, 4), copy(7, 5),
        copy(2, 10), imm(Op.ADD, 2, -8), map_of(1, 0), branch(Op.LT, 7, 128, 2), call(DELETE), EXIT,
        call(1), branch(Op.EQ, 0, 0, 4), load(8, 6, 0, 0), imm(Op.ADD, 6, 3), store(8, 0, 0, 6), copy(0, 6), EXIT,
        copy(3, 10), imm(Op.ADD, 3, -8), copy(2, 3), map_of(1, 0), mov(4, 0), call(2), EXIT,
    ]  # fmt: skip
    for engine in ("python", *[name for name in ("native",) if name in HERE]):
        many(program(code, "xdp", (SEEN,)), packets, engine)
