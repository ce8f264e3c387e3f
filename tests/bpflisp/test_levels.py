"""Every fixture program at every level, for every target, with each pass left out alone: its instructions are those of
the target, and it stays provable. The kernel is asked where it can be; elsewhere our verifier, which gives its verdict.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bpflisp import compile_text, driver
from bpflisp.back.compile import IMPROVEMENTS
from bpflisp.diagnostics import Source
from bpflisp.driver import compile_source
from bpflisp.opt import PASSES
from simulator.loader import load
from simulator.program import Object, Program
from tests import oracle
from tests.conftest import leave_out

FIXTURES = Path(__file__).parents[2] / "fixtures"
SOURCES = sorted([*FIXTURES.glob("programs/*/program.lisp"), *FIXTURES.glob("language/*/program.lisp")])
TARGETS = ("v1", "v2", "v3", "v4")
LEVELS = (0, 1, 2)
IDS = [path.parent.name for path in SOURCES]


def compiled(path: Path, mcpu: str = "v3", opt: int = 2, without: tuple[str, ...] = ()) -> Object:
    source = Source(str(path), path.read_text())
    return load(compile_source(source, mcpu=mcpu, opt=opt, without=without).elf, name=path.parent.name)


def require_accepted(program: Program, how: str) -> None:
    if oracle.available()[0]:
        answer = oracle.ask(program)
        assert answer.accepted, f"{how}: {answer.log[-2000:]}"
    else:
        verdict = program.verify()
        assert verdict.accepted, f"{how}: {verdict.message}"


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_every_level_and_target_stays_provable_and_within_its_instructions(path: Path) -> None:
    for mcpu in TARGETS:
        for opt in LEVELS:
            for program in compiled(path, mcpu, opt).values():
                newer = [insn for insn in program.code if insn is not None and insn.row.isa > int(mcpu[1:])]
                assert not newer, f"{mcpu} -O{opt}: {newer}"
                require_accepted(program, f"{mcpu} -O{opt}")


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_no_pass_is_needed_for_a_program_to_be_provable(path: Path) -> None:
    for name in [*(step.name for step in PASSES), *IMPROVEMENTS]:
        for program in compiled(path, without=(name,)).values():
            require_accepted(program, f"without {name}")


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_a_higher_level_is_never_longer(path: Path) -> None:
    for mcpu in TARGETS:
        lengths = [sum(len(program.code) for program in compiled(path, mcpu, opt).values()) for opt in LEVELS]
        assert lengths == sorted(lengths, reverse=True), f"{mcpu}: {lengths}"


def test_the_tests_can_be_run_with_a_pass_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests/conftest.py does for `make passes`: every source that a test compiles lacks the pass."""
    text = (FIXTURES / "programs" / "vlan_filter" / "program.lisp").read_text()

    def length() -> int:
        return sum(len(program.code) for program in load(compile_text(text), name="t").values())

    usual = length()
    for name in ("optimise", "compile_function"):
        monkeypatch.setattr(driver, name, getattr(driver, name))
    leave_out(["merge"], 2)
    without = length()
    leave_out([], 0)
    assert usual < without < length()
    with pytest.raises(pytest.UsageError, match="no pass vectorise"):
        leave_out(["vectorise"], 2)
