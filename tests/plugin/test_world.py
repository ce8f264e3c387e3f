"""The world from a test, through the fixture: records decoded, faults injected, no colour where none is wanted."""

from __future__ import annotations

import pytest

from tests.plugin.loaded import LOADED
from tests.plugin.objects import ROOT
from tests.plugin.test_plugin import run

pytest_plugins = ("pytester",)

assert LOADED

WATCHER = ROOT / "fixtures" / "typed" / "events.bpf.o"


def test_perf_records_are_structs_and_calls_fail_as_the_test_wants(pytester: pytest.Pytester) -> None:
    body = f"""
import errno

events = load({str(WATCHER)!r})

def test_records(bpf):
    w = bpf(events)
    w.cpu = 2
    assert w.watch(PACKET) == Pass
    assert w.watch(PACKET) == Pass
    first, second = w.records("events", "event")
    assert (first.source, first.length, first.packets) == ("10.0.0.1", 54, 1)
    assert first == events.types.event(source="10.0.0.1", length=54, packets=1)
    assert second.packets == 2
    assert w.records("events") == []
    w.watch(PACKET)
    (record,) = w.records("events")
    assert record[:16] == bytes(events.types.event(source="10.0.0.1", length=54, packets=3))

def test_an_update_that_fails(bpf):
    w = bpf(events)
    w.helpers.bpf_map_update_elem.fails(errno.ENOMEM, on=1)
    assert w.watch(PACKET) == Drop
    assert w.watch(PACKET) == Pass
    assert len(w.records("events")) == 1

def test_a_lookup_that_fails_on_one_map_and_not_on_another(bpf):
    w = bpf(events)
    w.watch(PACKET)
    w.helpers.bpf_map_lookup_elem.fails(map="seen", on=1)
    assert w.watch(PACKET) == Pass
    assert w.maps.seen["10.0.0.1"] == 1
    w.helpers.bpf_map_lookup_elem.works()
    w.watch(PACKET)
    assert w.maps.seen["10.0.0.1"] == 2

def test_an_output_that_fails(bpf):
    w = bpf(events)
    w.helpers.bpf_perf_event_output.fails(errno.ENOSPC)
    assert w.watch(PACKET) == Drop
    assert w.records("events") == []
    assert w.helpers.bpf_perf_event_output.calls == 1
"""
    run(pytester, body).assert_outcomes(passed=4)


def test_programs_that_hand_on_to_each_other(pytester: pytest.Pytester) -> None:
    """A tail call finds the others of its object; TC reads what XDP left before the packet. One world each."""
    body = f"""
handover = load({str(ROOT / "fixtures" / "typed" / "handover.bpf.o")!r})
dispatch = load({str(ROOT / "fixtures" / "twins" / "dispatch.o")!r})

def test_metadata(bpf):
    w = bpf(handover)
    left = w.leave(PACKET)
    size = handover.types.note.size if "note" in handover.types else 4
    assert left == Pass
    metadata, frame = left.packet[:size], left.packet[size:]
    assert frame == bytes(PACKET)
    taken = w.take(frame, context={{"data_meta": bytes(metadata)}})
    assert taken == Drop.with_packet(PACKET)
    assert taken.outcome.context["mark"] == 77
    assert w.take(frame) == Pass

def test_tail_call(bpf):
    w = bpf(dispatch)
    assert w.main_prog(PACKET) == Pass
    w.maps.dispatch[0] = "handler_b"
    assert w.main_prog(PACKET) == Drop
    del w.maps.dispatch[0]
    assert w.main_prog(PACKET) == Pass

def test_no_program_of_that_name(bpf):
    w = bpf(dispatch)
    w.maps.dispatch[0] = "handler_x"
    w.main_prog(PACKET)
"""
    result = run(pytester, body)
    result.assert_outcomes(passed=2, failed=1)
    said = "E*prog array 'dispatch' names 'handler_x' at 0, which the world has no program of*"
    result.stdout.fnmatch_lines([">*w.main_prog(PACKET)", said])
    result.stdout.no_fnmatch_line("*/simulator/*.py*")


COLOURS = "\x1b["


@pytest.mark.parametrize(
    ("variable", "option", "coloured"),
    [("NO_COLOR", "", False), ("", "", False), ("", "--color=yes", True), ("FORCE_COLOR", "", True)],
)
def test_colours_are_pytest_s_and_ours_are_none(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, variable: str, option: str, coloured: bool
) -> None:
    """In a pipe and with NO_COLOR there is none; where there is colour, our own lines are plain."""
    for name in ("NO_COLOR", "FORCE_COLOR", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    (pytester.path / "bad.lisp").write_text("(defprog bad (:type :xdp) (load u8 (ctx u32 0) 0))")
    args = ("--bpf-cov", "--bpf-check", "*.lisp", *([option] if option else []))
    result = run(pytester, "def test_it(bpf):\n    assert bpf(obj).port_blocker(PACKET) == Drop\n", *args)
    text = "\n".join(result.outlines)
    assert (COLOURS in text) == coloured
    ours = ("refused[", "port_blocker returned", "6.18  ", "; ./port_blocker.c", "  = because", "total ")
    lines = [line for line in result.outlines if any(part in line for part in ours)]
    assert len(lines) > len(ours)
    told = [line for line in lines if not line.startswith((COLOURS, "E", "FAILED"))]
    assert told
    assert not [line for line in told if COLOURS in line]
