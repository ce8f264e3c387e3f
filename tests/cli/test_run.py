"""`bpflisp run`: packets by hex, by pcap, by expression."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.calling import FIXTURES, PORT_BLOCKER, SYN_LIMITER, call
from tests.engines import as_parameters

SYN = "Ether(src='02:00:00:00:00:01',dst='02:00:00:00:00:02')/IP(src='10.0.0.1',dst='10.0.0.2')/TCP(flags='S')"
TAIL_DISPATCHER = str(FIXTURES / "programs" / "tail_dispatcher" / "program.lisp")
TRACE_EXEC = str(FIXTURES / "twins" / "trace_exec.o")


def test_hex(capsys: pytest.CaptureFixture[str]) -> None:
    called = call(capsys, "run", PORT_BLOCKER, "--packet", "00" * 14)
    assert (called.code, called.out) == (0, "packet 1: XDP_PASS, 14 bytes\n")


def test_the_world_goes_on_from_packet_to_packet(capsys: pytest.CaptureFixture[str]) -> None:
    called = call(capsys, "run", SYN_LIMITER, "--prog", "syn_limiter", "--packet", f"[{SYN}] * 5")
    actions = [line.split()[2] for line in called.out.splitlines()]
    assert actions == ["XDP_PASS,"] * 3 + ["XDP_DROP,"] * 2


def test_json_is_one_object_a_packet(capsys: pytest.CaptureFixture[str]) -> None:
    called = call(capsys, "run", PORT_BLOCKER, "--packet", "00" * 14, "--packet", "ff" * 60, "--json")
    rows = [json.loads(line) for line in called.out.splitlines()]
    assert rows[0] == {"retval": 2, "action": "XDP_PASS", "packet_hex": "00" * 14, "fault": None}
    assert rows[1]["packet_hex"] == "ff" * 60


def test_pcap(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from scapy.utils import wrpcap

    path = tmp_path / "two.pcap"
    wrpcap(str(path), [bytes(60), bytes(64)], linktype=1)
    called = call(capsys, "run", PORT_BLOCKER, "--packet", path)
    assert called.out.splitlines() == ["packet 1: XDP_PASS, 60 bytes", "packet 2: XDP_PASS, 64 bytes"]


@pytest.mark.parametrize("engine", as_parameters())
def test_engines(capsys: pytest.CaptureFixture[str], engine: str) -> None:
    assert call(capsys, "run", PORT_BLOCKER, "--engine", engine, "--packet", "00" * 14).code == 0


def test_a_program_without_a_packet(capsys: pytest.CaptureFixture[str]) -> None:
    called = call(capsys, "run", TRACE_EXEC)
    assert called.code == 0
    assert called.out == "packet 1: 0\n"


def test_one_of_several_programs_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    called = call(capsys, "run", TAIL_DISPATCHER, "--packet", "00" * 14)
    assert called.code == 2
    assert called.err.startswith(
        f"{TAIL_DISPATCHER}: error[which-program]: name one of its programs\n  = help: it has "
    )
