"""What a run of an accepted program holds in its registers lies in a state that the verifier had at that instruction.

Exploration is done without pruning here: a pruned path goes on in the state of another, whose numbers count only where
they are precise. So this is about what each instruction does to a state; pruning is held to the kernel's counts by
test_explore.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bpflisp.spec.isa import CALL_SUBPROGRAM, PSEUDO_FUNC, Kind
from bpflisp.spec.kernels import profile
from simulator import verify
from simulator.outcome import Outcome
from simulator.program import Program
from simulator.run import run
from simulator.verifier import regs as r
from simulator.verifier.layout import prepare
from simulator.verifier.machine import Machine
from simulator.verifier.refusal import Unsupported
from simulator.verifier.regs import Reg
from simulator.verifier.trail import Trail
from tests.agreement.plausible import draft
from tests.simulator.verifier.explore_cases import NEEDS_KERNEL_TYPES, answers, program_of

LONGEST = 30_000
PACKETS = (bytes(14), bytes(15), bytes(range(64)), bytes([255] * 64), random.Random(1).randbytes(200))
TYPES = ("socket_filter", "xdp", "sched_cls")


class TooLongError(Exception):
    """Without pruning this program has too many states."""


class Seen(Trail):
    """Notes, in place of a trail, the registers of every state at every instruction."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[int, list[list[Reg]]] = {}
        self.count = 0

    def note(self, m: Machine, idx: int) -> None:
        self.count += 1
        if self.count > LONGEST:
            raise TooLongError
        self.states.setdefault(idx, []).append(m.frame.regs[:])

    def back_to(self, position: int) -> None:
        """Nothing is forgotten."""


def states_of(program: Program) -> dict[int, list[list[Reg]]]:
    layout = prepare(program, profile("6.18"))
    never = [False] * len(layout.code)
    machine = Machine(replace(layout, prune_point=never, force_checkpoint=never), None, 1, 2)
    machine.trail = seen = Seen()
    machine.run()
    return seen.states


def fits(reg: Reg, value: int) -> bool:
    """Whether a value of 64 bits is one that a register may hold."""
    if reg.type == r.NOT_INIT:
        return True
    if reg.type != r.SCALAR:
        return value != 0 or bool(reg.type & r.MAYBE_NULL)
    num = reg.num
    low = value & 0xFFFFFFFF
    return (
        value & ~num.mask & (1 << 64) - 1 == num.value
        and num.umin <= value <= num.umax
        and num.smin <= _signed(value, 64) <= num.smax
        and num.umin32 <= low <= num.umax32
        and num.smin32 <= _signed(low, 32) <= num.smax32
    )


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value


def observed(outcome: Outcome) -> Iterator[tuple[int, list[int]]]:
    """(slot, registers before it) for each instruction of a run but the first."""
    before: list[int] | None = None
    for line in outcome.trace:
        found = re.match(r"(\d+): .* ; (r0=.*)$", line)
        if found is None:
            continue
        if before is not None:
            yield int(found[1]), before
        before = [int(word.partition("=")[2], 16) for word in found[2].split()]


def flat(program: Program) -> bool:
    """Whether no function but the first is in it: the trace does not say which function's registers it shows."""
    return not any(
        insn is not None
        and (
            (insn.row.kind is Kind.CALL and insn.src == CALL_SUBPROGRAM)
            or (insn.row.kind is Kind.LOAD_IMM64 and insn.src == PSEUDO_FUNC)
        )
        for insn in program.code
    )


def check(program: Program) -> int:
    """Runs a program on several packets; how many places were compared."""
    try:
        states = states_of(program)
    except (TooLongError, Unsupported):
        return 0
    compared = 0
    for packet in PACKETS:
        outcome = run(program, packet, engine="reference", trace=True)
        if outcome.fault is not None:
            assert outcome.fault.kind in ("helper", "fuel"), outcome.fault
            continue
        for slot, registers in observed(outcome):
            compared += 1
            assert any(
                all(fits(reg, value) for reg, value in zip(state, registers, strict=True))
                for state in states.get(slot, ())
            ), (slot, [hex(value) for value in registers])
    return compared


CASES = [
    name
    for name, answer in answers().items()
    if answer["accepted"]
    and answer["topic"] not in NEEDS_KERNEL_TYPES
    and program_of(name).type in TYPES
    and flat(program_of(name))
]

NOT_COMPARED = ("may_goto", "the map itself read")
"""Too many states without pruning; a helper that runs do not model: nothing of these can be compared."""


@pytest.mark.parametrize("name", CASES)
def test_registers_of_runs_lie_in_the_verifiers_states(name: str) -> None:
    assert (check(program_of(name)) == 0) == (name in NOT_COMPARED)


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_registers_of_generated_programs_lie_in_the_verifiers_states(first: int) -> None:
    compared = 0
    for seed in range(first, first + 20):
        made = draft(seed)
        program = made.program()
        if made.type in TYPES and flat(program) and verify(program, log_level=0).accepted:
            compared += check(program)
    assert compared > 20


def test_a_value_outside_of_the_state_is_noticed() -> None:
    bounded = states_of(program_of("a comparison bounds an index"))[9]
    assert all(fits(state[1], 63) and not fits(state[1], 64) for state in bounded)
