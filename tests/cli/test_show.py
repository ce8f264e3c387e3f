"""`bpflisp disasm`, `needs`, `doctor`, and help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from bpflisp.cli import COMMANDS
from tests.cli.calling import PORT_BLOCKER, ROOT, SYN_LIMITER, call


def test_disasm_has_instructions_between_source_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = call(capsys, "disasm", SYN_LIMITER).out.splitlines()
    assert lines[0].startswith("syn_limiter  xdp  ")
    assert lines[1].startswith("; (with-tcp (data end tcp)")
    assert lines[1].endswith(":11")
    assert any("call bpf_map_lookup_elem#1" in line for line in lines)
    assert any(line.endswith("; map syns") for line in lines)


def test_disasm_without_sources(capsys: pytest.CaptureFixture[str]) -> None:
    lines = call(capsys, "disasm", PORT_BLOCKER, "--no-source", "--prog", "port_blocker").out.splitlines()
    assert not any(line.startswith(";") for line in lines)
    assert lines[-1].endswith("(95) exit")


def test_needs_names_the_kernel_and_the_instruction(capsys: pytest.CaptureFixture[str]) -> None:
    lines = call(capsys, "needs", SYN_LIMITER).out.splitlines()
    assert lines[0].startswith("syn_limiter: 4.")
    assert any("helper bpf_map_lookup_elem  insn " in line for line in lines)


def test_doctor_tells_of_all_that_may_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    called = call(capsys, "doctor")
    names = [line[:14].strip() for line in called.out.splitlines()]
    assert called.code == 0
    assert names == ["python", "kernel engine", "kernel BTF", "tracefs", "unicorn", "clang", "bpftool"]


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "--help").out
    for name in COMMANDS:
        assert f"\n  {name}" in shown
        assert call(capsys, name, "--help").out.startswith(f"Usage: bpflisp {name} ")


def test_a_start_imports_what_it_needs() -> None:
    """Help is there at once: no scapy, no hypothesis, no rich, no simulator."""
    code = (
        "import sys, json\nfrom bpflisp.cli import main\n"
        "try: main(['check', '--help'])\nexcept SystemExit: pass\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & {"scapy", "hypothesis", "rich", "simulator", "unicorn", "elftools"}


def test_python_dash_m() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bpflisp", "check", PORT_BLOCKER], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "accepted by" in done.stdout


def test_disasm_draws_a_graph(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "graph.svg"
    called = call(capsys, "disasm", PORT_BLOCKER, "--cfg", str(target))
    assert (called.code, called.out) == (0, "")
    graph = Xml.fromstring(target.read_text())
    words = "".join(graph.itertext())
    assert "port_blocker" in words
    assert "call bpf_map_lookup_elem#1" in words
    assert sum(element.tag.endswith("rect") for element in graph.iter()) == 6


def test_a_graph_is_of_one_program(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    called = call(capsys, "disasm", ROOT / "fixtures" / "twins" / "dispatch.o", "--cfg", str(tmp_path / "x.svg"))
    assert called.code == 2
    assert "--cfg draws one program: --prog names it, of handler_a, handler_b, main_prog" in called.err
    called = call(capsys, "disasm", PORT_BLOCKER, "--cfg", str(tmp_path / "none" / "x.svg"))
    assert (called.code, "cannot write the drawing" in called.err) == (2, True)
