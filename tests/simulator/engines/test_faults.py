"""Faults: the same kind, address, size and instruction on every engine."""

from __future__ import annotations

import pytest

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Op
from simulator.memory import CONTEXT_BASE, PACKET_BASE, STACK_BASE
from simulator.packet import InputRefused
from simulator.program import LineInfo, MapDef, Program
from simulator.run import run
from simulator.world import World
from tests.engines import HERE, as_parameters
from tests.simulator.assembly import (
    EXIT,
    branch,
    branch_reg,
    call,
    call_function,
    copy,
    function,
    imm,
    jump,
    load,
    map_of,
    mov,
    program,
    reg,
    store,
    store_imm,
    value_of,
)
from tests.simulator.engines.both import agreed

MEMORY = {"memory": bytes(range(16))}


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("write", [False, True], ids=["load", "store"])
def test_bounds_are_exact(size: int, write: bool) -> None:
    access = store(size, 1, 16 - size, 1) if write else load(size, 0, 1, 16 - size)
    assert agreed(program([access, mov(0, 0), EXIT]), MEMORY).fault is None
    for off in (16 - size + 1, 16, -1, -size, -32768, 32767):
        access = store(size, 1, off, 1) if write else load(size, 0, 1, off)
        fault = agreed(program([mov(0, 0), access, EXIT]), MEMORY).fault
        assert fault is not None
        assert (fault.kind, fault.insn, fault.address, fault.size) == ("memory", 1, CONTEXT_BASE + off, size)


@pytest.mark.parametrize("off", [-8, -512])
def test_the_stack_is_512_bytes(off: int) -> None:
    assert agreed(program([store_imm(8, 10, off, 1), load(8, 0, 10, off), EXIT])).r0 == 1


@pytest.mark.parametrize(("off", "size"), [(0, 1), (-7, 8), (-513, 1), (-520, 8), (-516, 8)])
def test_beside_the_stack(off: int, size: int) -> None:
    fault = agreed(program([store_imm(size, 10, off, 1), mov(0, 0), EXIT])).fault
    assert fault is not None
    assert (fault.kind, fault.insn, fault.address) == ("memory", 0, STACK_BASE + 512 + off)


def test_packet_bounds_by_a_variable_offset() -> None:
    code = [load(4, 2, 1, 0), load(4, 3, 1, 4), copy(4, 2), load(1, 5, 2, 0), reg(Op.ADD, 4, 5), load(4, 0, 4, 0), EXIT]
    made = program(code, "xdp")
    assert agreed(made, bytes([10]) + bytes(13)).fault is None
    fault = agreed(made, bytes([11]) + bytes(13)).fault
    assert fault is not None
    assert (fault.kind, fault.insn, fault.address, fault.size, fault.region) == (
        "memory", 5, PACKET_BASE + 11, 4, "packet",
    )  # fmt: skip


@pytest.mark.parametrize("address", [0, 1, 0x3FFF_FFFF, 0x4000_0000, 1 << 32, 1 << 63, (1 << 64) - 1])
def test_addresses_that_are_nobodys(address: int) -> None:
    code = [load(8, 2, 1), load(1, 0, 2), EXIT]
    fault = agreed(program(code), {"memory": address.to_bytes(8, "little")}).fault
    assert fault is not None
    assert (fault.kind, fault.address, fault.insn) == ("memory", address, 1)


def test_read_only_maps() -> None:
    maps = (MapDef(".rodata", "array", 4, 8, 1, flags=128, init=b"\x07" + bytes(7), frozen=True),)
    assert agreed(program([value_of(1, 0), load(8, 0, 1), EXIT], "xdp", maps), bytes(14)).r0 == 7
    fault = agreed(program([value_of(1, 0, 4), store_imm(4, 1, 0, 1), mov(0, 0), EXIT], "xdp", maps), bytes(14)).fault
    assert fault is not None
    assert (fault.kind, fault.insn, fault.region) == ("read-only", 2, "map .rodata")


def test_null_from_a_lookup() -> None:
    maps = (MapDef("m", "hash", 4, 8, 4),)
    code = [store_imm(4, 10, -4, 1), copy(2, 10), imm(Op.ADD, 2, -4), map_of(1, 0), call(1), load(8, 0, 0), EXIT]
    fault = agreed(program(code, "xdp", maps), bytes(14)).fault
    assert fault is not None
    assert (fault.kind, fault.insn, fault.address, fault.size) == ("memory", 6, 0, 8)


