"""The kernel engine: worlds into the kernel and out of it, and a plain word where that cannot be."""

from __future__ import annotations

import struct
from functools import cache

import pytest

from simulator.engines import bpf_syscall
from simulator.engines.engine import EngineUnavailable
from simulator.engines.kernel import KernelRefusedError
from simulator.packet import InputRefused
from simulator.program import MapDef, Program
from simulator.run import run
from simulator.world import World
from tests import no_bpf

PACKET = bytes(range(64))
PASS = "b7000000020000009500000000000000"


@cache
def _available() -> tuple[bool, str]:
    return bpf_syscall.available()


@pytest.fixture
def kernel() -> str:
    works, why = _available()
    if not works:
        pytest.skip(why)
    return "kernel"


def _insn(opcode: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, dst | src << 4, off, imm)


def _map(register: int, index: int) -> bytes:
    return _insn(0x18, register, 5, 0, index) + bytes(8)


KEY_ON_STACK = _insn(0x62, 10, off=-4, imm=7) + _insn(0xBF, 2, 10) + _insn(0x07, 2, imm=-4)
CALL_LOOKUP, CALL_UPDATE, CALL_DELETE = (_insn(0x85, imm=number) for number in (1, 2, 3))
RETURN_0 = _insn(0xB7, 0) + _insn(0x95)

# if ((v = lookup(m, &7))) *v += 1; return 0
COUNT = (
    KEY_ON_STACK + _map(1, 0) + CALL_LOOKUP + _insn(0x15, 0, off=2) + _insn(0xB7, 1, imm=1)
    + _insn(0xDB, 0, 1) + RETURN_0
)  # fmt: skip
# delete(m, &7); return 0
DELETE = KEY_ON_STACK + _map(1, 0) + CALL_DELETE + RETURN_0
# *(u64 *)(fp - 16) = 9; update(m, &7, fp - 16, ANY); return 0
UPDATE = (
    KEY_ON_STACK + _insn(0x7A, 10, off=-16, imm=9) + _map(1, 0) + _insn(0xBF, 3, 10) + _insn(0x07, 3, imm=-16)
    + _insn(0xB7, 4) + CALL_UPDATE + RETURN_0
)  # fmt: skip
# ringbuf_output(m, fp - 4, 4, 0); return r0
OUTPUT = (
    KEY_ON_STACK + _map(1, 0) + _insn(0xB7, 3, imm=4) + _insn(0xB7, 4) + _insn(0x85, imm=130) + _insn(0x95)
)  # fmt: skip


def _hash(kind: str = "hash") -> MapDef:
    return MapDef("m", kind, key_size=4, value_size=8, max_entries=16)


@pytest.mark.parametrize("kind", ["hash", "lru_hash", "array"])
def test_values_go_in_and_come_out(kernel: str, kind: str) -> None:
    world = World([_hash(kind)])
    world.maps.m[7], world.maps.m[8] = 40, 2
    run(Program(COUNT, "xdp", [_hash(kind)]), PACKET, world, kernel)
    assert (world.maps.m[7], world.maps.m[8]) == (41, 2)
    world.maps.m[7] = 100
    run(Program(COUNT, "xdp", [_hash(kind)]), PACKET, world, kernel, repeat=3)
    assert world.maps.m[7] == 103


def test_keys_come_and_go_on_both_sides(kernel: str) -> None:
    update, delete = Program(UPDATE, "xdp", [_hash()]), Program(DELETE, "xdp", [_hash()])
    world = World()
    run(update, PACKET, world, kernel)
    assert dict(world.maps.m.items()) == {7: 9}
    del world.maps.m[7]
    world.maps.m[1] = 5
    run(delete, PACKET, world, kernel)
    assert dict(world.maps.m.items()) == {1: 5}
    run(update, PACKET, world, kernel)
    run(delete, PACKET, world, kernel)
    assert dict(world.maps.m.items()) == {1: 5}


def test_per_cpu_values_are_those_of_the_world_s_cpu(kernel: str) -> None:
    for cpu in range(2):
        world = World([_hash("percpu_array")], cpu=cpu)
        world.maps.m[7] = [10, 20]
        try:
            run(Program(COUNT, "xdp", [_hash("percpu_array")]), PACKET, world, kernel)
        except EngineUnavailable as error:
            pytest.skip(str(error))
        assert world.maps.m[7] == [10 + (cpu == 0), 20 + (cpu == 1)]


