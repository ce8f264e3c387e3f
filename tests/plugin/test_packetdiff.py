"""Two packets held against each other."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether

from pytest_plugin.packetdiff import compare, first_difference

ETH = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
IPV4 = IP(src="10.0.0.1", dst="10.0.0.2")


def difference(got: object, wanted: object) -> tuple[str, list[str]]:
    found = compare(bytes(got), bytes(wanted))  # type: ignore[call-overload]
    return found.summary, found.lines


def test_a_field() -> None:
    summary, lines = difference(ETH / IPV4 / UDP(dport=53, chksum=1), ETH / IPV4 / UDP(dport=54, chksum=1))
    assert summary == "packet of 42 bytes, differs in UDP (dport)"
    assert lines == ["  Ethernet", "  IP", "  UDP", "-   dport = 54", "+   dport = 53 (domain)"]


def test_a_layer_that_is_not_there() -> None:
    summary, lines = difference(ETH / IPV4, ETH / IPV4 / ICMP())
    assert "ICMP (missing)" in summary
    assert lines[-1] == "- ICMP"


def test_a_layer_too_many() -> None:
    summary, lines = difference(ETH / Dot1Q(vlan=5) / ARP(), ETH / ARP())
    assert "802.1Q (not ARP)" in summary
    assert "+ 802.1Q" in lines


def test_payload_bytes() -> None:
    _, lines = difference(ETH / IPV4 / TCP() / b"\x01\x02", ETH / IPV4 / TCP() / b"\x01\x03")
    assert lines[-2:] == ["-   load = 01 03", "+   load = 01 02"]


def test_what_scapy_cannot_read_is_shown_by_bytes() -> None:
    summary, lines = difference(bytes(8), bytes(7) + b"\x01")
    assert summary == "packet of 8 bytes, differs in byte 7"
    assert lines[-2:] == ["- 0000  00 00 00 00 00 00 00 01", "+ 0000  00 00 00 00 00 00 00 00"]


def test_no_packet() -> None:
    assert compare(None, bytes(14)).summary == "no packet, expected one of 14 bytes"


def test_every_difference_is_told() -> None:
    """Whatever byte of a packet is changed, there is something to see."""
    whole = bytes(ETH / IPV4 / TCP(options=[("MSS", 1460)]) / b"payload")
    for at in range(len(whole)):
        changed = whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :]
        found = compare(changed, whole)
        assert any(line.startswith("-") for line in found.lines), at
        assert first_difference(changed, whole) == at
