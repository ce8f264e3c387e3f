"""The audit passes what the allocator makes, finds what is broken on purpose, and sees whatever is compiled."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpflisp import compile_text
from bpflisp.back import compile as compiling
from bpflisp.back import compile_function
from bpflisp.back.audit import AuditError, Snapshot, audit, snapshot
from bpflisp.back.legalise import legalise
from bpflisp.back.machine import MFunction
from bpflisp.back.regalloc import allocate
from bpflisp.back.select import select
from bpflisp.back.target import Target
from bpflisp.ir.parse import parse_function

PROGRAM = """
program @f(%ctx) {
  slot $0 4 align 4
b0:
  %0 = call helper 7 ()
  %1 = call helper 5 ()
  store4 $0 + 0, %0
  %2 = call helper 1 (map @m, $0)
  %3 = add %0, %1
  branch ne %2, 0, b1, b2
b1:
  %4 = load8 %2 + 0
  %5 = add %3, %4
  return %5
b2:
  return %1
}
"""


def allocated() -> tuple[MFunction, Snapshot]:
    function = parse_function(PROGRAM)
    legalise(function, Target(3))
    machine = select(function, Target(3))
    before = snapshot(machine)
    allocate(machine)
    audit(before, machine)
    return machine, before


def test_every_wrong_register_is_found() -> None:
    """Each register field of each instruction, each changed into each other register that is not what it was."""
    machine, before = allocated()
    wrong = found = 0
    for block in machine.blocks:
        for insn in block.instructions():
            for name, uses in (("dst", insn.uses()), ("src", insn.uses())):
                right = getattr(insn, name)
                if right not in uses:
                    continue
                for other in range(10):
                    if other != right:
                        setattr(insn, name, other)
                        wrong += 1
                        try:
                            audit(before, machine)
                        except AuditError:
                            found += 1
                setattr(insn, name, right)
    assert found == wrong > 100


def test_a_value_kept_where_a_call_destroys_it_is_found() -> None:
    machine, before = allocated()
    for insn in machine.instructions():
        insn.dst = 3 if insn.dst in (6, 7, 8, 9) else insn.dst
        insn.src = 3 if insn.src in (6, 7, 8, 9) else insn.src
    with pytest.raises(AuditError, match="does not hold"):
        audit(before, machine)


def test_an_instruction_that_went_missing_is_found() -> None:
    machine, before = allocated()
    removed = next(i for b in machine.blocks for i in b.body if i.row.kind == "call")
    for block in machine.blocks:
        block.body = [insn for insn in block.body if insn is not removed]
    with pytest.raises(AuditError, match="left out"):
        audit(before, machine)


class NotPassedError(Exception):
    """What the audit of these tests says of everything."""


@pytest.mark.parametrize("level", [0, 1, 2])
def test_nothing_is_compiled_that_the_audit_has_not_passed(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever way a test compiles: `compile_function` is the one way to code, and the audit its last word."""

    def refuse(before: Snapshot, function: MFunction) -> None:
        raise NotPassedError

    monkeypatch.setattr("bpflisp.back.compile.audit", refuse)
    with pytest.raises(NotPassedError):
        compile_function(parse_function(PROGRAM), opt=level)
    with pytest.raises(NotPassedError):
        compile_text("(defprog p (:type :xdp) 1)", opt=level)


def test_each_allocation_is_audited_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways in which a function of several returns is compiled, and each before emission."""
    seen: list[str] = []
    for stage in ("allocate", "audit", "emit"):
        monkeypatch.setattr(f"bpflisp.back.compile.{stage}", recorded(stage, seen))
    compile_function(parse_function(PROGRAM))
    assert seen == ["allocate", "audit", "emit"] * 2


def recorded(stage: str, seen: list[str]) -> Callable[..., Any]:
    does = getattr(compiling, stage)

    def call(*args: Any, **options: Any) -> Any:
        seen.append(stage)
        return does(*args, **options)

    return call


def test_nobody_else_allocates() -> None:
    """In the package `allocate` is called in one place, in front of the audit."""
    package = Path(compiling.__file__).parents[1]
    callers = [path for path in package.rglob("*.py") if re.search(r"(?<!def )\ballocate\(", path.read_text())]
    assert callers == [Path(compiling.__file__)]
