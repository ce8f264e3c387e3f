"""A value that generated source writes where it is used may not outlive what it was computed from."""

import pytest

from bpflisp.spec.insn import Insn, encode
from simulator.program import Program
from simulator.run import run
from simulator.world import World
from tests.engines import as_parameters

# r0 = (r1 * r1 + r1) & 255 waits for the branch, and r1 is overwritten before it. Found by tests/bpflisp/front.
WAITING = [
    *(Insn(0xB7, 1, imm=1), Insn(0x85, 0, 1, imm=1), Insn(0x95)),
    *(Insn(0x57, 1, imm=255), Insn(0xBF, 0, 1), Insn(0x2F, 0, 1), Insn(0x0F, 0, 1), Insn(0x57, 0, imm=255)),
    *(Insn(0xB7, 1, imm=0), Insn(0x55, 0, off=3), Insn(0xB7, 0, imm=1), Insn(0x95)),
    *(Insn(0x07, 1, imm=1), Insn(0xB7, 0, imm=0), Insn(0xA5, 1, off=-3, imm=1), Insn(0x05, off=-5)),
]


@pytest.mark.parametrize("engine", as_parameters())
def test_what_a_waiting_value_was_computed_from_may_change(engine: str) -> None:
    program = Program(encode(WAITING), "xdp", name="waiting")
    assert run(program, bytes(64), World(), engine).retval == 0