def test_a_ring_buffer_fills_up_as_the_world_s_reader_reads(kernel: str) -> None:
    ring = MapDef("m", "ringbuf", max_entries=4096)
    program, world = Program(OUTPUT, "xdp", [ring]), World()
    results = [run(program, PACKET, world, kernel).retval for _ in range(257)]
    # 4 bytes and their header take 16; one byte of 4096 stays free.
    assert results == [0] * 255 + [0xFFFFFFF5] * 2
    assert world.maps.m.read() == [bytes([7, 0, 0, 0])] * 255  # type: ignore[attr-defined]
    assert run(program, PACKET, world, kernel).retval == 0
    assert list(world.maps.m) == [bytes([7, 0, 0, 0])]


def test_records_of_another_engine_are_not_lost_in_silence(kernel: str) -> None:
    ring = MapDef("m", "ringbuf", max_entries=4096)
    world = World([ring])
    world.maps.m.output(b"abcd")  # type: ignore[attr-defined]
    with pytest.raises(EngineUnavailable, match="holds records of another engine"):
        run(Program(OUTPUT, "xdp", [ring]), PACKET, world, kernel)


def test_samples_reach_the_world_s_readers(kernel: str) -> None:
    events = MapDef("m", "perf_event_array", key_size=4, value_size=4, max_entries=2)
    # perf_event_output(ctx, m, BPF_F_CURRENT_CPU, fp - 4, 4); return r0
    output = (
        KEY_ON_STACK + _map(2, 0) + _insn(0x18, 3, imm=-1) + bytes(8) + _insn(0xBF, 4, 10) + _insn(0x07, 4, imm=-4)
        + _insn(0xB7, 5, imm=4) + _insn(0x85, imm=25) + _insn(0x95)
    )  # fmt: skip
    program, world = Program(output, "xdp", [events]), World()
    assert [run(program, PACKET, world, kernel).retval for _ in range(2)] == [0, 0]
    assert world.maps.m.read() == [bytes([7, 0, 0, 0])] * 2  # type: ignore[attr-defined]
    world.maps.m.closed.add(0)  # type: ignore[attr-defined]
    assert run(program, PACKET, world, kernel).retval == 0xFFFFFFFE


def test_raw_tracepoints_get_their_arguments(kernel: str) -> None:
    second = _insn(0x79, 0, 1, 8) + _insn(0x95)
    assert run(Program(second, "raw_tracepoint"), {"args": [1, 77]}, engine=kernel).retval == 77


def test_tail_calls_reach_what_the_world_s_array_names(kernel: str) -> None:
    array = MapDef("m", "prog_array", key_size=4, value_size=4, max_entries=4)
    jump = _map(2, 0) + _insn(0xB7, 3, imm=1) + _insn(0x85, imm=12) + _insn(0xB7, 0, imm=2) + _insn(0x95)
    caller, target = Program(jump, "xdp", [array]), Program(_insn(0xB7, 0, imm=1) + _insn(0x95), "xdp")
    world = World([array])
    assert run(caller, PACKET, world, kernel).retval == 2
    world.maps.m[1] = target
    assert run(caller, PACKET, world, kernel).retval == 1
    del world.maps.m[1]
    assert run(caller, PACKET, world, kernel).retval == 2


def test_packet_and_context_come_back(kernel: str) -> None:
    # r2 = data; if data + 14 > data_end goto out; *(u8 *)data = 0xee; out: return 2
    write = (
        _insn(0x61, 2, 1, 0) + _insn(0x61, 3, 1, 4) + _insn(0xBF, 4, 2) + _insn(0x07, 4, imm=14)
        + _insn(0x2D, 4, 3, 1) + _insn(0x72, 2, imm=0xEE) + _insn(0xB7, 0, imm=2) + _insn(0x95)
    )  # fmt: skip
    assert run(Program(write, "xdp"), PACKET, engine=kernel).packet == b"\xee" + PACKET[1:]
    # skb->mark += 1; return 0
    mark = _insn(0x61, 2, 1, 8) + _insn(0x07, 2, imm=1) + _insn(0x63, 1, 2, 8) + RETURN_0
    frame = bytes(12) + b"\x88\x88" + bytes(50)
    outcome = run(Program(mark, "sched_cls"), frame, engine=kernel, context={"mark": 41})
    assert outcome.context["mark"] == 42


