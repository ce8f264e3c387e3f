"""Calls of programs: verified once, in a fresh world, on the engines that are in force."""

from __future__ import annotations

import pytest

from pytest_plugin import Drop, Pass, TcAct
from simulator import (
    EnginesDifferError,
    EngineUnavailable,
    FaultError,
    InputRefused,
    Outcome,
    Program,
    RefusedError,
    Settings,
    Verdict,
    World,
    load,
    using,
)
from simulator import calling as calls
from tests.plugin.objects import BAD_CONTEXT, NO_MEMORY, PORT_BLOCKER, PRANDOM, RETURNS_2, ROOT, xdp

PACKET = bytes(14)
TELNET = bytes.fromhex(
    "02000000000202000000000108004500002800010000400666cd0a0000010a000002001400170000000000000000500220007bb50000"
)


def test_a_refused_program_is_not_run() -> None:
    program = xdp(BAD_CONTEXT)
    with pytest.raises(
        RefusedError, match=r"refused\[context-access\]: p on 6.18.44: invalid bpf_context access off=0 size=1"
    ):
        program(PACKET)
    assert program(PACKET, verify=False).outcome.fault is None


def test_each_kernel_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def verify(self: object, kernel: str, kernel_btf: object = None) -> Verdict:
        asked.append(kernel)
        return Verdict(True, kernel)

    monkeypatch.setattr("simulator.program.Program.verify", verify)
    program = xdp(RETURNS_2)
    with using(Settings(kernels=("6.1", "6.18"))):
        program(PACKET)
        program(PACKET)
    program(PACKET, kernel="5.10")
    assert asked == ["6.1", "6.18", "5.10"]


def test_maps_are_fresh_in_each_call() -> None:
    fw = load(PORT_BLOCKER)["port_blocker"]
    assert fw(TELNET) == Pass
    assert fw(TELNET, maps={"blocked": {23: 0}}) == Drop
    assert fw(TELNET) == Pass


def test_a_world_that_is_given_goes_on() -> None:
    fw = load(PORT_BLOCKER)["port_blocker"]
    world = World()
    world.bind(fw)
    world.maps.blocked[23] = 0
    fw(TELNET, world=world)
    fw(TELNET, world=world)
    assert world.maps.blocked[23] == 2


def test_a_tail_call_finds_the_other_programs_of_the_object() -> None:
    obj = load(ROOT / "fixtures" / "twins" / "dispatch.o")
    assert obj["main_prog"].siblings is obj.programs
    assert obj["main_prog"](PACKET) == Pass
    assert obj["main_prog"](PACKET, maps={"dispatch": {0: "handler_b"}}) == Drop


def test_a_fault_is_raised() -> None:
    with pytest.raises(
        FaultError, match=r"error\[fault-memory\]: p: .*\n  \| insn 1: \(79\) r0 = \*\(u64 \*\)\(r1 \+0\)"
    ):
        xdp(NO_MEMORY)(PACKET, verify=False)


def test_what_the_kernel_refuses_as_input_is_refused() -> None:
    with pytest.raises(InputRefused, match="14 bytes"):
        xdp(RETURNS_2)(bytes(13))


def test_an_unknown_engine() -> None:
    with pytest.raises(ValueError, match="no engine 'gpu'"):
        xdp(RETURNS_2)(PACKET, engine="gpu")


def test_all_engines_run_and_those_that_cannot_are_told() -> None:
    told: dict[str, str] = {}
    with using(Settings(engines=calls.ALL, left_out=told.__setitem__)):
        assert xdp(RETURNS_2)(PACKET) == Pass
        assert not {"python", "reference"} & set(told)
        xdp(PRANDOM)(PACKET, verify=False)
    assert told["kernel"] == "bpf_get_prandom_u32 gives what this host has, not what the world has"


def test_engines_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(program: object, packet: object, world: World, engine: str, **options: object) -> Outcome:
        if engine == "reference":
            world.maps.blocked[1] = 2
        return Outcome(1 if engine == "python" else 2, b"ab")

    monkeypatch.setattr(calls, "run", run)
    fw = load(PORT_BLOCKER)["port_blocker"]
    with pytest.raises(EnginesDifferError) as error, using(Settings(engines=("python", "reference"))):
        fw(PACKET)
    assert str(error.value).splitlines() == [
        "engines python and reference differ",
        "  return value: 1 on python, 2 on reference",
        "  map blocked: {} on python, {'01000000': '0200000000000000'} on reference",
    ]


RUNS_ON_PACKETS = (
    "xdp", "sched_cls", "sched_act", "socket_filter", "cgroup_skb", "lwt_in", "lwt_out", "lwt_xmit", "flow_dissector",
)  # fmt: skip


@pytest.mark.parametrize("type", RUNS_ON_PACKETS)
def test_every_type_of_packet_program_can_be_held_against_the_kernel(type: str) -> None:
    """What one engine says of a context and another does not is no difference."""
    told: dict[str, str] = {}
    with using(Settings(engines=calls.ALL, left_out=told.__setitem__)):
        result = Program(bytes.fromhex("b700000001000000 9500000000000000"), type)(TELNET)
    assert result == 1
    if told.get("kernel", "").startswith("the kernel engine cannot run: "):
        pytest.skip(told["kernel"])
    assert "kernel" not in told


def test_what_the_kernel_hands_back_of_a_context_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"python": {"mark": 7, "tc_index": 1}, "kernel": {"mark": 7}, "reference": {"mark": 7, "tc_index": 2}}

    def run(program: object, packet: object, world: World, engine: str, **options: object) -> Outcome:
        return Outcome(0, b"ab", context=fields[engine])

    monkeypatch.setattr(calls, "run", run)
    program = Program(bytes.fromhex(RETURNS_2), "sched_cls")
    with using(Settings(engines=("python", "kernel"), verify=False)):
        assert program(PACKET) == TcAct.OK
    python, kernel, reference = (program(PACKET, engine=engine, verify=False) for engine in fields)
    assert python == kernel
    assert kernel == reference
    assert python != reference
    fields["kernel"] = {"mark": 8}
    assert python != program(PACKET, engine="kernel", verify=False)
    with (
        using(Settings(engines=("python", "kernel", "reference"), verify=False)),
        pytest.raises(EnginesDifferError, match="context field mark: 7 on python, 8 on kernel"),
    ):
        program(PACKET)


def test_no_engine_at_all() -> None:
    with using(Settings(engines=("kernel",))), pytest.raises(EngineUnavailable):
        load(PORT_BLOCKER)["port_blocker"](PACKET, world=_mocked())


def _mocked() -> World:
    world = World()
    world.helpers.bpf_get_prandom_u32.returns(4)
    return world
