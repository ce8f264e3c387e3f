"""`bpflisp ir`, and the levels and passes that every command with a source can ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpflisp.back.compile import IMPROVEMENTS, STAGES
from bpflisp.cli.ir import stage_names
from bpflisp.ir.parse import parse_function
from bpflisp.ir.text import print_function
from bpflisp.ir.validate import validate
from bpflisp.opt import PASSES
from tests.cli.calling import REFUSED_LISP, SYN_LIMITER, WRONG_LISP, call

MACHINE = STAGES[STAGES.index("select") :]


def test_what_the_passes_leave_is_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "ir", SYN_LIMITER)
    assert shown.code == 0
    assert "be16" not in shown.out
    assert "load2 %0 + 12" in shown.out
    assert "be16" in call(capsys, "ir", SYN_LIMITER, "-O0").out


@pytest.mark.parametrize("stage", [name for name in stage_names() if name not in MACHINE])
def test_every_pass_shows_a_function_that_parses_back(capsys: pytest.CaptureFixture[str], stage: str) -> None:
    shown = call(capsys, "ir", SYN_LIMITER, "--after", stage)
    assert shown.code == 0
    function = parse_function(shown.out)
    validate(function)
    assert print_function(function) == shown.out


@pytest.mark.parametrize("stage", MACHINE)
def test_every_stage_of_the_back_end_shows_machine_code(capsys: pytest.CaptureFixture[str], stage: str) -> None:
    shown = call(capsys, "ir", SYN_LIMITER, "--after", stage)
    assert shown.code == 0
    assert shown.out.startswith("function @syn_limiter\n  slot $0 8 align 8\n")
    assert "call bpf_map_lookup_elem#1" in shown.out
    assert ("r16" in shown.out) == (stage in ("select", "makers"))


def test_several_functions_and_one_of_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "two.lisp"
    source.write_text("(defprog one (:type :xdp) 1)\n(defprog two (:type :xdp) 2)\n")
    assert call(capsys, "ir", source).out.count("program @") == 2
    assert call(capsys, "ir", source, "--prog", "two").out == "program @two(%ctx) {\nb0:\n  return 2\n}\n"
    assert " !2:27 " in call(capsys, "ir", source, "--prog", "two", "--positions").out
    assert "there are one, two" in call(capsys, "ir", source, "--prog", "three").err


def test_what_there_is_not_is_one_clear_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.lisp"
    wrong.write_text(WRONG_LISP)
    for code, message, args in (
        (2, "--after: error[no-such-pass]: no pass 'vectorise'", (SYN_LIMITER, "--after", "vectorise")),
        (2, "--without: error[no-such-pass]: no pass 'vectorise'", (SYN_LIMITER, "--without", "vectorise")),
        (2, "licm does not run at -O1", (SYN_LIMITER, "--after", "licm", "-O1")),
        (2, "gvn does not run at -O2 --without gvn", (SYN_LIMITER, "--after", "gvn", "--without", "gvn")),
        (2, "No such file", (tmp_path / "none.lisp",)),
        (1, "error[unknown-form]", (wrong,)),
        (2, "'3' is not one of '0', '1', '2'", (SYN_LIMITER, "-O3")),
    ):
        called = call(capsys, "ir", *args)
        assert (called.code, called.out) == (code, "")
        assert message in called.err


@pytest.mark.parametrize("name", [*(step.name for step in PASSES), *IMPROVEMENTS])
def test_a_pass_can_be_left_out_of_any_command(capsys: pytest.CaptureFixture[str], name: str) -> None:
    checked = call(capsys, "check", SYN_LIMITER, "--without", name)
    assert (checked.code, "accepted by" in checked.out) == (0, True)


def test_levels_and_targets_are_taken_wherever_a_source_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def disassembled(*args: str) -> str:
        return call(capsys, "disasm", SYN_LIMITER, *args).out

    lengths = [int(disassembled(f"-O{level}").split("\n")[0].split()[2]) for level in (0, 1, 2)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[2]
    assert disassembled() == disassembled("-O2", "--mcpu", "v3") != disassembled("--mcpu", "v1")
    packet = "00" * 64
    assert all(call(capsys, "run", SYN_LIMITER, "--packet", packet, f"-O{level}").code == 0 for level in (0, 1, 2))
    assert call(capsys, "needs", SYN_LIMITER, "-O0", "--mcpu", "v1").out.startswith("syn_limiter: ")
    out = tmp_path / "out.o"
    written = [call(capsys, "compile", SYN_LIMITER, "-o", out, f"-O{level}").out for level in (0, 1, 2)]
    assert written == [f"syn_limiter  xdp  {length} instructions\n" for length in lengths]


def test_a_refused_program_is_refused_at_every_level(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "refused.lisp"
    source.write_text(REFUSED_LISP)
    assert [call(capsys, "check", source, f"-O{level}").code for level in (0, 1, 2)] == [1, 1, 1]
