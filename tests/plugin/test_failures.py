"""What a failure shows: the last instructions with their source, what changed in the maps, how to run it again."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.cli.calling import call
from tests.plugin.loaded import LOADED
from tests.plugin.objects import PORT_BLOCKER
from tests.plugin.test_plugin import run

pytest_plugins = ("pytester",)

assert LOADED


def test_the_last_instructions_are_below_their_source_lines(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_it():\n    assert fw(PACKET) == Drop\n")
    result.stdout.fnmatch_lines(
        [
            "*bpf last instructions of 24*",
            "; ./port_blocker.c:34: hits = bpf_map_lookup_elem(&blocked, &port);",
            "  18: (18) r1 = 0x0 *-> r1=map blocked",
            "  20: (85) call bpf_map_lookup_elem#1 *r1=map blocked r2=fp-4 -> r0=0",
            "; ./port_blocker.c:39: }",
            "  27: (95) exit *r0=2",
            "*bpf replay*",
        ]
    )
    result.stdout.no_fnmatch_line("*bpf maps*")


def test_a_world_is_shown_as_it_was(pytester: pytest.Pytester) -> None:
    """The call is made again from the maps as they were before it, of the first test of a session too."""
    body = """
def test_it(bpf):
    w = bpf(obj)
    w.maps.blocked[23] = 7
    assert w.port_blocker(PACKET) == Pass
"""
    result = run(pytester, body)
    result.stdout.fnmatch_lines(
        ["*bpf last instructions of 27*", "*bpf maps, - before the call, + after it*", "  blocked"]
    )
    result.stdout.fnmatch_lines(["-   [[]23[]] = 7", "+   [[]23[]] = 8", "*bpf replay*"])


def test_a_wrong_count_shows_what_the_last_call_did(pytester: pytest.Pytester) -> None:
    body = """
def test_it(bpf):
    w = bpf(obj)
    w.maps.blocked[23] = 0
    w.port_blocker(PACKET)
    w.port_blocker(PACKET)
    assert w.maps.blocked[23] == 1
"""
    run(pytester, body).stdout.fnmatch_lines(["-   [[]23[]] = 1", "+   [[]23[]] = 2"])


def test_the_command_line_replays(pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> None:
    """The line with the seed fails again in the same way; the one with the packet alone returns the same."""
    body = """
rnd = Program(bytes.fromhex("8500000007000000 5700000001000000 9500000000000000"), "xdp", name="rnd")
def test_it(bpf):
    assert fw(PACKET) == Drop
def test_random():
    assert rnd(PACKET) == 77
"""
    result = run(pytester, body, "--bpf-seed=5")
    lines = result.stdout.lines
    again = next(line for line in lines if line.startswith("pytest ") and "test_random" in line)
    assert again.endswith("--bpf-seed=5")
    first = re.findall(r"E +assert (\d) == 77", result.stdout.str())
    second = pytester.runpytest("-p", "no:cacheprovider", *shlex.split(again)[1:])
    assert re.findall(r"E +assert (\d) == 77", second.stdout.str()) == first
    command = next(line for line in lines if line.startswith("bpflisp run "))
    assert str(PORT_BLOCKER) in command
    called = call(capsys, *shlex.split(command)[1:])
    assert (called.code, "XDP_PASS" in called.out) == (0, True)


def test_seeds_are_those_of_worlds(pytester: pytest.Pytester) -> None:
    body = """
def test_it(bpf):
    assert bpf(obj).seed == 9
    assert bpf(obj, seed=3).seed == 3
"""
    run(pytester, body, "--bpf-seed=9").assert_outcomes(passed=1)


def test_what_is_printed_is_a_section(pytester: pytest.Pytester) -> None:
    code = "b701000068690000 631af8ff00000000 bfa1000000000000 07010000f8ffffff b702000003000000 8500000006000000"
    body = f"""
talks = Program(bytes.fromhex("{code} b700000000000000 9500000000000000"), "socket_filter", name="talks")
def test_it():
    assert talks(PACKET, verify=False) == Pass
"""
    run(pytester, body).stdout.fnmatch_lines(["*bpf printed*", "hi"])


def test_a_fault_shows_how_it_came_to_it(pytester: pytest.Pytester) -> None:
    body = """
p = Program(bytes.fromhex("b701000000000000 7910000000000000 9500000000000000"), "xdp", name="p")
def test_it():
    p(PACKET, verify=False)
"""
    result = run(pytester, body)
    result.stdout.fnmatch_lines(["*FaultError:*", "*bpf last instructions of 2*", "   1: (79) r0 = *r1=0*"])
    result.stdout.no_fnmatch_line("*simulator/*.py*")


def test_long_runs_are_not_made_again(pytester: pytest.Pytester) -> None:
    body = """
loop = Program(bytes.fromhex("b701000000000000 0701000001000000 a501feff40420f00 b700000002000000 9500000000000000"),
               "xdp", name="loop")
def test_it():
    assert loop(PACKET, verify=False) == Drop
"""
    run(pytester, body).stdout.fnmatch_lines(["*bpf last instructions*", "loop: not shown, it executes more than *"])


def test_of_many_calls_in_a_world_the_later_are_told_by_name(pytester: pytest.Pytester) -> None:
    body = """
def test_it(bpf):
    w = bpf(obj)
    for _ in range(300):
        w.port_blocker(PACKET)
    assert w.port_blocker(PACKET) == Drop
"""
    run(pytester, body).stdout.fnmatch_lines(["port_blocker: not shown. Of a test's calls in a world the first 256*"])


def test_a_property_s_minimal_example_is_shown(pytester: pytest.Pytester) -> None:
    body = """
from hypothesis import given, settings, strategies as st

@settings(database=None, deadline=None)
@given(st.integers(0, 65535))
def test_it(bpf, port):
    w = bpf(obj)
    w.maps.blocked[1000] = 0
    w.maps.blocked[1001] = 0
    assert w.port_blocker(ETH / IP() / TCP(dport=1000 if port > 99 else 80)) == Pass
"""
    result = run(pytester, body)
    result.stdout.fnmatch_lines(["-   [[]1000[]] = 0", "+   [[]1000[]] = 1"])


def test_other_failures_have_no_sections(pytester: pytest.Pytester) -> None:
    run(pytester, "def test_it():\n    assert 1 == 2\n").stdout.no_fnmatch_line("*bpf replay*")


def test_a_slow_verification_is_no_example_s_fault(pytester: pytest.Pytester) -> None:
    """Hypothesis' deadline is about examples; a program is verified in the first that calls it."""
    body = """
import time
from hypothesis import given, settings, strategies as st
from simulator import verify

class Slow(Program):
    def verify(self, *args):
        time.sleep(2.5)
        return super().verify(*args)

slow = Slow(bytes.fromhex("b700000002000000 9500000000000000"), "xdp")

@settings(deadline=2000, database=None)
@given(st.integers(0, 65535))
def test_it(port):
    assert slow(bytes(14)) == Pass
"""
    run(pytester, body).assert_outcomes(passed=1)