def test_a_refused_program_says_so_with_the_log(kernel: str) -> None:
    with pytest.raises(KernelRefusedError, match="R0 !read_ok") as caught:
        run(Program(_insn(0x95), "xdp", name="bare"), PACKET, engine=kernel)
    assert "0: (95) exit" in caught.value.log


@pytest.mark.parametrize("size", [0, 13])
def test_a_short_packet_is_refused(kernel: str, size: int) -> None:
    with pytest.raises(InputRefused, match="EINVAL"):
        run(Program(bytes.fromhex(PASS), "xdp"), bytes(size), engine=kernel)


def test_what_the_kernel_cannot_do_is_said(kernel: str) -> None:
    program = Program(bytes.fromhex(PASS), "xdp")
    with pytest.raises(EngineUnavailable, match="no test run for kprobe"):
        run(Program(bytes.fromhex(PASS), "kprobe"), engine=kernel)
    with pytest.raises(EngineUnavailable, match="does not show its steps"):
        run(program, PACKET, engine=kernel, trace=True)
    world = World()
    world.helpers.bpf_ktime_get_ns.returns(5)
    with pytest.raises(EngineUnavailable, match="mocks bpf_ktime_get_ns"):
        run(program, PACKET, world, kernel)
    with pytest.raises(EngineUnavailable, match="CPU 4000"):
        run(program, PACKET, World(cpus=4001, cpu=4000), kernel)


@pytest.mark.parametrize("where", ["devmap", "cpumap"])
def test_programs_behind_a_redirect_have_no_test_run(kernel: str, where: str) -> None:
    """The kernel refuses every input of theirs: they are left out, not taken for a difference."""
    program = Program(bytes.fromhex(PASS), "xdp", section=f"xdp/{where}", attach_type=f"xdp_{where}")
    assert program.run(bytes(64), engine="python").retval == 2
    with pytest.raises(EngineUnavailable, match=f"no test run for programs of xdp/{where}"):
        program.run(bytes(64), engine=kernel)


def _without_bpf() -> str:
    try:
        run(Program(bytes.fromhex(PASS), "xdp"), PACKET, engine="kernel")
    except EngineUnavailable as error:
        return str(error)
    return "it ran"


def test_without_bpf_the_engine_is_unavailable_and_says_why() -> None:
    try:
        why = no_bpf.run(_without_bpf)
    except no_bpf.FilterError as error:
        pytest.skip(str(error))
    assert why.startswith("the kernel engine cannot run: bpf(2) is refused: ")


@pytest.mark.parametrize(("kind", "left"), [("queue", [b"b" * 8, b"c" * 8]), ("stack", [b"a" * 8, b"b" * 8])])
def test_queues_keep_their_order_on_both_sides(kernel: str, kind: str, left: list[bytes]) -> None:
    # pop(m, fp - 8); return the low half of what came out
    pop = (
        _insn(0x7A, 10, off=-8) + _insn(0xBF, 2, 10) + _insn(0x07, 2, imm=-8) + _map(1, 0) + _insn(0x85, imm=88)
        + _insn(0x61, 0, 10, -8) + _insn(0x95)
    )  # fmt: skip
    queue = MapDef("m", kind, value_size=8, max_entries=4)
    world = World([queue])
    for letter in b"abc":
        world.maps.m.update(b"", bytes([letter]) * 8)
    taken = run(Program(pop, "xdp", [queue]), PACKET, world, kernel).retval
    assert taken == int.from_bytes((b"a" if kind == "queue" else b"c") * 4, "little")
    assert world.maps.m.pushed == left  # type: ignore[attr-defined]
    assert [run(Program(pop, "xdp", [queue]), PACKET, world, kernel).retval for _ in range(3)][2] == 0
    assert len(world.maps.m) == 0


def test_a_bloom_filter_has_the_world_s_values(kernel: str) -> None:
    peek = (
        _insn(0x7A, 10, off=-8, imm=5) + _insn(0xBF, 2, 10) + _insn(0x07, 2, imm=-8) + _map(1, 0)
        + _insn(0x85, imm=89) + _insn(0x95)
    )  # fmt: skip
    bloom = MapDef("m", "bloom_filter", value_size=8, max_entries=100)
    world = World([bloom])
    assert run(Program(peek, "xdp", [bloom]), PACKET, world, kernel).retval == 0xFFFFFFFE
    world.maps.m.update(b"", (5).to_bytes(8, "little"))
    assert run(Program(peek, "xdp", [bloom]), PACKET, world, kernel).retval == 0


