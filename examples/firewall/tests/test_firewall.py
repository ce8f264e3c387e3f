"""What the firewall does to packets, as tables of cases and in a world of its own."""

from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

from pytest_plugin import Drop, Pass
from simulator import load

obj = load(Path(__file__).parents[1] / "build" / "firewall.bpf.o")
firewall = obj["firewall"]

ETH = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
STATE = {"blocked": {"198.51.100.0/24": 1}, "open_ports": {22: 1, 443: 1}}
CASES = {
    "an open port": (ETH / IP(src="10.0.0.1") / TCP(dport=443), Pass),
    "a port that is not open": (ETH / IP(src="10.0.0.1") / TCP(dport=23), Drop),
    "a blocked network": (ETH / IP(src="198.51.100.7") / TCP(dport=443), Drop),
    "its neighbour": (ETH / IP(src="198.51.101.7") / TCP(dport=443), Pass),
    "UDP": (ETH / IP(src="10.0.0.1") / UDP(dport=23), Pass),
    "IPv6": (ETH / IPv6() / TCP(dport=23), Pass),
    "ARP": (ETH / ARP(), Pass),
    "TCP cut short": (bytes(ETH / IP(src="10.0.0.1") / TCP(dport=23))[:50], Pass),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    packet, expected = CASES[name]
    assert firewall(packet, maps=STATE) == expected


def test_what_is_refused_is_told(bpf):
    w = bpf(obj)
    w.cpu = 1
    packet = ETH / IP(src="10.0.0.1") / TCP(dport=23)
    assert w.firewall(packet) == Drop
    (refusal,) = w.records("refusals", "refusal")
    assert refusal.source == "10.0.0.1"
    assert (refusal.port, refusal.length) == (23, 54)
    assert w.maps.done[int(w.firewall(packet))][1] == {"packets": 2, "bytes": 108}


def test_a_full_buffer_does_not_let_packets_through(bpf):
    w = bpf(obj)
    w.helpers.bpf_ringbuf_reserve.returns(0)
    assert w.firewall(ETH / IP() / TCP(dport=23)) == Drop
    assert w.records("refusals") == []
