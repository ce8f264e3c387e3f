"""What the plugin costs, as ratios of CPU time in one round: tests with and without a call, properties, the start."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.agreement.fixtures import fixture
from tests.bench.timing import table

_HEAD = """
import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
"""
_BUILD = """
@pytest.mark.parametrize("port", range(1000))
def test_it(port):
    packet = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.0.0.1") / TCP(dport=port))
    assert len(packet) == 54
"""
_CALL = """
from pytest_plugin import Pass
from simulator import load

fw = load({path!r})["port_blocker"]

@pytest.mark.parametrize("port", range(1000))
def test_it(port):
    packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.0.0.1") / TCP(dport=port)
    assert fw(packet) == Pass
"""
_DRAW = """
from hypothesis import HealthCheck, Phase, given, settings
from pytest_plugin import Pass
from pytest_plugin.strategies import packets
from simulator import load

fw = load({path!r})["port_blocker"]

@settings(max_examples=10_000, deadline=None, database=None, phases=[Phase.generate])
@given(packets())
def test_it(packet):
    {body}
"""
_EMPTY = "def test_it():\n    pass\n"


def report() -> str:
    """The three ratios, with their goals."""
    path = str(fixture("port_blocker").twin)
    draw = _HEAD + _DRAW
    rows = [
        _row(
            "1,000 tests with a packet through it / that build it", 1.5, _HEAD + _BUILD, _HEAD + _CALL.format(path=path)
        ),
        _row(
            "10,000 examples of packets() through it / drawn",
            1.3,
            draw.format(path=path, body="bytes(packet)"),
            draw.format(path=path, body="assert fw(packet) == Pass"),
            rounds=1,
        ),
        _row("start of pytest with the plugin / without", 1.05, _EMPTY, _EMPTY, without=("-p", "no:bpflisp"), rounds=9),
    ]
    head = ("CPU seconds of a run of pytest", "without", "with", "ratio", "goal")
    return "The plugin:\n" + table(head, rows)


def _row(
    what: str, goal: float, plain: str, whole: str, *, without: tuple[str, ...] = (), rounds: int = 3
) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, text in (("plain", plain), ("whole", whole)):
            files.append(Path(folder) / f"test_{name}.py")
            files[-1].write_text(text)
        # Modules are compiled once, as pip does it for what it installs.
        for file in files:
            _seconds(file, "--collect-only")
        pairs = [(_seconds(files[0], *without), _seconds(files[1])) for _ in range(rounds)]
    one, other = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    return what, f"{one:.2f}", f"{other:.2f}", f"{other / one:.2f}", f"{goal:.2f}"


def _seconds(file: Path, *options: str) -> float:
    """CPU seconds of one run of pytest on a file, in a process of its own."""
    compiled = {"PYTHONPYCACHEPREFIX": str(file.parent / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options, str(file)]
    done = subprocess.run(
        command, cwd=file.parent, env={**os.environ, **compiled}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