def test_a_key_outside_of_memory() -> None:
    maps = (MapDef("m", "hash", 4, 8, 4),)
    code = [copy(2, 10), imm(Op.ADD, 2, -3), map_of(1, 0), call(1), mov(0, 0), EXIT]
    fault = agreed(program(code, "xdp", maps), bytes(14)).fault
    assert fault is not None
    assert (fault.kind, fault.insn, fault.address, fault.size) == ("memory", 4, STACK_BASE + 509, 4)


@pytest.mark.parametrize(
    "code",
    [
        [jump(-1)],
        [mov(1, 0), imm(Op.ADD, 1, 1), jump(-2)],
        [mov(1, 5), branch(Op.NE, 1, 0, -1), EXIT],
        [mov(1, 0), branch(Op.EQ, 1, 0, 1), jump(1), jump(-3), jump(-3)],
    ],
    ids=["itself", "counting", "branch", "tangle"],
)
def test_programs_that_would_not_end(code: list[Insn]) -> None:
    fault = agreed_kind(program(code))
    assert fault == "fuel"


def agreed_kind(made: Program) -> str:
    from tests.simulator.engines.both import both

    kinds = {outcome.fault.kind if outcome.fault else "" for outcome in both(made, fuel=3000)}
    assert len(kinds) == 1
    return kinds.pop()


@pytest.mark.parametrize(
    ("code", "insn"),
    [
        ([mov(0, 0)], 1),
        ([jump(5), EXIT], 6),
        ([mov(0, 0), jump(-3)], -1),
        ([branch(Op.EQ, 3, 0, 7), EXIT], 8),
        ([], 0),
    ],
)
def test_ways_out_of_the_program(code: list[Insn], insn: int) -> None:
    fault = agreed(program(code)).fault
    assert fault is not None
    assert (fault.kind, fault.insn) == ("jump", insn)


@pytest.mark.parametrize(
    "insn",
    [Insn(0xFF), Insn(0xB7, 0, 1), Insn(0x95, imm=1), Insn(0xB7, 11), Insn(0x0F, 0, 12), Insn(0xD7, 0, imm=8),
     Insn(0xDB, 10, 1, -8, imm=2), Insn(0xBF, 0, 1, 5), Insn(0x81 | 0x18, 0, 1)],
)  # fmt: skip
def test_what_is_no_instruction(insn: Insn) -> None:
    fault = agreed(program([mov(0, 0), insn, EXIT])).fault
    assert fault is not None
    assert (fault.kind, fault.insn) == ("illegal", 1)


@pytest.mark.parametrize("second", ["9500000000000000", "0001000000000000", ""])
def test_half_a_wide_load(second: str) -> None:
    made = Program(bytes.fromhex("b7000000000000001801000000000000" + second), "conformance")
    fault = agreed(made).fault
    assert fault is not None
    assert (fault.kind, fault.insn) == ("illegal", 1)


def looped_twice() -> list[Insn]:
    """bpf_loop eight million times over a function that does the same over one that returns 0."""
    rounds = [mov(1, 1 << 23), function(2, 6), mov(3, 0), mov(4, 0), call(181), mov(0, 0), EXIT]
    return [*rounds, *rounds, mov(0, 0), EXIT]


def test_loops_of_helpers_take_fuel() -> None:
    assert agreed_kind(program(looped_twice())) == "fuel"


def test_functions_that_call_and_call_take_fuel() -> None:
    # Seven functions, each of which calls the next one twelve times: 12**7 calls.
    code: list[Insn] = []
    for _ in range(7):
        code += [*(call_function(12 - number) for number in range(12)), EXIT]
    assert agreed_kind(program([*code, mov(0, 0), EXIT])) == "fuel"


@pytest.mark.parametrize("engine", as_parameters())
def test_a_trace_has_each_instruction_and_the_registers_after_it(engine: str) -> None:
    made = program([mov(1, 2), imm(Op.ADD, 1, 3), branch(Op.EQ, 1, 5, 1), mov(0, 9), mov(0, 7), EXIT])
    outcome = run(made, MEMORY, engine=engine, trace=True)
    assert [line.partition(":")[0] for line in outcome.trace] == ["0", "1", "2", "4", "5"]
    assert outcome.trace[1].startswith("1: (07) r1 += 3 ; ")
    assert " r1=0x5 " in outcome.trace[1]
    assert outcome.retval == 7


