"""The audit passes what the allocator makes, and finds what is broken on purpose."""

import pytest

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
