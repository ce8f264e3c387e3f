"""What is drawn can be given to programs, and is of the kinds that were asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, find, given, settings
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q

from pytest_plugin.strategies import dissected, maps, packets
from simulator import MapDef, Object, load
from tests.plugin.objects import EXIT, PORT_BLOCKER, xdp

obj = load(PORT_BLOCKER)
fw = obj["port_blocker"]
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


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