def test_more_than_eight_frames() -> None:
    assert agreed(nested(7)).r0 == 7
    fault = agreed(nested(8)).fault
    assert fault is not None
    assert fault.kind == "stack"


def nested(depth: int) -> Program:
    """Functions that call each other `depth` deep; each adds one."""
    code: list[Insn] = []
    for _ in range(depth):
        code += [call_function(2), imm(Op.ADD, 0, 1), EXIT]
    return program([*code, mov(0, 0), EXIT])


def test_helpers_that_are_not_there() -> None:
    fault = agreed(program([call(9999), EXIT])).fault
    assert fault is not None
    assert (fault.kind, fault.message) == ("helper", "there is no helper number 9999")
    fault = agreed(program([call(147), EXIT])).fault
    assert fault is not None
    assert "world.helpers.bpf_d_path.returns(0)" in fault.message
    world = World()
    world.helpers.bpf_d_path.returns(33)
    assert agreed(program([call(147), EXIT]), world=world).r0 == 33


def test_a_fault_names_its_source_line() -> None:
    made = program([mov(0, 0), load(8, 0, 1, 16), EXIT])
    lines = (LineInfo(0, "a.c", "int r = 0;", 3, 1), LineInfo(1, "a.c", "  r = *p;", 4, 7))
    fault = agreed(Program(made.insns, made.type, line_info=lines), MEMORY).fault
    assert fault is not None
    assert fault.source == "a.c:4: r = *p;"


def test_faults_inside_functions_and_one_line_expressions() -> None:
    """The load goes into the line of the branch after it, and is still the instruction that faults."""
    code = [call_function(1), EXIT, load(1, 2, 1, 20), branch(Op.EQ, 2, 0, 1), mov(0, 1), EXIT]
    fault = agreed(program(code), MEMORY).fault
    assert fault is not None
    assert (fault.insn, fault.address) == (2, CONTEXT_BASE + 20)


@pytest.mark.parametrize("engine", as_parameters())
@pytest.mark.parametrize("kind", ["xdp", "sched_cls", "socket_filter"])
@pytest.mark.parametrize("packet", [None, b"", bytes(13)])
def test_packets_under_14_bytes_are_refused(engine: str, kind: str, packet: bytes | None) -> None:
    made = program([mov(0, 0), EXIT], kind)
    with pytest.raises(InputRefused, match="EINVAL") as refused:
        made.run(packet, engine=engine)
    assert refused.value.errno == 22
    assert made.run(bytes(14), engine=engine).fault is None


def test_signed_comparison_of_registers() -> None:
    code = [mov(1, -1), mov(2, 1), mov(0, 0), branch_reg(Op.SLT, 1, 2, 1), EXIT, mov(0, 1), EXIT]
    assert agreed(program(code)).r0 == 1


def test_a_timer_runs_out_between_runs_whatever_the_run_before_took() -> None:
    """The run that starts the timer takes fuel of its own; what the timer runs is no part of it."""
    timer = MapDef("m", "array", key_size=4, value_size=24, max_entries=1)
    # r6 = &m[0]; timer_init(r6 + 8, m, 1); timer_set_callback(..., f); timer_start(..., 1000, 0); f: m[0] += 1
    start = [
        value_of(6, 0), copy(1, 6), imm(Op.ADD, 1, 8), map_of(2, 0), mov(3, 1), call(169),
        copy(1, 6), imm(Op.ADD, 1, 8), function(2, 9), call(170),
        copy(1, 6), imm(Op.ADD, 1, 8), mov(2, 1000), mov(3, 0), call(171), mov(0, 0), EXIT,
        load(8, 1, 3, 0), imm(Op.ADD, 1, 1), store(8, 3, 0, 1), mov(0, 0), EXIT,
    ]  # fmt: skip
    for engine in HERE:
        world = World([timer])
        outcome = run(program(start, maps=[timer]), MEMORY, world, engine, fuel=40)
        assert outcome.fault is None
        world.clock.advance(ms=1)
        value = world.maps.m.lookup(bytes(4))
        assert value is not None
        assert int.from_bytes(value[:8], "little") == 1
