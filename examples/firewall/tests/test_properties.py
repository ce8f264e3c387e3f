"""What holds for every packet and every content of the maps."""

from pathlib import Path

from hypothesis import given, settings
from scapy.layers.inet import IP

from pytest_plugin import Drop, Pass
from pytest_plugin.strategies import maps, packets
from simulator import load

obj = load(Path(__file__).parents[1] / "build" / "firewall.bpf.o")
firewall = obj["firewall"]


@settings(max_examples=60, deadline=None)
@given(packets(ip="v4|v6", malformed=True, program=firewall), maps(obj))
def test_it_passes_or_drops_and_changes_nothing(packet, state):
    result = firewall(packet, maps=state)
    assert result == Pass.with_packet(packet) or result == Drop.with_packet(packet)


@settings(max_examples=40, deadline=None)
@given(packets(ip="v4", vlan=False, program=firewall))
def test_nothing_comes_from_a_blocked_network(packet):
    everything = {"blocked": {"0.0.0.0/0": 1}}
    assert (IP in packet) == (firewall(packet, maps=everything) == Drop)
