"""What the native engine has of its own: worlds that move into arenas, runs inside of runs, calls out of its code."""

from __future__ import annotations

import gc
import importlib.util
import sys
from typing import Any

import pytest

from bpflisp.spec.isa import Op
from simulator.engines.engine import EngineUnavailable
from simulator.mocks import Call
from simulator.program import MapDef, Program
from simulator.run import engine_named, run
from simulator.world import World
from tests.engines import HERE
from tests.simulator.assembly import (
    EXIT,
    atomic,
    branch,
    call,
    call_function,
    copy,
    function,
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
from tests.simulator.engines.both import agreed, both

needs_native = pytest.mark.skipif("native" not in HERE, reason="the native engine does not work here")

PACKET = bytes(64)
COUNT = MapDef("count", "array", 4, 8, 4)
JUMPS = MapDef("jumps", "prog_array", 4, 4, 4)
HASH = MapDef("hash", "hash", 4, 8, 64)
LOOP, FOR_EACH, TAIL_CALL, PRANDOM = 181, 164, 12, 7


def test_without_unicorn_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    from simulator.engines.native.engine import NativeEngine

    monkeypatch.setitem(sys.modules, "unicorn", None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'bpflisp\[native\]'"):
        NativeEngine()


@needs_native
def test_it_is_made_when_it_is_asked_for() -> None:
    assert importlib.util.find_spec("unicorn") is not None
    assert engine_named("native").name == "native"


def counting(*tail: Any) -> Program:
    """Adds one to the first counter and returns what it has then."""
    return program([value_of(1, 0), mov(0, 1), atomic(8, 1, 1, 0, 0), imm(Op.ADD, 0, 1), *tail, EXIT], "xdp", (COUNT,))


@needs_native
def test_engines_take_turns_in_one_world() -> None:
    """The world's memory moves once; what every engine had linked before finds it where it is."""
    world, made = World(), counting()
    for turn in range(4):
        for at, engine in enumerate(("python", "reference", "python", "native", "python", "native")):
            assert run(made, PACKET, world, engine).retval == turn * 6 + at + 1
            assert world.maps.count[0] == turn * 6 + at + 1


@needs_native
def test_copies_of_a_world_are_apart() -> None:
    world, made = World(), counting()
    run(made, PACKET, world, "native")
    copy_of_it = world.copy()
    assert run(made, PACKET, copy_of_it, "native").retval == 2
    assert run(made, PACKET, copy_of_it, "python").retval == 3
    assert (world.maps.count[0], copy_of_it.maps.count[0]) == (1, 3)


@needs_native
def test_arenas_are_used_again_and_clean() -> None:
    host = engine_named("native").host  # type: ignore[attr-defined]
    made = counting()
    gc.collect()
    before = len(host._arenas)
    for _ in range(40):
        assert run(made, PACKET, World(), "native").retval == 1
        gc.collect()
    assert len(host._arenas) < before + 40


@needs_native
def test_many_worlds_at_once() -> None:
    worlds = [World() for _ in range(70)]
    for turn in (1, 2):
        assert [run(counting(), PACKET, world, "native").retval for world in worlds] == [turn] * 70


def test_loops_of_callbacks() -> None:
    """The callback adds its index to the context's number, and stops at 5."""
    code = [
        store_imm(8, 10, -8, 0), mov(1, 10), function(2, 10), copy(3, 10), imm(Op.ADD, 3, -8), mov(4, 0),
        call(LOOP), copy(6, 0), load(8, 0, 10, -8), imm(Op.LSH, 0, 8), reg(Op.ADD, 0, 6), EXIT,
        load(8, 3, 2, 0), reg(Op.ADD, 3, 1), store(8, 2, 0, 3), mov(0, 0), branch(Op.NE, 1, 5, 1), mov(0, 1), EXIT,
    ]  # fmt: skip
    assert agreed(program(code)).r0 == 15 << 8 | 6


def test_callbacks_inside_of_callbacks() -> None:
    """f calls g in a loop, g faults in its third frame: one place, one count."""
    loop = [mov(1, 2), function(2, 6), mov(3, 0), mov(4, 0), call(LOOP), mov(0, 0), EXIT]
    inner = [store(8, 10, -8, 1), *loop, load(8, 0, 3, 8), EXIT]
    outcome = agreed(program([*loop, *inner]))
    assert outcome.fault is not None
    assert (outcome.fault.kind, outcome.fault.address) == ("memory", 8)


@pytest.mark.parametrize("fuel", range(1, 60, 7))
def test_fuel_runs_out_in_a_callback(fuel: int) -> None:
    code = [
        mov(1, 10), function(2, 5), mov(3, 0), mov(4, 0), call(LOOP), mov(0, 0), EXIT,
        mov(0, 0), imm(Op.ADD, 1, 1), EXIT,
    ]  # fmt: skip
    reference, _, *native = both(program(code), fuel=fuel)
    for outcome in native:
        assert (outcome.fault, outcome.insns_executed) == (reference.fault, reference.insns_executed)


def test_every_element_of_a_map() -> None:
    world = World([HASH])
    for key in range(5):
        world.maps.hash[key] = key * 3
    code = [
        store_imm(8, 10, -8, 0), map_of(1, 0), function(2, 8), copy(3, 10), imm(Op.ADD, 3, -8), mov(4, 0),
        call(FOR_EACH), load(8, 6, 10, -8), reg(Op.ADD, 0, 6), EXIT,
        load(8, 5, 3, 0), load(8, 1, 4, 0), reg(Op.ADD, 1, 5), store(8, 4, 0, 1), mov(0, 0), EXIT,
    ]  # fmt: skip
    assert agreed(program(code, "xdp", (HASH,)), PACKET, world=world).r0 == 5 + 30


@needs_native
def test_a_callback_at_a_number_that_is_computed() -> None:
    """Nothing names the function: it is translated when it is called."""
    code = [
        mov(1, 3), function(2, 6), imm(Op.ADD, 2, 1), mov(3, 0), mov(4, 0), call(LOOP), EXIT,
        EXIT, mov(0, 0), branch(Op.EQ, 1, 1, 1), EXIT, mov(0, 1), EXIT,
    ]  # fmt: skip
    outcomes = [run(program(code), {"memory": b""}, World(), engine) for engine in ("reference", "native")]
    assert [(outcome.r0, outcome.fault) for outcome in outcomes] == [(2, None)] * 2


@needs_native
def test_a_program_that_calls_itself() -> None:
    """As a function, its first slot has another frame, and anything in r1."""
    code = [branch(Op.EQ, 1, 7, 4), store(8, 10, -8, 1), mov(1, 7), call_function(-4), EXIT, load(8, 0, 10, -8), EXIT]
    outcomes = [run(program(code), {"memory": b"ab"}, World(), engine) for engine in ("reference", "native")]
    assert [(outcome.r0, outcome.fault) for outcome in outcomes] == [(0, None)] * 2


@needs_native
def test_a_tail_call_out_of_a_function() -> None:
    """It returns to the caller, whose maps and slots are its own again."""
    target = program([value_of(1, 0), load(8, 0, 1), EXIT], "xdp", (COUNT,), name="target")
    caller = [
        copy(6, 1), call_function(5), copy(7, 0), value_of(1, 1), load(8, 0, 1), EXIT,
        map_of(2, 0), mov(3, 1), call(TAIL_CALL), mov(0, 99), EXIT,
    ]  # fmt: skip
    caller[5:6] = [reg(Op.ADD, 0, 7), load(1, 2, 0), EXIT]
    caller[1] = call_function(7)
    other = MapDef("other", "array", 4, 8, 1)
    made = program(caller, "xdp", (JUMPS, other))
    outcomes = []
    for engine in ("reference", "native"):
        world = World([JUMPS, COUNT, other])
        world.maps.count[0], world.maps.other[0] = 4, 5
        world.maps.jumps[1] = target
        outcomes.append(run(made, PACKET, world, engine))
    assert outcomes[0].fault is not None
    assert (outcomes[0].fault.address, outcomes[0].fault.kind) == (9, "memory")
    assert outcomes[1] == outcomes[0]


@needs_native
def test_a_context_that_is_another_in_a_tail_call() -> None:
    """The other program is given the stack's end: its load is checked, though its context is known elsewhere."""
    target = program([load(4, 0, 1, 4), EXIT], "xdp", name="target")
    made = program([copy(1, 10), map_of(2, 0), mov(3, 1), call(TAIL_CALL), EXIT], "xdp", (JUMPS,))
    faults = []
    for engine in ("reference", "native"):
        world = World([JUMPS])
        world.maps.jumps[1] = target
        faults.append(run(made, PACKET, world, engine).fault)
    assert faults[0] is not None
    assert faults[1] == faults[0]


@needs_native
def test_what_a_mock_raises_gets_through() -> None:
    world = World()

    def broken(call: Call) -> int:
        raise LookupError("the test's own")

    world.helpers.bpf_get_prandom_u32.does(broken)
    made = program([call(PRANDOM), EXIT], "xdp")
    with pytest.raises(LookupError, match="the test's own"):
        run(made, PACKET, world, "native")
    world.helpers.bpf_get_prandom_u32.returns(5)
    assert run(made, PACKET, world, "native").retval == 5


@needs_native
def test_a_mock_that_runs_another_program() -> None:
    world = World()
    world.helpers.bpf_get_prandom_u32.does(lambda _: run(counting(), PACKET, World(), "native").retval + 41)
    made = program([mov(6, 100), call(PRANDOM), reg(Op.ADD, 0, 6), EXIT], "xdp")
    assert run(made, PACKET, world, "native").retval == 142


@needs_native
def test_a_timer_runs_on_its_program() -> None:
    """It fires after the run, and after another program has run in that world."""
    timers = MapDef("timers", "array", 4, 24, 1)
    code = [
        value_of(6, 0), copy(1, 6), map_of(2, 0), mov(3, 1), call(169), copy(1, 6), function(2, 8), call(170),
        copy(1, 6), mov(2, 50), mov(3, 0), call(171), mov(0, 0), EXIT,
        value_of(1, 1), mov(2, 77), store(8, 1, 8, 2), mov(0, 0), EXIT,
    ]  # fmt: skip
    made = program(code, "xdp", (timers, COUNT))
    for engine in ("reference", "native"):
        world = World()
        assert run(made, PACKET, world, engine).fault is None
        run(counting(), PACKET, world, engine)
        world.clock.advance(100)
        assert world.maps.count[1] == 77


@needs_native
@pytest.mark.parametrize("size", range(1, 12))
def test_short_loops_count_and_fault_to_the_instruction(size: int) -> None:
    """Turns of a loop of one block are paid for together: it may stop in any of them."""
    code = [
        mov(2, 0), copy(3, 1),
        load(1, 4, 3, 0), imm(Op.ADD, 3, 1), imm(Op.ADD, 2, 1), branch(Op.NE, 2, 7, -4),
        copy(0, 2), EXIT,
    ]  # fmt: skip
    for fuel in (*range(40), 1000):
        reference, _, *native = both(program(code), {"memory": bytes(size)}, fuel=fuel)
        for outcome in native:
            assert (outcome.fault, outcome.r0) == (reference.fault, reference.r0)
            assert outcome.insns_executed == reference.insns_executed
