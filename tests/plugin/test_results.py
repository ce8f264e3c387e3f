"""Results as values: what they equal, what they print."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from bpflisp.spec.programs import all_program_types
from pytest_plugin import Aborted, Drop, Pass, Redirect, Refused, TcAct, Tx
from simulator import EngineUnavailable, Expectation, Outcome, PacketBytes, Program, Result, Verdict

PACKET = bytes(range(20))


def result(type: str, retval: int, packet: bytes | None = PACKET, engine: str = "python", **more: object) -> Result:
    return Result(Program(b"", type, name="p"), Outcome(retval, packet, **more), engine)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("type", "retval", "expected", "shown"),
    [
        ("xdp", 0, Aborted, "Aborted"),
        ("xdp", 1, Drop, "Drop"),
        ("xdp", 2, Pass, "Pass"),
        ("xdp", 3, Tx, "Tx"),
        ("xdp", 4, Redirect(), "Redirect"),
        ("sched_cls", 0, Pass, "Pass"),
        ("sched_cls", 0, TcAct.OK, "Pass"),
        ("sched_cls", 2, Drop, "Drop"),
        ("sched_cls", 2, TcAct.SHOT, "Drop"),
        ("sched_cls", 3, TcAct.PIPE, "TcAct.PIPE"),
        ("sched_cls", 7, Redirect(), "Redirect"),
        ("sched_cls", 7, TcAct.REDIRECT, "Redirect"),
        ("sched_act", 0xFFFFFFFF, TcAct.UNSPEC, "TcAct.UNSPEC"),
        ("cgroup_skb", 1, Pass, "Pass"),
        ("cgroup_skb", 0, Drop, "Drop"),
        ("cgroup_sock_addr", 0, Drop, "Drop"),
        ("socket_filter", 96, Pass, "Pass (keeps up to 96 bytes)"),
        ("socket_filter", 0, Drop, "Drop"),
        ("sk_skb", 1, Pass, "Pass"),
    ],
)
def test_each_program_type_has_its_own_way(type: str, retval: int, expected: Expectation, shown: str) -> None:
    got = result(type, retval)
    assert got == expected
    assert expected == got
    assert got == retval
    assert repr(got) == shown


EXPECTATIONS = (Pass, Drop, Tx, Aborted, Redirect(), TcAct.PIPE, TcAct.OK, TcAct.SHOT, TcAct.STOLEN)


@pytest.mark.parametrize("type", [kind.name for kind in all_program_types()])
def test_no_return_value_is_two_things(type: str) -> None:
    for retval in (*range(10), 0xFFFFFFFF, 0xFFFFFFFE):
        matching = {wanted.action for wanted in EXPECTATIONS if result(type, retval) == wanted}
        kernel_names = {name for name in matching if name.startswith("TC_ACT_")}
        assert len(matching - kernel_names) <= 1
        assert len(kernel_names) <= 1


def test_an_int_is_compared_signed_or_unsigned() -> None:
    got = result("kprobe", 0xFFFFFFFF)
    assert got == -1
    assert got == 0xFFFFFFFF
    assert got != 1
    assert int(got) == 0xFFFFFFFF
    assert repr(got) == "-1"


def test_a_program_without_actions_equals_none_of_them() -> None:
    assert all(result("kprobe", retval) != wanted for retval in range(8) for wanted in EXPECTATIONS)


def test_redirection_has_a_target() -> None:
    got = result("xdp", 4, redirect=7)
    assert got == Redirect(7)
    assert got == Redirect()
    assert got != Redirect(8)
    assert repr(got) == "Redirect(7)"
    through_map = result("xdp", 4, redirect=("ports", 3))
    assert through_map == Redirect("ports", 3)
    assert repr(through_map) == "Redirect('ports', 3)"


def test_the_kernel_does_not_show_the_target() -> None:
    got = result("xdp", 4, engine="kernel")
    assert got == Redirect()
    with pytest.raises(EngineUnavailable, match="does not show where"):
        assert got == Redirect(7)


def test_with_packet_compares_the_packet_too() -> None:
    got = result("xdp", 3)
    assert got == Tx.with_packet(PACKET)
    assert got != Tx.with_packet(PACKET[:-1])
    assert got != Drop.with_packet(PACKET)
    assert repr(Tx.with_packet(PACKET)) == "Tx.with_packet(<20 bytes>)"


def test_packets_compare_with_bytes_and_with_scapy() -> None:
    packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.0.0.1", dst="10.0.0.2")
    got = result("xdp", 2, bytes(packet)).packet
    assert isinstance(got, PacketBytes)
    assert got == bytes(packet)
    assert got == packet
    assert got != packet / b"x"
    assert "10.0.0.2" in got.show()
    assert result("xdp", 2, bytes(packet)) == Pass.with_packet(packet)


def test_results_compare_with_each_other() -> None:
    assert result("xdp", 2) == result("xdp", 2)
    assert result("xdp", 2) != result("xdp", 1)
    assert result("xdp", 2) != result("xdp", 2, PACKET + b"x")
    assert result("xdp", 4, redirect=1) != result("xdp", 4, redirect=2)
    assert result("xdp", 2) != "Pass"


def test_refused_compares_with_verdicts() -> None:
    refused = Verdict(False, "6.18.44", message="R0 offset is outside of the packet", code="packet-bounds")
    assert refused == Refused("packet-bounds")
    assert refused == Refused()
    assert refused != Refused("stack-bounds")
    assert Verdict(True, "6.18.44") != Refused("packet-bounds")
    assert Verdict(True, "6.18.44") != Refused()
    assert repr(Refused("packet-bounds")) == "Refused('packet-bounds')"


def test_expectations_can_be_in_sets() -> None:
    assert len({Pass, Drop, Redirect(7), Redirect(7), Redirect(8)}) == 4
    assert result("xdp", 1) in (Pass, Drop)
