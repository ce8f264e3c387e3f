"""What is drawn can be given to programs, and is of the kinds that were asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis.stateful import run_state_machine_as_test
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q

from pytest_plugin import Pass
from pytest_plugin.strategies import _hints as learned
from pytest_plugin.strategies import contexts, dissected, maps, packets, state_machine
from simulator import MapDef, Object, Program, load
from tests.plugin.objects import EXIT, PORT_BLOCKER, ROOT, xdp

TC = ROOT / "fixtures" / "twins" / "tc_classifier.o"
PACKET_TYPES = {"xdp", "sched_cls", "socket_filter", "cgroup_skb", "lwt_xmit"}
CONTEXTS = PACKET_TYPES | {
    "kprobe", "tracepoint", "raw_tracepoint", "tracing", "lsm", "cgroup_sock_addr", "cgroup_sock", "sk_lookup",
    "sock_ops", "cgroup_sysctl", "cgroup_device", "perf_event", "syscall", "cgroup_sockopt", "netfilter",
}  # fmt: skip

obj = load(PORT_BLOCKER)
fw = obj["port_blocker"]
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@quick
@given(packets())
def test_whole_packets_are_what_was_asked_for(packet: Any) -> None:
    assert IP in packet or IPv6 in packet
    assert TCP in packet or UDP in packet
    assert len(bytes(packet)) >= 34


@quick
@given(packets(malformed=True, program=fw))
def test_malformed_packets_can_be_given_to_a_program(packet: Any) -> None:
    assert len(bytes(packet)) >= 14
    assert fw(packet).retval in (1, 2)


@pytest.mark.parametrize("kind", [Dot1Q, IPv6ExtHdrFragment, ICMPv6EchoRequest])
def test_every_kind_of_layer_is_found(kind: type) -> None:
    found = find(packets(l4="tcp|icmp"), lambda packet: kind in packet, settings=settings(derandomize=True))
    assert kind in found


def test_shrinking_ends_in_a_readable_packet() -> None:
    packet = find(packets(ip="v4"), lambda packet: TCP in packet, settings=settings(derandomize=True))
    assert packet[IP].src == "0.0.0.0"
    assert not bytes(packet[TCP].payload)
    assert Dot1Q not in packet


def test_ports_that_the_program_compares_with_are_drawn() -> None:
    """if r0 == 4242, as a C program writes it that has turned the bytes, or as one that has not."""
    for immediate in ("92100000", "10920000"):
        program = xdp(f"b700000002000000 15000000{immediate} {EXIT}")
        few = settings(derandomize=True, max_examples=500, deadline=None)
        assert find(packets(program=program), lambda packet: 4242 in ports(packet), settings=few)


def ports(packet: Any) -> set[int]:
    return {packet[kind].dport for kind in (TCP, UDP) if kind in packet}


@pytest.mark.parametrize("raw", [bytes(14), bytes(60), bytes.fromhex("ff" * 12 + "0800" + "ff" * 30)])
def test_dissected_packets_build_the_same_bytes(raw: bytes) -> None:
    assert bytes(dissected(raw)) == raw


@quick
@given(maps(obj))
def test_maps_are_typed_and_taken(state: dict[str, dict[Any, Any]]) -> None:
    assert list(state) == ["blocked"]
    assert all(isinstance(part, int) for pair in state["blocked"].items() for part in pair)
    assert len(state["blocked"]) <= 4
    fw(bytes(60), maps=state)


EVERY_KIND = {
    name: MapDef(name, name, 8 if name == "lpm_trie" else 4, 8, 4, flags=1 if name == "lpm_trie" else 0)
    for name in ("hash", "lru_hash", "array", "percpu_array", "percpu_hash", "lru_percpu_hash", "lpm_trie")
}


@quick
@given(maps(Object("", {}, {**EVERY_KIND, ".bss": MapDef(".bss", "array", 4, 8, 1, init=bytes(8))})))
def test_every_kind_of_map_takes_what_is_drawn(state: dict[str, dict[Any, Any]]) -> None:
    from simulator import World

    assert set(state) <= set(EVERY_KIND)
    world = World(EVERY_KIND[name] for name in state)
    for name, entries in state.items():
        for key, value in entries.items():
            world.maps[name][key] = value
            assert world.maps[name][key] == value


def test_an_alternative_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"packets\(ip='v4\|v5'\): 'v5' is none of v4, v6"):
        packets(ip="v4|v5")


def test_lengths_around_every_bound_are_drawn() -> None:
    """The port blocker tests for 54 bytes at once."""
    drawn: set[int] = set()

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(packets(ip="v4", malformed=True, program=fw))
    def draw(packet: Any) -> None:
        drawn.add(len(bytes(packet)))

    draw()
    assert {53, 54, 55} <= drawn


def test_bounds_one_after_the_other_are_added_up() -> None:
    """r1 = data; r1 += 14; r1 += 20: a test of 34 bytes in two steps."""
    program = xdp(f"61110000 00000000 070100000e000000 0701000014000000 b700000002000000 {EXIT}")
    assert {14, 15, 19, 20, 21, 33, 34, 35} <= set(learned(program).lengths)


@quick
@given(packets(malformed=True, program=load(TC)["tc_classifier"]))
def test_a_tc_program_takes_what_is_drawn_for_it(packet: Any) -> None:
    load(TC)["tc_classifier"].run(packet)


@pytest.mark.parametrize("kind", sorted(CONTEXTS))
def test_contexts_are_taken(kind: str) -> None:
    packet = bytes(64) if kind in PACKET_TYPES else None

    @quick
    @given(contexts(kind))
    def run(context: dict[str, Any]) -> None:
        program = Program(bytes.fromhex(f"b700000001000000 {EXIT}"), kind, name="p")
        outcome = program.run(packet, context=context) if packet else program.run(context)
        assert outcome.retval == 1

    run()


def test_fields_of_a_context_are_drawn() -> None:
    found = find(contexts("cgroup_sock_addr"), lambda drawn: drawn.get("user_port", 0) > 3)
    assert found["user_port"] == 4
    assert len(find(contexts("sched_cls"), lambda drawn: "cb" in drawn)["cb"]) == 5


def test_a_type_that_there_is_not_has_no_contexts() -> None:
    with pytest.raises(ValueError, match="contexts\\('xdpp'\\): there is no such program type"):
        contexts("xdpp")


class Counted(state_machine(obj, given=packets(ip="v4", l4="tcp"))):  # type: ignore[misc]
    """The port blocker drops nothing while nothing is blocked, and never sets an entry."""

    def check(self, packet: Any, result: Any) -> None:
        assert result == Pass or len(self.w.maps.blocked)


Counted.TestCase.settings = settings(max_examples=8, stateful_step_count=12, deadline=None, derandomize=True)
TestCounted = Counted.TestCase


def test_a_machine_finds_what_a_test_says_wrongly() -> None:
    class Never(state_machine(obj, "port_blocker", packets(ip="v4", l4="tcp", vlan=False))):  # type: ignore[misc]
        def check(self, packet: Any, result: Any) -> None:
            self.w.maps.blocked[packet[TCP].dport] = 0
            assert self.w.port_blocker(packet) == Pass

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Never,
            settings=settings(
                max_examples=300, deadline=None, derandomize=True, database=None, phases=[Phase.generate]
            ),
        )


def test_of_several_programs_a_machine_is_told_one() -> None:
    several = load(ROOT / "fixtures" / "twins" / "dispatch.o")
    with pytest.raises(ValueError, match="has several programs: name one of handler_a, handler_b, main_prog"):
        state_machine(several)