@pytest.mark.parametrize("kind", ["array_of_maps", "hash_of_maps"])
def test_maps_in_maps_are_reached_and_come_out_again(kernel: str, kind: str) -> None:
    inner = MapDef("inner", "array", key_size=4, value_size=8, max_entries=8)
    outer = MapDef("m", kind, key_size=4, value_size=4, max_entries=8, inner=inner)
    # if ((i = lookup(m, &7)) && (v = lookup(i, &7))) *v += 1; return 0
    count = (
        KEY_ON_STACK + _map(1, 0) + CALL_LOOKUP + _insn(0x15, 0, off=7) + _insn(0xBF, 1, 0) + _insn(0xBF, 2, 10)
        + _insn(0x07, 2, imm=-4) + CALL_LOOKUP + _insn(0x15, 0, off=2) + _insn(0xB7, 1, imm=1) + _insn(0xDB, 0, 1)
        + RETURN_0
    )  # fmt: skip
    program, world = Program(count, "xdp", [outer]), World([outer])
    run(program, PACKET, world, kernel)
    world.maps.m[7] = world.add_map(inner, "first")
    world.maps.first[7] = 40
    run(program, PACKET, world, kernel)
    assert world.maps.first[7] == 41
    world.maps.m[7] = world.add_map(inner, "second")
    run(program, PACKET, world, kernel)
    assert (world.maps.first[7], world.maps.second[7]) == (41, 1)
    del world.maps.m[7]
    run(program, PACKET, world, kernel)
    assert (world.maps.first[7], world.maps.second[7]) == (41, 1)


def test_a_syscall_program_reads_its_context(kernel: str) -> None:
    second = _insn(0x61, 0, 1, 4) + _insn(0x95)
    program = Program(second, "syscall", flags=0x10)
    assert run(program, {"raw": b"\1\0\0\0\2\0\0\0"}, engine=kernel).retval == 2


@pytest.mark.parametrize("engine", ["reference", "python", "kernel"])
def test_samples_are_filled_up_as_readers_see_them(kernel: str, engine: str) -> None:
    events = MapDef("m", "perf_event_array", key_size=4, value_size=4, max_entries=2)
    # perf_event_output(ctx, m, BPF_F_CURRENT_CPU, fp - 4, 3); return r0
    output = (
        KEY_ON_STACK + _map(2, 0) + _insn(0xB4, 3, imm=-1) + _insn(0xBF, 4, 10) + _insn(0x07, 4, imm=-4)
        + _insn(0xB7, 5, imm=3) + _insn(0x85, imm=25) + _insn(0x95)
    )  # fmt: skip
    world = World()
    assert run(Program(output, "xdp", [events]), PACKET, world, engine).retval == 0
    assert world.maps.m.read() == [bytes([7, 0, 0, 0])]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kind", "target"), [("devmap", 1), ("devmap_hash", 1), ("cpumap", 192)])
def test_targets_of_redirects_are_carried_over(kernel: str, kind: str, target: int) -> None:
    """A redirect finds a target that the world has, and no longer when it is gone. Interface 1 and CPU 1 are there."""
    made = MapDef("targets", kind, 4, 4, 4)
    code = _map(1, 0) + _insn(0xB7, 2, imm=1) + _insn(0xB7, 3, imm=1) + _insn(0x85, imm=51) + _insn(0x95)
    program, world = Program(code, "xdp", [made]), World([made])
    world.maps.targets[1] = target
    assert run(program, PACKET, world, kernel).retval == 4
    world.maps.targets.delete(b"\1\0\0\0")
    assert run(program, PACKET, world, kernel).retval == 1


def test_a_target_that_the_host_has_not(kernel: str) -> None:
    made = MapDef("targets", "devmap", 4, 4, 4)
    program, world = Program(_map(1, 0) + RETURN_0, "xdp", [made]), World([made])
    world.maps.targets[1] = 30_000
    with pytest.raises(EngineUnavailable):
        run(program, PACKET, world, kernel)
