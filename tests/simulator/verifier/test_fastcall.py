"""Spills around calls that the kernel inlines."""

from __future__ import annotations

import platform
import re

import pytest

from bpflisp.spec.kernels import profile
from simulator.program import Program
from simulator.verifier.layout import Explored, finish, prepare
from tests.simulator.verifier.layout_cases import EXIT, MOV0, insn

CPU, RANDOM = 8, 7


def spill(register: int, off: int) -> bytes:
    return insn(0x7B, 10, register, off)


def fill(register: int, off: int) -> bytes:
    return insn(0x79, register, 10, off)


def helper(number: int) -> bytes:
    return insn(0x85, imm=number)


ONE = spill(1, -8) + helper(CPU) + fill(1, -8) + MOV0 + EXIT
TWO = insn(0xB7, 2) + spill(1, -8) + spill(2, -16) + helper(CPU) + fill(2, -16) + fill(1, -8) + MOV0 + EXIT
NOT_INLINED = spill(1, -8) + helper(RANDOM) + fill(1, -8) + MOV0 + EXIT
WRONG_REGISTER = insn(0xB7, 2) + spill(1, -8) + helper(CPU) + fill(2, -8) + MOV0 + EXIT
CLOBBERED = insn(0xB7, 0) + spill(0, -8) + helper(CPU) + fill(0, -8) + MOV0 + EXIT
JUMPED_INTO = insn(0x15, 1, off=1) + spill(1, -8) + helper(CPU) + fill(1, -8) + MOV0 + EXIT
TO_FIRST_SPILL = insn(0x15, 1, off=1) + MOV0 + spill(1, -8) + helper(CPU) + fill(1, -8) + MOV0 + EXIT

CASES = {
    "one pair": (ONE, 8, 0),
    "two pairs": (TWO, 16, 0),
    "not inlined": (NOT_INLINED, 8, 8),
    "another register": (WRONG_REGISTER, 8, 8),
    "a register that the call writes": (CLOBBERED, 8, 8),
    "entered in the middle": (JUMPED_INTO, 8, 0),
    "entered at its first spill": (TO_FIRST_SPILL, 8, 0),
}
"""name -> (code, bytes of stack that paths use, bytes left when the kernel took the spills out)."""


@pytest.mark.parametrize("name", CASES)
def test_patterns_cost_no_stack(name: str) -> None:
    code, used, left = CASES[name]
    layout = prepare(Program(insns=code, type="xdp"), profile())
    done = finish(layout, Explored([used], [True] * len(layout.slots)))
    assert done.stack_depth == [left]


def test_later_kernels_look_at_jumps_into_patterns() -> None:
    layout = prepare(Program(insns=JUMPED_INTO, type="xdp"), profile("7.2"))
    assert not any(layout.fastcalls.pattern)


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_counts_the_stack_so(name: str) -> None:
    from tests import oracle

    can_ask, why = oracle.available()
    if not can_ask:
        pytest.skip(why)
    if not platform.release().startswith("6.18."):
        pytest.skip("the figures are those of kernel 6.18")
    log = oracle.ask(Program(insns=CASES[name][0], type="xdp"), log_level=4).log
    found = re.search(r"stack depth (\d+)", log)
    assert found is not None, log
    assert int(found[1]) == CASES[name][2]
